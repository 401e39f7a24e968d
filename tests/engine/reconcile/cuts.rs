//! A stream of events that breaks again and again, while secrets change and containers come and go.

use crate::support::{
    BUSYBOX, SOON, bao::unique, door::Door, engine::Engine, local::LocalSecrets, plugin::Plugin, unique as name, until,
    wait_for,
};
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};
use tokio::time::Instant;

const CUTS: usize = 50;
const VOLUMES: usize = 3;
/// Longer than the second after which the pauses begin anew.
const LASTING: Duration = Duration::from_millis(1200);

#[test]
fn nothing_is_missed_although_the_stream_of_events_is_cut_fifty_times() {
    let engine = Engine::system();
    let folder = PathBuf::from("/run").join(name());
    let door = Door::before(&engine.socket(), &folder);
    let source = format!("engine.source={}", folder.display());
    let plugin = Plugin::on(&engine).set(&source).config("dso.toml", "[rotation]\nsettle = '100ms'\n").start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    let secret = |n: usize| format!("app{n}#password");
    let volume = |n: usize| plugin.named(&format!("v{n}"));
    let run = |container: &str, n: usize| {
        let mount = plugin.mount(&volume(n), "/secrets", &[&format!("file.password=local://{}", secret(n))]);
        let script = "trap 'cat /secrets/password > /tmp/seen' HUP; while :; do sleep 0.05; done";
        let words = ["run", "--detach", "--network=none", "--stop-timeout=0", "--label=dso.on-rotate=signal", "--name"];
        engine.docker(&[&words[..], &[container, "--mount", &mount, BUSYBOX, "sh", "-c", script]].concat());
    };
    let mut values: Vec<String> = (0..VOLUMES).map(|_| unique()).collect();
    for (n, value) in values.iter().enumerate() {
        store.set(&secret(n), value);
        run(&plugin.named(&format!("stays{n}")), n);
    }
    wait_for("the events to be followed", SOON, || door.streams() > 0);
    let began = Instant::now();
    for round in 0..CUTS {
        let n = round % VOLUMES;
        let comes = plugin.named(&format!("comes{n}"));
        let streams = door.streams();
        assert!(door.cut() > 0, "there was no connection to cut");
        match round / VOLUMES % 2 {
            0 => run(&comes, n),
            _ => drop(engine.docker(&["rm", "--force", &comes])),
        }
        values[n] = unique();
        store.set(&secret(n), &values[n]);
        wait_for("the events to be followed again", SOON, || door.streams() > streams);
        // The next cut is one of a stream that stood for a while: after one that did not, the pauses grow.
        let stood = Instant::now();
        wait_for("a stream that lasts", SOON, || stood.elapsed() > LASTING);
    }
    println!("{CUTS} cuts, {} streams in {:?}", door.streams(), began.elapsed());
    for (n, value) in values.iter().enumerate() {
        let told: BTreeSet<String> = until("the status to name the containers", SOON, || {
            let format = format!("volume={}", volume(n));
            let truth = engine.docker(&["ps", "--all", "--filter", &format, "--format", "{{.Names}}"]);
            let truth: BTreeSet<_> = truth.lines().map(str::to_owned).collect();
            let status = plugin.status(&volume(n));
            let told = status["containers"].as_array()?.iter().map(|user| user["name"].as_str().unwrap().to_owned());
            let told: BTreeSet<_> = told.collect();
            (told == truth).then_some(told)
        });
        for container in told {
            let seen = |file: &str| engine.try_docker(&["exec", &container, "cat", file]).unwrap_or_default();
            wait_for("the last value in the files", SOON, || seen("/secrets/password") == *value);
            if container == plugin.named(&format!("stays{n}")) {
                wait_for("the container to be told of the last value", SOON, || seen("/tmp/seen") == *value);
            }
        }
    }
    backs_off(&door);
    let _ = fs::remove_dir_all(&folder);
}

/// While nobody opens, it knocks less and less often.
fn backs_off(door: &Door) {
    let streams = door.streams();
    door.cut();
    wait_for("a stream", SOON, || door.streams() > streams);
    let stood = Instant::now();
    wait_for("a stream that lasts", SOON, || stood.elapsed() > LASTING);
    door.close();
    door.knocks();
    let mut knocks: Vec<Instant> = Vec::new();
    wait_for("seven knocks", Duration::from_secs(60), || {
        knocks.extend(door.knocks());
        knocks.len() >= 7
    });
    let pauses: Vec<_> = knocks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[5] > pauses[0] * 4 && pauses[5] < Duration::from_secs(11), "{pauses:?}");
    door.open();
}
