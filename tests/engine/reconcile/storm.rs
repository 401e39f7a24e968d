//! A secret that changes ten times a second.

use crate::support::{BUSYBOX, SOON, bao::unique, engine::Engine, local::LocalSecrets, plugin::Plugin, wait_for};
use std::{
    collections::HashMap,
    fs::{self, File},
    path::PathBuf,
    process::Child,
    time::Duration,
};
use tokio::time::{Instant, interval};

const EVERY: Duration = Duration::from_millis(100);
const TIMES: u32 = 600;
/// Of restarts, in the time that the test takes.
const BUDGET: usize = 3;
/// How long a change may wait behind those before it.
const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_rotations_ends_with_the_last_value_everywhere_and_few_restarts() {
    let engine = Engine::system();
    let toml = format!("[rotation]\nsettle = '1s'\nlimit = '{}s'\nrestart_budget = {BUDGET}\n", LIMIT.as_secs());
    let plugin = Plugin::on(&engine).config("dso.toml", toml).start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    let value = |n: u32| format!("{n}:{}", unique());
    store.set("app#password", value(0));
    let mount = plugin.mount(&plugin.named("v"), "/secrets", &["file.password=local://app#password"]);
    let trap = "trap 'cat /secrets/password > /tmp/seen' HUP; while :; do sleep 0.1; done";
    let start = "cat /secrets/password > /tmp/seen; exec sleep 10000";
    let containers =
        [("plain", "none", "exec sleep 10000"), ("signalled", "signal", trap), ("restarted", "restart", start)];
    for (name, action, script) in containers {
        let (name, label) = (plugin.named(name), format!("dso.on-rotate={action}"));
        let words = ["run", "--detach", "--network=none", "--stop-timeout=0", "--name", &name, "--label", &label];
        engine.docker(&[&words[..], &["--mount", &mount, BUSYBOX, "sh", "-c", script]].concat());
    }
    let shown = plugin.shown(&plugin.named("v")).join("password");
    let starts = Starts::of(&engine, &plugin.named("restarted"), plugin.folder().join("starts"));

    let mut written = HashMap::new();
    let (mut ticks, mut last, mut longest) = (interval(EVERY), String::new(), Duration::ZERO);
    for n in 1..=TIMES {
        ticks.tick().await;
        last = value(n);
        store.set("app#password", &last);
        written.insert(n, Instant::now());
        // What is shown has been overtaken by the next one since that was written.
        let read = fs::read_to_string(&shown).unwrap();
        let number: u32 = read.split(':').next().unwrap().parse().unwrap();
        if let Some(overtaken) = written.get(&(number + 1)) {
            longest = longest.max(overtaken.elapsed());
        }
    }
    let ended = Instant::now();
    let read =
        |name: &str, file: &str| engine.try_docker(&["exec", &plugin.named(name), "cat", file]).unwrap_or_default();
    wait_for("the last value in every volume", LIMIT + SOON, || {
        containers.iter().all(|(name, ..)| read(name, "/secrets/password") == last)
    });
    longest = longest.max(ended.elapsed());
    wait_for("the last signal", SOON, || read("signalled", "/tmp/seen") == last);
    let restarts = starts.count();
    println!("{TIMES} rotations in {:?}: {restarts} restarts, a change waited {longest:?} at most", EVERY * TIMES);
    assert!((1..=BUDGET).contains(&restarts), "{restarts} restarts");
    assert!(longest <= LIMIT, "a change waited {longest:?}");
    let status = plugin.status(&plugin.named("v"));
    assert!(
        status["error"].as_str().is_some_and(|error| error.contains("restart")),
        "the status tells of the budget: {status}"
    );
}

/// Counts the starts of a container from now on. The engine itself remembers 256 events of all.
struct Starts(Child, PathBuf);

impl Starts {
    fn of(engine: &Engine, container: &str, file: PathBuf) -> Self {
        let container = format!("container={container}");
        let words = ["events", "--filter", &container, "--filter=event=start", "--format={{.Status}}"];
        let out = File::create(&file).unwrap();
        Self(engine.command().args(words).stdout(out).spawn().unwrap(), file)
    }

    fn count(&self) -> usize {
        fs::read_to_string(&self.1).unwrap().lines().count()
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
