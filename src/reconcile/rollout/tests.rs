//! Rollouts over a driver, a scripted provider and a scripted engine, in paused time.

use super::*;
use crate::{
    docker::{
        State,
        scripted::{Engine, Gate, Runtime, Script, VOLUME},
    },
    driver::{Wanted, workbench::Bench},
    reconcile::journal::{Decision, Log},
};
use tempfile::TempDir;
use tokio::time::Instant;

mod container;
mod many;
mod walk;

/// A health check, and nothing special.
const CHECKED: Script =
    Script { checked: true, crashes: false, sick: false, restarted: false, auto_remove: false, exclusive: false };

struct World {
    bench: Bench,
    engine: Arc<Engine>,
    gate: Arc<Gate>,
    rollouts: Rollouts,
    journal: TempDir,
}

fn volume() -> VolumeName {
    VOLUME.parse().unwrap()
}

impl World {
    /// The volume `v` shows `good 1`.
    async fn new() -> Self {
        Self::with(Policy::default()).await
    }

    async fn with(policy: Policy) -> Self {
        let bench = Bench::new().await;
        bench.provider.put("app", "1", b"good 1");
        bench.volume(VOLUME, &[("file.x", "p://app")]).await;
        bench.mount(VOLUME, "a").await.unwrap();
        let path = bench.dir.path().join(VOLUME).join("x");
        let engine = Engine::new(move || std::fs::read_to_string(&path).unwrap_or_default());
        Self::over(bench, engine, tempfile::tempdir_in("/dev/shm").unwrap(), policy, Arc::default())
    }

    fn over(bench: Bench, engine: Arc<Engine>, journal: TempDir, policy: Policy, gate: Arc<Gate>) -> Self {
        let table = Arc::new(Table::default());
        table.set(engine.list());
        let runtime = Arc::new(Runtime { engine: engine.clone(), gate: gate.clone() });
        let rollouts = Rollouts::new(bench.driver.clone(), runtime, policy, table, journal.path()).unwrap();
        let clock = engine.clone();
        let rollouts = rollouts.scripted(move || clock.now(), gate.clone());
        Self { bench, engine, gate, rollouts, journal }
    }

    /// What another process makes of the same journal.
    fn over_again(world: &World, gate: Arc<Gate>) -> Rollouts {
        let runtime = Arc::new(Runtime { engine: world.engine.clone(), gate: gate.clone() });
        let (driver, table) = (world.bench.driver.clone(), world.rollouts.table.clone());
        let rollouts = Rollouts::new(driver, runtime, Policy::default(), table, world.journal.path()).unwrap();
        let clock = world.engine.clone();
        rollouts.scripted(move || clock.now(), gate)
    }

    /// The process is gone, and another begins, which may die too.
    async fn restart(self, gate: Arc<Gate>) -> Self {
        let Self { bench, engine, rollouts, journal, .. } = self;
        let policy = Policy::clone(&rollouts.policy());
        drop(rollouts);
        Self::over(bench.restart().await, engine, journal, policy, gate)
    }

    /// The containers have run for a while, and the engine has told of them.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.rollouts.table.set(self.engine.list());
    }

    async fn put(&self, version: &str, value: &str) {
        self.bench.provider.put("app", version, value.as_bytes());
        self.check().await;
    }

    /// What the last check told is fresh for half a second.
    async fn check(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (key, _) in self.bench.driver.checks(&volume(), Wanted::Now) {
            self.bench.driver.check(&key).await;
        }
    }

    async fn reconcile(&self) -> Action {
        self.rollouts.reconcile(&volume(), "version changed").await
    }

    async fn rotate(&self, version: &str, value: &str) -> Action {
        self.put(version, value).await;
        self.reconcile().await
    }

    fn file(&self) -> String {
        self.bench.read(VOLUME, "x")
    }

    fn log(&self) -> Log {
        self.rollouts.journal.read(&volume()).unwrap()
    }

    fn decision(&self) -> Decision {
        self.log().decisions.back().unwrap().clone()
    }

    /// What each container's process has read last, by name.
    fn read(&self) -> Vec<(String, String)> {
        self.engine.state().into_iter().map(|(name, _, read, _)| (name, read)).collect()
    }

    fn calls(&self, call: &str) -> usize {
        self.gate.passed().iter().filter(|passed| passed.starts_with(call) && !passed.ends_with("done")).count()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_no_container_is_told_of_costs_no_write_and_no_call() {
    let world = World::new().await;
    world.engine.run("web", "none", CHECKED);
    world.settle().await;
    assert_eq!(world.rotate("2", "good 2").await, Action::Done);
    assert_eq!(world.file(), "good 2");
    assert_eq!(world.gate.passed(), Vec::<String>::new());
    assert_eq!(world.bench.driver.shown(&volume()).unwrap().base, None, "it is committed");
    assert_eq!(world.bench.status(VOLUME).last_rotation.unwrap().result, "published");
    assert_eq!(std::fs::read_dir(world.journal.path()).unwrap().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn another_policy_holds_from_the_next_change_on() {
    let world = World::new().await;
    world.engine.run("web", "none", CHECKED);
    world.engine.edit("web", |container| container.labels.clear());
    world.settle().await;
    assert_eq!(world.rotate("2", "good 2").await, Action::Done);
    assert_eq!(world.calls("restart"), 0, "{:?}", world.gate.passed());
    world.rollouts.set_policy(Policy { on_rotate: OnRotate::Restart, ..Policy::default() });
    world.rotate("3", "good 3").await;
    assert_eq!(world.calls("restart"), 1, "{:?}", world.gate.passed());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_the_engine_has_not_told_of_yet_is_told_too() {
    let world = World::new().await;
    world.engine.run("quiet", "none", CHECKED);
    world.settle().await;
    // Its mount came to the plugin, and its process has begun; the event of it is on its way.
    world.bench.mount(VOLUME, "b").await.unwrap();
    world.engine.run("web", "signal", CHECKED);
    assert_eq!(world.rotate("2", "good 2").await, Action::Done);
    assert_eq!(world.read(), pairs(&[("quiet", "good 1"), ("web", "good 2")]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_volume_that_is_gone_for_another_of_its_name() {
    let world = World::new().await;
    world.engine.run("web", "restart", CHECKED);
    world.settle().await;
    world.rotate("2", "bad 2").await;
    assert_eq!(world.decision().result, "rolled back");
    world.bench.unmount(VOLUME, "a").await;
    world.bench.driver.remove(VOLUME, "engine").await.unwrap();
    world.rollouts.note_gone(&volume());
    world.bench.volume(VOLUME, &[("file.x", "p://app")]).await;
    assert_eq!(world.reconcile().await, Action::Done);
    assert_eq!(world.rollouts.journal.read(&volume()), None);
    assert_eq!(std::fs::read_dir(world.journal.path()).unwrap().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_died_before_it_forgot_a_volume_is_followed_by_one_that_does() {
    let world = World::new().await;
    world.engine.run("web", "restart", CHECKED);
    world.settle().await;
    world.rotate("2", "good 2").await;
    world.bench.unmount(VOLUME, "a").await;
    let files = || std::fs::read_dir(world.journal.path()).unwrap().count();
    World::over_again(&world, Arc::default());
    assert_eq!(files(), 1);
    world.bench.driver.remove(VOLUME, "engine").await.unwrap();
    World::over_again(&world, Arc::default());
    assert_eq!(files(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_rollout_of_a_volume_that_is_gone_is_ended_before_it_is_forgotten() {
    let world = World::new().await;
    world.engine.run("web", "rolling", Script { exclusive: true, ..CHECKED });
    world.settle().await;
    world.put("2", "good 2").await;
    let gate = Gate::deadly(12);
    let world = World { rollouts: World::over_again(&world, gate.clone()), ..world };
    tokio::select! { _ = world.reconcile() => unreachable!("it dies"), () = gate.died() => {} }
    let stopped = world.engine.state();
    assert!(stopped.iter().all(|(_, state, ..)| *state != State::Running), "{stopped:?}");
    world.bench.unmount(VOLUME, "a").await;
    world.bench.driver.remove(VOLUME, "engine").await.unwrap();
    let world = World { rollouts: World::over_again(&world, Arc::default()), ..world };
    assert_eq!(world.rollouts.unfinished(), [volume()]);
    world.engine.set_down(true);
    assert_eq!(world.reconcile().await, Action::Retry, "it is not forgotten before it is ended");
    world.engine.set_down(false);
    world.reconcile().await;
    assert_eq!(world.rollouts.journal.read(&volume()), None);
    let left: Vec<_> = world.engine.state().into_iter().map(|(name, state, ..)| (name, state)).collect();
    assert_eq!(left, [("web".to_owned(), State::Running)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_where_nothing_changed() {
    let world = World::new().await;
    world.engine.run("web", "restart", CHECKED);
    world.settle().await;
    world.check().await;
    assert_eq!(world.reconcile().await, Action::Done);
    let world = world.restart(Arc::default()).await;
    world.check().await;
    assert_eq!(world.reconcile().await, Action::Done);
    assert_eq!(world.gate.passed(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn before_the_engine_was_asked_a_change_is_published_and_its_containers_are_told_once_it_answers() {
    let world = World::new().await;
    world.engine.run("web", "signal", CHECKED);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let world = world.restart(Arc::default()).await;
    let world = World { rollouts: Rollouts { table: Arc::default(), ..world.rollouts }, ..world };
    world.engine.set_down(true);
    assert_eq!(world.rotate("2", "good 2").await, Action::Retry);
    assert_eq!(world.file(), "good 2");
    assert_eq!(world.rollouts.unfinished(), [volume()]);
    let error = world.bench.status(VOLUME).error.unwrap();
    assert!(error.contains("its containers are not told of a change yet: the engine is out of reach"), "{error}");
    world.engine.set_down(false);
    assert_eq!(world.reconcile().await, Action::Done);
    assert_eq!(world.read(), pairs(&[("web", "good 2")]));
    assert_eq!(world.bench.status(VOLUME).error, None);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_failed_for_a_passing_reason_is_tried_again_and_leaves_no_trial() {
    let world = World::new().await;
    world.engine.run("web", "signal", CHECKED);
    world.settle().await;
    world.put("2", "good 2").await;
    world.bench.provider.fail_reads(crate::driver::workbench::down());
    assert_eq!(world.reconcile().await, Action::Retry);
    assert!(world.rollouts.unfinished().is_empty());
    world.bench.provider.fail_reads(None);
    assert_eq!(world.reconcile().await, Action::Done);
    assert_eq!(world.read(), pairs(&[("web", "good 2")]));
}
