use super::*;
use crate::{
    docker::scripted::{Engine, Runtime, Script, VOLUME},
    driver::workbench::{Bench, down},
    reconcile::policy::Policy,
};

/// What the engine notes of a start for which this volume could not be mounted.
const FAILED: &str =
    "error while mounting volume '/var/lib/docker/plugins/x': VolumeDriver.Mount: dso: volume `v`: down";

struct World {
    bench: Bench,
    engine: Arc<Engine>,
    observer: Observer,
}

/// The volume `v`, of which the engine has told everything.
async fn world() -> World {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"good 1");
    bench.volume(VOLUME, &[("file.x", "p://app")]).await;
    let engine = Engine::new(|| "good 1".into());
    let runtime: Arc<dyn ContainerRuntime> = Arc::new(Runtime { engine: engine.clone(), gate: Arc::default() });
    let (driver, table, dir) =
        (bench.driver.clone(), Arc::new(Table::default()), bench.dir.path().join("state/journal"));
    let rollouts = Rollouts::new(driver.clone(), runtime.clone(), Policy::default(), table.clone(), dir).unwrap();
    let observer = Observer::new(driver, runtime, table, Arc::new(rollouts));
    observer.survey().await;
    World { bench, engine, observer }
}

impl World {
    /// A container `web` that the engine could not start again.
    fn fail(&self, change: impl FnOnce(&mut Container)) -> String {
        let id = self.engine.run("web", "none", Script { restarted: true, ..Script::default() });
        self.engine.edit("web", |web| {
            (web.state, web.exit_code, web.error) = (State::Exited, 128, FAILED.into());
            web.restarted_by_engine = true;
            change(web);
        });
        id
    }

    async fn starts(&self, id: &str) -> bool {
        let (_, then) = self.observer.look(id).await;
        let is_to_be = then.contains(&(Key::Start(id.to_owned()), Duration::ZERO));
        self.observer.start(id).await;
        let runs = self.engine.look(id).unwrap().state == State::Running;
        assert_eq!(is_to_be, runs);
        runs
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_could_not_be_started_is_started_once_its_secrets_can_be_read() {
    let world = world().await;
    world.bench.provider.fail(down());
    let id = world.fail(|_| ());
    assert_eq!(world.observer.look(&id).await.1, [(Key::Start(id.clone()), Duration::ZERO)]);
    assert_eq!(world.observer.start(&id).await.0, Some(WAITING));
    assert_eq!(world.engine.look(&id).unwrap().state, State::Exited, "its provider is not back");
    world.bench.provider.fail(None);
    assert_eq!(world.observer.start(&id).await.0, None);
    assert_eq!(world.engine.look(&id).unwrap().state, State::Running);
}

#[tokio::test(start_paused = true)]
async fn a_container_is_left_alone_that_a_person_stopped_or_never_started_or_that_failed_for_another_reason() {
    type Change = fn(&mut Container);
    let changes: [(&str, Change); 6] = [
        ("a person stopped it", |web| (web.exit_code, web.error) = (143, String::new())),
        ("it was never started", |web| (web.state, web.started) = (State::Created, None)),
        ("the engine would not keep it running", |web| web.restarted_by_engine = false),
        ("another driver's volume is at fault", |web| web.error = web.error.replace("dso: ", "nfs: ")),
        ("its port is taken", |web| web.error = "dso: driver failed programming external connectivity".into()),
        ("another plugin's volume is at fault", |web| web.mounts[0].volume = "of-another".into()),
    ];
    for (why, change) in changes {
        let world = world().await;
        let id = world.fail(change);
        assert!(!world.starts(&id).await, "{why}");
    }
    let world = world().await;
    let id = world.fail(|_| ());
    assert!(world.starts(&id).await, "or this test could not fail");
}

#[tokio::test(start_paused = true)]
async fn what_an_engine_that_still_tells_its_events_did_not_answer_is_asked_again() {
    let world = world().await;
    let (id, name) = (world.engine.run("web", "none", Script::default()), VOLUME.parse().unwrap());
    world.engine.set_down(true);
    assert_eq!(world.observer.look(&id).await.0, Some(ASK_AGAIN));
    assert_eq!(world.observer.users(&name).await.0, Some(ASK_AGAIN));
    world.observer.lost();
    assert_eq!(world.observer.look(&id).await.0, None, "a list of everything follows");
    assert_eq!(world.observer.users(&name).await.0, None);
    assert_eq!(world.observer.survey().await.0, Some(ASK_AGAIN));
    world.engine.set_down(false);
    world.observer.survey().await;
    assert_eq!(world.observer.table.get(&id).map(|web| web.state), Some(State::Running));
}

#[tokio::test(start_paused = true)]
async fn faults_that_were_told_are_forgotten_with_their_container_also_if_its_end_was_missed() {
    let world = world().await;
    let id = world.engine.run("web", "restrat", Script::default());
    world.observer.look(&id).await;
    assert_eq!(world.observer.told.lock().unwrap().len(), 1);
    world.engine.kill_off("web");
    world.observer.survey().await;
    assert!(world.observer.told.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_rollout_kept_and_its_lost_journal_does_not_tell_of_is_let_go() {
    let world = world().await;
    world.bench.mount(VOLUME, "a").await.unwrap();
    let name = VOLUME.parse().unwrap();
    assert!(world.bench.driver.keep(&name).await.unwrap());
    world.bench.unmount(VOLUME, "a").await;
    assert_eq!(world.bench.status(VOLUME).mounts, 1);
    world.observer.survey().await;
    assert_eq!(world.bench.status(VOLUME).mounts, 0);
}
