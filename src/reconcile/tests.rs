//! The loop over a driver, in paused time: an hour passes in no time, and nothing depends on the machine.

mod asked;
mod measured;
mod recorded;
mod redacted;

use super::*;
use crate::{
    docker::scripted::{Engine, Gate, Runtime, Script, swarm::ScriptedSwarm},
    driver::{Asked, State, workbench::Bench, workbench::down},
};
use policy::Policy;
use tokio::task::JoinHandle;

struct Running {
    bench: Bench,
    engine: Arc<Engine>,
    pushes: mpsc::UnboundedSender<String>,
    cancel: CancellationToken,
    swarm: Arc<ScriptedSwarm>,
    task: JoinHandle<()>,
}

impl Running {
    async fn new() -> Self {
        Self::over(Bench::new().await)
    }

    /// Without containers, of which no engine tells.
    fn over(bench: Bench) -> Self {
        let shown = bench.dir.path().join("v/x");
        Self::beside(bench, Engine::new(move || std::fs::read_to_string(&shown).unwrap_or_default()))
    }

    fn beside(mut bench: Bench, engine: Arc<Engine>) -> Self {
        let (pushes, pushed) = mpsc::unbounded_channel();
        let (cancel, (_, none)) = (CancellationToken::new(), mpsc::unbounded_channel());
        let told = std::mem::replace(&mut bench.told, none);
        let sources = Sources { driver: told, pushes: pushed };
        let runtime: Arc<dyn ContainerRuntime> = Arc::new(Runtime { engine: engine.clone(), gate: Arc::default() });
        let (driver, table) = (bench.driver.clone(), Arc::new(Table::default()));
        let journal = bench.dir.path().join("state/journal");
        let rollouts =
            Rollouts::new(driver.clone(), runtime.clone(), Policy::default(), table.clone(), journal).unwrap();
        let swarm = Arc::new(ScriptedSwarm::default());
        // One clock for both: the engine's goes on with the paused one.
        let clock = engine.clone();
        let rollouts = rollouts.scripted(move || clock.now(), Arc::default());
        let parts = Parts { driver, runtime, swarm: swarm.clone(), rollouts: Arc::new(rollouts), table };
        let task = tokio::spawn(run(parts, sources, cancel.clone()));
        Self { bench, engine, pushes, cancel, swarm, task }
    }

    /// Waits until the volume's file has `text`; returns how long that took.
    async fn until_reads(&self, name: &str, file: &str, text: &str) -> Duration {
        let began = Instant::now();
        while self.bench.read(name, file) != text {
            assert!(began.elapsed() < Duration::from_secs(3600), "`{text}` does not arrive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }

    async fn pass(&self, seconds: u64) {
        // In steps: what is due in between runs when it is due.
        for _ in 0..seconds * 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_arrives_within_one_interval() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.pass(100).await;
    running.bench.provider.put("app", "2", b"new");
    assert!(running.until_reads("v", "x", "new").await <= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn checks_are_one_for_each_secret_and_interval_and_reads_are_one_for_each_change() {
    let running = Running::new().await;
    for secret in 0..5 {
        running.bench.provider.put(&format!("s{secret}"), "1", b"x");
    }
    for n in 0..200 {
        let (name, reference) = (format!("v{n}"), format!("p://s{}", n % 5));
        running.bench.volume(&name, &[("file.x", &reference)]).await;
        running.bench.mount(&name, "a").await.unwrap();
    }
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(300).await;
    let (reads, checks) = running.bench.provider.calls();
    assert_eq!(reads, 0);
    // An interval is 27 to 30 s: 10 to 11.1 of them in 300 s.
    assert!((50..=60).contains(&checks), "{checks} checks");
    running.bench.provider.put("s3", "2", b"y");
    running.pass(31).await;
    assert_eq!(running.bench.provider.calls().0, 1);
    for n in 0..200 {
        assert_eq!(running.bench.read(&format!("v{n}"), "x"), if n % 5 == 3 { "y" } else { "x" });
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_call_for_all_of_its_secrets() {
    let running = Running::new().await;
    running.bench.provider.batch_all();
    for secret in 0..10 {
        running.bench.provider.put(&format!("s{secret}"), "1", b"x");
        running.bench.volume(&format!("v{secret}"), &[("file.x", &format!("p://s{secret}"))]).await;
        running.bench.mount(&format!("v{secret}"), "a").await.unwrap();
    }
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(300).await;
    let (_, checks) = running.bench.provider.calls();
    assert!((10..=12).contains(&checks), "{checks} checks");
}

#[tokio::test(start_paused = true)]
async fn a_push_is_followed_at_once() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app"), ("refresh", "1h")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.pass(10).await;
    running.bench.provider.put("app", "2", b"new");
    running.pushes.send("p".into()).unwrap();
    assert!(running.until_reads("v", "x", "new").await <= Duration::from_millis(100));
}

/// A check a moment before the change confirmed the value that it replaces.
#[tokio::test(start_paused = true)]
async fn pushes_in_quick_succession_are_each_followed_at_once() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app"), ("refresh", "1h")]).await;
    running.bench.mount("v", "a").await.unwrap();
    for version in 2..10 {
        let text = format!("value {version}");
        running.bench.provider.put("app", &version.to_string(), text.as_bytes());
        running.pushes.send("p".into()).unwrap();
        assert!(running.until_reads("v", "x", &text).await <= Duration::from_millis(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_is_followed_also_right_after_a_mount_or_a_check() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app"), ("refresh", "1h")]).await;
    running.bench.mount("v", "a").await.unwrap();
    for (version, text) in [("2", "newer"), ("3", "newest")] {
        tokio::time::sleep(Duration::from_millis(50)).await;
        running.bench.provider.put("app", version, text.as_bytes());
        running.pushes.send("p".into()).unwrap();
        assert!(running.until_reads("v", "x", text).await <= Duration::from_millis(100));
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_are_checked_on_when_their_provider_can_tell_them_together_no_more_or_again() {
    let running = Running::new().await;
    running.bench.provider.batch_all();
    for secret in 0..5 {
        running.bench.provider.put(&format!("s{secret}"), "1", b"x");
        running.bench.volume(&format!("v{secret}"), &[("file.x", &format!("p://s{secret}"))]).await;
        running.bench.mount(&format!("v{secret}"), "a").await.unwrap();
    }
    running.pass(60).await;
    running.bench.provider.batch_none();
    running.pass(60).await;
    running.bench.provider.put("s3", "2", b"y");
    assert!(running.until_reads("v3", "x", "y").await <= Duration::from_secs(31));
    running.bench.provider.calls();
    running.pass(300).await;
    let (_, checks) = running.bench.provider.calls();
    assert!((50..=60).contains(&checks), "{checks} checks, each secret by itself");
    running.bench.provider.batch_all();
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(300).await;
    let (_, checks) = running.bench.provider.calls();
    assert!((10..=12).contains(&checks), "{checks} checks, all together again");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_check_does_not_end_the_checks() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.bench.provider.panic_once();
    running.pass(31).await;
    running.bench.provider.put("app", "2", b"new");
    assert!(running.until_reads("v", "x", "new").await <= Duration::from_secs(100));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_asked_about_less_and_less_often_and_its_end_is_seen_within_an_interval() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app"), ("refresh", "60s")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.pass(61).await;
    running.bench.provider.fail(down());
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(600).await;
    let (_, checks) = running.bench.provider.calls();
    assert!((8..=20).contains(&checks), "{checks} checks in ten minutes");
    assert_eq!(running.bench.status("v").state, State::Stale);
    running.bench.provider.put("app", "2", b"new");
    running.bench.provider.fail(None);
    assert!(running.until_reads("v", "x", "new").await <= Duration::from_secs(60));
    assert_eq!(running.bench.status("v").state, State::Current);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_checked_that_nobody_has_mounted() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"x");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.bench.unmount("v", "a").await;
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(600).await;
    assert_eq!(running.bench.provider.calls(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_what_has_begun() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.pass(1).await;
    running.bench.provider.put("app", "2", b"new");
    running.bench.provider.delay(Duration::from_secs(3));
    running.pushes.send("p".into()).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    running.cancel.cancel();
    running.task.await.unwrap();
    assert_eq!(running.bench.provider.calls().1, 1, "the check that had begun has ended");
}

/// A volume `v` with these options, and containers with these actions.
async fn with_containers(options: &[(&str, &str)], containers: &[(&str, &str)]) -> Running {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"old");
    bench.volume("v", &[&[("file.x", "p://app")], options].concat()).await;
    bench.mount("v", "a").await.unwrap();
    let shown = bench.dir.path().join("v/x");
    let engine = Engine::new(move || std::fs::read_to_string(&shown).unwrap_or_default());
    for (name, action) in containers {
        engine.run(name, action, Script { crashes: true, ..Script::default() });
    }
    Running::beside(bench, engine)
}

#[tokio::test(start_paused = true)]
async fn a_container_is_told_of_a_change_and_the_status_names_what_became_of_it() {
    let running = with_containers(&[], &[("web", "restart")]).await;
    running.pass(5).await;
    running.bench.provider.put("app", "2", b"new");
    running.pushes.send("p".into()).unwrap();
    running.pass(20).await;
    let last = running.bench.status("v").last_rotation.unwrap();
    assert_eq!((last.result.as_str(), last.to, last.cause.as_str()), ("verified", 2, "a version check"));
    assert_eq!(running.bench.read("v", "x"), "new");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_fails_is_taken_back_and_the_next_one_goes_through() {
    let running = with_containers(&[], &[("web", "restart")]).await;
    running.pass(5).await;
    for (version, text, result, shown) in [("2", "bad", "rolled back", "old"), ("3", "good", "verified", "good")] {
        running.bench.provider.put("app", version, text.as_bytes());
        running.pass(300).await;
        let last = running.bench.status("v").last_rotation.unwrap();
        assert_eq!((last.result.as_str(), running.bench.read("v", "x").as_str()), (result, shown), "{last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_names_containers_and_what_is_wrong_with_their_labels() {
    let running = with_containers(&[("on-rotate", "restart")], &[("web", "signal"), ("odd", "restrat")]).await;
    running.pass(1).await;
    let users = running.bench.status("v").containers;
    let told = users.iter().map(|user| (user.name.as_str(), user.on_rotate.as_str(), user.fault.is_some()));
    assert_eq!(told.collect::<Vec<_>>(), [("odd", "none", true), ("web", "signal:SIGHUP", false)]);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_keeps_no_secret_from_being_checked() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"old");
    bench.volume("v", &[("file.x", "p://app")]).await;
    let engine = Engine::new(String::new);
    let runtime: Arc<dyn ContainerRuntime> = Arc::new(Runtime { engine, gate: Gate::deadly(0) });
    let (driver, table, journal) =
        (bench.driver.clone(), Arc::new(Table::default()), bench.dir.path().join("state/journal"));
    let rollouts = Rollouts::new(driver.clone(), runtime.clone(), Policy::default(), table.clone(), journal).unwrap();
    let rollouts = Arc::new(rollouts);
    let services = Services::new(driver.clone(), Arc::new(ScriptedSwarm::default()), Arc::<Policy>::default);
    let observer = Observer::new(driver.clone(), runtime, table, rollouts.clone());
    let context = Context::new(driver, observer, rollouts, services);
    let (_pushes, pushes) = mpsc::unbounded_channel();
    let (tell, observed) = mpsc::channel(1024);
    // A list that never comes, and more events behind it than there are slots.
    tell.send(Observed::Connected).await.unwrap();
    for container in 0..2 * PARALLEL {
        tell.send(Observed::Container(container.to_string())).await.unwrap();
    }
    let Bench { dir, provider, driver, told } = bench;
    let sources = Sources { driver: told, pushes };
    tokio::spawn(async move { turn(&Arc::new(context), sources, observed, CancellationToken::new()).await });
    driver.mount("v", crate::volume::MountId::new("a"), "engine").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    provider.put("app", "2", b"new");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(crate::driver::workbench::read(&dir.path().join("v"), "x"), "new");
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_removed_leaves_no_journal() {
    let running = with_containers(&[], &[("web", "restart")]).await;
    running.pass(5).await;
    running.bench.provider.put("app", "2", b"new");
    running.pass(60).await;
    let left = || std::fs::read_dir(running.bench.dir.path().join("state/journal")).unwrap().count();
    assert_eq!(left(), 1);
    running.bench.unmount("v", "a").await;
    running.bench.driver.remove("v", "engine").await.unwrap();
    running.pass(1).await;
    assert_eq!(left(), 0);
}

#[tokio::test(start_paused = true)]
async fn services_are_looked_at_as_soon_as_swarm_asks_for_a_secret() {
    let running = Running::new().await;
    running.pass(1).await;
    running.bench.provider.put("app", "1", b"x");
    running.swarm.secret("pin", &[("dso.ref", "p://app")]);
    running.swarm.service("app", &["pin"], &[]);
    running.swarm.lead(true);
    let labels = || running.swarm.labels_of_secret("pin");
    running.pass(1).await;
    assert!(!labels().contains_key("dso.versions"), "until the interval has passed, nobody knows who leads now");
    running.bench.driver.serve(Asked { labels: labels(), ..Asked::default() }).await.unwrap();
    running.pass(1).await;
    assert!(labels().contains_key("dso.versions"));
}
