//! Every series that is exported moves, by something that happens.

use super::{Running, asked::with_container};
use crate::{
    docker::scripted::Script,
    driver::{
        Driver,
        workbench::{Bench, down},
    },
    events::{REMEMBERED, Wish},
    metrics::LISTED,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// What the real engine moves: tests/docker/watching.rs.
const BY_THE_ENGINE: [&str; 3] =
    ["dso_engine_event_lag_seconds_count", "dso_engine_event_connections_total", "dso_engine_event_connected"];

const CHECKED: Script =
    Script { checked: true, crashes: false, sick: false, restarted: false, auto_remove: false, exclusive: false };

/// What was seen, and what of it has changed.
#[derive(Default)]
struct Seen {
    all: BTreeSet<String>,
    moved: BTreeSet<String>,
    last: BTreeMap<String, String>,
}

impl Seen {
    fn look(&mut self, driver: &Driver) {
        let text = driver.exposition();
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        for (series, value) in series.filter(|(series, _)| !series.contains("_bucket{") && !series.contains("_sum")) {
            // Of volumes there are many, and all are alike.
            let kind = series.split("volume=").next().unwrap_or(series).to_owned();
            let before = self.last.insert(series.to_owned(), value.to_owned());
            if before.unwrap_or_else(|| "0".into()) != value {
                self.moved.insert(kind.clone());
            }
            self.all.insert(kind);
        }
    }

    /// Another process: its counters begin anew.
    fn forget(&mut self) {
        self.last.clear();
    }
}

async fn mounts(seen: &mut Seen) {
    let running = Running::new().await;
    let bench = &running.bench;
    bench.provider.put("app", "1", b"x");
    for name in ["v", "w", "u"] {
        bench.volume(name, &[("file.x", "p://app")]).await;
    }
    seen.look(&bench.driver);
    // The engine's look at `docker create`, and its start of the container.
    bench.mount("v", "create").await.unwrap();
    bench.unmount("v", "create").await;
    bench.mount("v", "start").await.unwrap();
    bench.mount("v", "another").await.unwrap();
    // What was confirmed in this very instant is asked for by nobody.
    bench.provider.delay(Duration::from_secs(1));
    sleep(Duration::from_millis(1)).await;
    let (one, other) = tokio::join!(bench.mount("w", "a"), bench.mount("u", "a"));
    one.and(other).unwrap();
    bench.provider.delay(Duration::ZERO);
    seen.look(&bench.driver);
    bench.unmount("u", "a").await;
    bench.volume("none", &[("file.x", "p://none")]).await;
    bench.mount("none", "a").await.unwrap_err();
    bench.provider.put("app", "2", b"y");
    running.pass(31).await;
    seen.look(&bench.driver);
    bench.provider.fail(down());
    bench.mount("u", "a").await.unwrap();
    running.pass(31).await;
    seen.look(&bench.driver);
    assert_eq!(bench.read("v", "x"), "y");
}

async fn many(seen: &mut Seen) {
    let running = Running::new().await;
    let bench = &running.bench;
    let mut listener = bench.driver.events().listen(Wish::Everything).unwrap();
    seen.look(&bench.driver);
    for n in 0..=LISTED {
        bench.provider.put(&format!("s{n}"), "1", b"x");
        bench.volume(&format!("v{n}"), &[("file.x", &format!("p://s{n}"))]).await;
        bench.mount(&format!("v{n}"), "a").await.unwrap();
    }
    seen.look(&bench.driver);
    bench.provider.delay(Duration::from_secs(60));
    for n in 0..=LISTED {
        bench.driver.ask(&format!("v{n}"), false, 0).await.unwrap();
    }
    sleep(Duration::from_secs(5)).await;
    seen.look(&bench.driver);
    for n in 0..REMEMBERED {
        bench.mount("v0", &format!("m{n}")).await.unwrap();
    }
    seen.look(&bench.driver);
    let lost = timeout(Duration::from_secs(1), listener.next()).await.unwrap().unwrap();
    assert!(lost.contains(r#""event":"lost""#), "{lost}");
}

async fn rollouts(seen: &mut Seen) {
    let running = with_container(CHECKED).await;
    let bench = &running.bench;
    for (version, value) in [("2", "good 2"), ("3", "bad 3")] {
        bench.provider.put("app", version, value.as_bytes());
        running.look("v", false).await;
    }
    assert_eq!(running.look("v", true).await.pop().unwrap()["result"], "deferred");
    seen.look(&bench.driver);
    seen.forget();
    for (script, label, version) in
        [(Script { sick: true, ..CHECKED }, "rollback", "good 2"), (CHECKED, "keep", "bad 2")]
    {
        let running = with_container(script).await;
        running.engine.edit("web", |web| drop(web.labels.insert("dso.on-failure".into(), label.into())));
        running.bench.provider.put("app", "2", version.as_bytes());
        running.look("v", false).await;
        seen.look(&running.bench.driver);
        seen.forget();
    }
}

async fn orphans(seen: &mut Seen) {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    bench.orphan("v");
    bench.hold(true);
    let bench = bench.restart().await;
    seen.look(&bench.driver);
}

#[tokio::test(start_paused = true)]
async fn every_series_moves() {
    let mut seen = Seen::default();
    mounts(&mut seen).await;
    seen.forget();
    many(&mut seen).await;
    seen.forget();
    rollouts(&mut seen).await;
    orphans(&mut seen).await;
    // Its classes are all there from the beginning, and one that moves tells of the family.
    assert!(seen.moved.iter().any(|name| name.starts_with("dso_mount_failures_total")));
    let is_excused = |name: &&str| BY_THE_ENGINE.contains(name) || name.starts_with("dso_mount_failures_total");
    let still: Vec<_> = seen.all.difference(&seen.moved).map(String::as_str).filter(|name| !is_excused(name)).collect();
    assert_eq!(still, Vec::<&str>::new(), "a metric that nothing moves");
    assert!(BY_THE_ENGINE.iter().all(|name| seen.all.contains(*name)), "{:?}", seen.all);
    let build = format!("dso_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(seen.last.get(&build).map(String::as_str), Some("1"));
    let state = |name: &str| seen.moved.contains(&format!("dso_volumes{{state=\"{name}\"}}"));
    assert!(["idle", "current", "stale", "failed", "orphaned"].into_iter().all(state));
}
