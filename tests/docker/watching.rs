//! What the engine tells by itself, through cuts and an engine's end.

use crate::{
    cut::Cutter,
    support::{BUSYBOX, SCRATCH, own_engine::OwnEngine},
    world::{World, socket},
};
use dso::{
    docker::{ContainerRuntime, Engine, Observed, RuntimeError},
    metrics::Metrics,
};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc::{self, Receiver},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

const SOON: Duration = Duration::from_secs(20);
const FOREVER: [&str; 2] = ["sleep", "1000"];

/// A watch, and what it has told.
struct Watch {
    told: Receiver<Observed>,
    task: JoinHandle<()>,
}

impl Watch {
    fn of(socket: impl Into<PathBuf>, room: usize) -> Self {
        let (to, told) = mpsc::channel(room);
        let engine = Engine::at(socket);
        Self { told, task: tokio::spawn(async move { engine.watch(to).await }) }
    }

    async fn next(&mut self) -> Observed {
        timeout(SOON, self.told.recv()).await.expect("something is told").expect("it does not end by itself")
    }

    async fn wait_for(&mut self, wanted: &Observed) {
        while self.next().await != *wanted {}
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn what_happens_to_a_container_and_its_volumes_is_told_and_what_is_run_in_it_is_not() {
    let world = World::system();
    let mut watch = Watch::of(socket(), 16);
    assert_eq!(watch.next().await, Observed::Connected);
    let data = world.named("data");
    let options = [
        "--network=none",
        &format!("--volume={data}:/data"),
        "--health-cmd=true",
        "--health-interval=300ms",
        "--stop-timeout=0",
    ];
    let id = world.run("app", &options, &FOREVER);
    watch.wait_for(&Observed::Volume(data.clone())).await;
    let container = Observed::Container(id.clone());
    watch.wait_for(&container).await;
    let name = world.named("other");
    let change: [&[&str]; 5] =
        [&["pause", &id], &["unpause", &id], &["rename", &id, &name], &["stop", &id], &["rm", &id]];
    for words in change {
        // Other tests' containers are told of too; of this one the changes alone.
        world.cli.docker(words);
        watch.wait_for(&container).await;
    }
    watch.told.close();
    timeout(SOON, &mut watch.task).await.expect("it ends once nobody listens").unwrap();
}

#[tokio::test]
async fn the_stream_is_measured() {
    let world = World::system();
    let cutter = Cutter::before(&socket(), &world.scope.folder);
    let metrics = Arc::<Metrics>::default();
    let (to, told) = mpsc::channel(16);
    let engine = Engine::at(&cutter.socket).measured(metrics.clone());
    let mut watch = Watch { told, task: tokio::spawn(async move { engine.watch(to).await }) };
    // src/reconcile/tests/measured.rs names these as what the engine alone moves.
    let value = |name: &str| {
        let text = metrics.exposition(Vec::new(), 0);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name} in {text}"))
    };
    let connected = || (value("dso_engine_event_connected"), value("dso_engine_event_connections_total"));
    let both = |now: &str, times: &str| (now.to_owned(), times.to_owned());
    assert_eq!((connected(), value("dso_engine_event_lag_seconds_count")), (both("0", "0"), "0".into()));
    assert_eq!(watch.next().await, Observed::Connected);
    assert_eq!(connected(), both("1", "1"));
    world.run("app", &["--network=none"], &FOREVER);
    watch.wait_for(&Observed::Container(world.cli.docker(&["inspect", "--format={{.Id}}", &world.named("app")]))).await;
    assert_ne!(value("dso_engine_event_lag_seconds_count"), "0");
    let lag: f64 = value("dso_engine_event_lag_seconds_sum").parse().unwrap();
    assert!(lag > 0.0 && lag < SOON.as_secs_f64(), "{lag} s");
    cutter.refuse(true);
    cutter.cut();
    watch.wait_for(&Observed::Lost).await;
    assert_eq!(connected(), both("0", "1"));
    cutter.refuse(false);
    watch.wait_for(&Observed::Connected).await;
    assert_eq!(connected(), both("1", "2"));
}

#[tokio::test]
async fn nothing_is_missed_while_the_stream_is_cut_again_and_again() {
    let world = World::system();
    let data = world.named("data");
    let cutter = Arc::new(Cutter::before(&socket(), &world.scope.folder));
    let mut watch = Watch::of(&cutter.socket, 1);
    assert_eq!(watch.next().await, Observed::Connected);
    let (cutting, cli, prefix) = (Arc::clone(&cutter), world.cli.clone(), world.named("n"));
    let volume = format!("--volume={data}:/data");
    let making = tokio::task::spawn_blocking(move || {
        let make = |number: usize| {
            let name = format!("{prefix}{number}");
            let id = cli.docker(&["create", "--network=none", "--name", &name, &volume, BUSYBOX, "true"]);
            cutting.cut();
            cli.docker(&["start", &id]);
            cutting.cut();
            id
        };
        (0..25).map(make).collect::<BTreeSet<_>>()
    });
    // As the loop does: it looks at everything, and then at what it is told of.
    let (mut started, mut making, mut made) = (BTreeSet::new(), making, None);
    let volumes = BTreeSet::from([data]);
    let looking = async {
        while made.as_ref().is_none_or(|made| !started.is_superset(made)) {
            tokio::select! {
                all = &mut making, if made.is_none() => made = Some(all.unwrap()),
                told = watch.next() => match told {
                    Observed::Connected => {
                        let found = world.edge.containers(&volumes).await.unwrap();
                        started.extend(found.into_iter().filter(|one| one.started.is_some()).map(|one| one.id));
                    }
                    Observed::Container(id) => {
                        // The engine may hold the container's lock for longer than a call waits; the loop asks again too.
                        let found = loop {
                            if let Ok(found) = world.edge.inspect(&id).await {
                                break found;
                            }
                        };
                        started.extend(found.into_iter().filter(|one| one.started.is_some()).map(|one| one.id));
                    }
                    _ => {}
                }
            }
        }
    };
    timeout(Duration::from_secs(60), looking).await.expect("every start is seen at last");
    let streams = cutter.asked().iter().filter(|line| line.contains("/events?")).count();
    assert!(streams > 3, "only {streams} streams were made");
}

#[tokio::test]
async fn an_event_in_a_gap_is_told_without_a_look_at_everything() {
    let world = World::system();
    let cutter = Cutter::before(&socket(), &world.scope.folder);
    let mut watch = Watch::of(&cutter.socket, 16);
    assert_eq!(watch.next().await, Observed::Connected);
    let before = world.run("before", &[], &["true"]);
    watch.wait_for(&Observed::Container(before)).await;
    cutter.refuse(true);
    cutter.cut();
    watch.wait_for(&Observed::Lost).await;
    let between = world.run("between", &["--network=none"], &["true"]);
    world.cli.docker(&["wait", &between]);
    cutter.refuse(false);
    watch.wait_for(&Observed::Connected).await;
    watch.wait_for(&Observed::Container(between)).await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_asked_less_and_less_often_and_told_of_once() {
    let world = World::system();
    let cutter = Cutter::before(&socket(), &world.scope.folder);
    cutter.refuse(true);
    let mut watch = Watch::of(&cutter.socket, 16);
    let (start, mut gaps, mut seen) = (Instant::now(), Vec::new(), 0);
    let mut last = start;
    while start.elapsed() < Duration::from_secs(5) {
        if cutter.accepted() > seen {
            seen = cutter.accepted();
            gaps.push(last.elapsed());
            last = Instant::now();
        }
        sleep(Duration::from_millis(5)).await;
    }
    // 0.1, 0.2, 0.4, 0.8, 1.6, 3.2 s at most, half of that at least: 5 to 7 in 5 s, and 500 without a pause.
    assert!((5..=7).contains(&gaps.len()), "{gaps:?}");
    assert_eq!(watch.next().await, Observed::Lost);
    assert!(watch.told.try_recv().is_err(), "once");
    cutter.refuse(false);
    assert_eq!(watch.next().await, Observed::Connected);
}

#[tokio::test]
async fn a_receiver_that_is_slow_misses_nothing_and_is_told_of_each_once() {
    let world = World::system();
    let mut watch = Watch::of(socket(), 1);
    assert_eq!(watch.next().await, Observed::Connected);
    let made: BTreeSet<_> = (0..4).map(|number| world.run(&format!("n{number}"), &[], &["true"])).collect();
    let last = world.run("last", &[], &["true"]);
    let mut told = Vec::new();
    loop {
        match watch.next().await {
            Observed::Container(id) if id == last => break,
            Observed::Container(id) if made.contains(&id) => told.push(id),
            _ => {}
        }
    }
    assert!(made.iter().all(|id| told.contains(id)), "{told:?}");
}

#[tokio::test]
async fn an_engine_that_ends_is_out_of_reach_in_every_call_and_its_successor_is_met() {
    let mut own = OwnEngine::start();
    own.load_images();
    let socket = own.exec_root.join("docker.sock");
    let run = ["run", "--detach", "--network=none", "--restart=always", "--stop-timeout=0", "--name=app"];
    let id = own.docker(&[&run[..], &[SCRATCH, "wait"]].concat());
    let mut watch = Watch::of(&socket, 16);
    assert_eq!(watch.next().await, Observed::Connected);

    let engine = Arc::new(Engine::at(&socket));
    let (calling, one) = (Arc::clone(&engine), id.clone());
    let calls = tokio::spawn(async move {
        let mut failures = Vec::new();
        loop {
            let results = [
                calling.signal(&one, "SIGWINCH").await,
                calling.inspect(&one).await.map(drop),
                calling.containers(&BTreeSet::from(["v".to_owned()])).await.map(drop),
            ];
            failures.extend(results.into_iter().filter_map(Result::err));
            if failures.len() > 20 {
                return failures;
            }
        }
    });
    own = tokio::task::spawn_blocking(move || {
        own.stop();
        own
    })
    .await
    .unwrap();
    let failures = timeout(SOON, calls).await.unwrap().unwrap();
    // While it ends it says, truly, that what it has stopped does not run.
    let is_told =
        |error: &RuntimeError| matches!(error, RuntimeError::Refused { answer, .. } if answer.contains("not running"));
    assert!(failures.iter().all(|error| error.is_transient() || is_told(error)), "{failures:?}");
    watch.wait_for(&Observed::Lost).await;
    assert!(engine.inspect(&id).await.unwrap_err().is_transient());

    let resumed = tokio::task::spawn_blocking(move || {
        own.resume();
        own
    });
    let _own = resumed.await.unwrap();
    watch.wait_for(&Observed::Connected).await;
    assert_eq!(engine.inspect(&id).await.unwrap().map(|container| container.id), Some(id));
}

#[tokio::test]
async fn each_request_names_the_version_that_the_engine_knows() {
    let world = World::system();
    let cutter = Cutter::before(&socket(), &world.scope.folder);
    let engine = Engine::at(&cutter.socket);
    let id = world.run("app", &[], &FOREVER);
    engine.inspect(&id).await.unwrap();
    engine.signal(&id, "SIGWINCH").await.unwrap();
    engine.exec(&id, &["true".into()], SOON).await.unwrap();
    let version = world.cli.json(&["version"], ".Server.APIVersion");
    let prefix = format!("/v{}/", version.as_str().unwrap());
    let asked = cutter.asked();
    let paths: Vec<_> = asked.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert!(paths.contains(&"/_ping") && paths.len() >= 6, "{paths:?}");
    assert!(paths.iter().all(|path| *path == "/_ping" || path.starts_with(&prefix)), "{prefix} in {paths:?}");
}
