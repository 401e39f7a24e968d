//! `make bench`: what a rotation costs, from the change in the embedded store until containers have it, against a plugin made of the
//! release build, on the engine that answers.
//!
//! The times begin when the store's file is on disk: they hold the noticing, the reading, the writing of files and what is done to
//! a container.

#[path = "../tests/support/mod.rs"]
mod support;

use serde_json::json;
use std::{fs, os::unix::fs::MetadataExt, path::Path, time::SystemTime};
use support::{BUSYBOX, engine::Engine, local::LocalSecrets, plugin::Plugin};
use tokio::time::{Duration, Instant};

const MANY: usize = 1_000;
const FILES: usize = 10;
const TIMES: usize = 20;
const LONGEST: Duration = Duration::from_secs(60);

fn main() {
    let engine = Engine::system();
    let toml = "[rotation]\nsettle = '1s'\nrestart_budget = 1000\n";
    let plugin = Plugin::on(&engine).config("dso.toml", toml).start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    println!("\n| from the change in the store | times | p50 | longest | target |\n|---|---|---|---|---|");
    let mut used = Duration::ZERO;
    for volumes in [1, MANY] {
        let (times, cpu) = visible(&plugin, &store, volumes);
        used = cpu;
        let target = if volumes == MANY { Some(0.25) } else { None };
        row(&format!("visible in {volumes} mounted volume(s) of {FILES} files"), &times, target);
    }
    let times = told(&engine, &plugin, &store, "signal");
    row("`signal`: the container's handler has run", &times, None);
    let times = told(&engine, &plugin, &store, "restart");
    row("`restart`: the container's new process has begun", &times, None);
    println!("\nProcessor time of the plugin for one change of {MANY} volumes: {:.0} ms", used.as_secs_f64() * 1e3);
}

/// Until the last of so many volumes shows the new value; and the processor time that the plugin takes for that.
fn visible(plugin: &Plugin, store: &LocalSecrets, volumes: usize) -> (Vec<Duration>, Duration) {
    store.set_all("many", FILES, "0");
    let name = |n: usize| format!("many-{volumes}-{n}");
    for n in 0..volumes {
        let options = json!({"from": "local://many"});
        call(plugin, "Create", &json!({"Name": name(n), "Opts": options}));
        call(plugin, "Mount", &json!({"Name": name(n), "ID": "bench"}));
    }
    let last = format!("f{}", FILES - 1);
    let files: Vec<_> = (0..volumes).map(|n| plugin.shown(&name(n)).join(&last)).collect();
    // Just after a mount its container may still be on its way, and a change asks the engine for it.
    let mounted = Instant::now();
    support::wait_for("the mounts to be old enough", LONGEST, || mounted.elapsed() > Duration::from_secs(3));
    let before = cpu(plugin);
    let times = (1..=TIMES).map(|time| {
        let text = format!("{volumes}-{time}");
        store.set_all("many", FILES, &text);
        let begin = changed(&plugin.config_dir().join("local.age"));
        let mut waiting: Vec<_> = files.iter().collect();
        // With a pause between looks: who looks all the time takes one of two processors away from what is measured.
        support::until("the volumes to change", LONGEST, || {
            waiting.retain(|file| fs::read_to_string(file).unwrap() != text);
            waiting.is_empty().then(|| begin.elapsed().unwrap_or_default())
        })
    });
    let times = times.collect();
    let used = (cpu(plugin) - before) / TIMES as u32;
    for n in 0..volumes {
        call(plugin, "Unmount", &json!({"Name": name(n), "ID": "bench"}));
    }
    (times, used)
}

/// Until a container has done what it does when it is told: it touches a file.
fn told(engine: &Engine, plugin: &Plugin, store: &LocalSecrets, action: &str) -> Vec<Duration> {
    store.set_all("told", 1, "0");
    let (container, volume, out) =
        (plugin.named(action), plugin.named(&format!("v-{action}")), plugin.folder().join(action));
    fs::create_dir(&out).unwrap();
    let mount = plugin.mount(&volume, "/s", &["from=local://told"]);
    let (label, out_mount) = (format!("--label=dso.on-rotate={action}"), format!("--volume={}:/out", out.display()));
    let words =
        ["run", "--detach", "--network=none", "--stop-timeout=0", "--name", &container, &label, "--mount", &mount];
    let script = "touch /out/told; trap 'touch /out/told' HUP; while :; do sleep 1000 & wait; done";
    engine.docker(&[&words[..], &[&out_mount, BUSYBOX, "sh", "-c", script]].concat());
    let shown = |field: &str| plugin.status(&volume)["last_rotation"][field].clone();
    let file = out.join("told");
    support::wait_for("the container to begin", LONGEST, || file.exists());
    let times = (1..=TIMES).map(|time| {
        let generation = plugin.status(&volume)["generation"].as_u64().unwrap() + 1;
        store.set_all("told", 1, &format!("{action}-{time}"));
        let begin = changed(&plugin.config_dir().join("local.age"));
        support::wait_for("the rollout to end", LONGEST, || shown("to") == generation && shown("result") == "verified");
        changed(&file).duration_since(begin).expect("touched after the change")
    });
    let times = times.collect();
    engine.docker(&["rm", "--force", &container]);
    times
}

/// When a file was put into its place, or touched: for the store that is before it is on disk, and the plugin does not wait for that.
fn changed(file: &Path) -> SystemTime {
    let meta = fs::metadata(file).unwrap();
    SystemTime::UNIX_EPOCH + Duration::new(meta.ctime() as u64, meta.ctime_nsec() as u32)
}

/// What the plugin has used of the processors so far.
fn cpu(plugin: &Plugin) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", plugin.pid())).unwrap();
    let ticks = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap());
    Duration::from_secs_f64(ticks.sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn call(plugin: &Plugin, name: &str, body: &serde_json::Value) {
    let (_, answer) = plugin.call(&format!("/VolumeDriver.{name}"), body);
    assert_eq!(answer["Err"], "", "{name} of {body}");
}

fn row(what: &str, times: &[Duration], target: Option<f64>) {
    let mut sorted: Vec<_> = times.iter().map(Duration::as_secs_f64).collect();
    sorted.sort_by(f64::total_cmp);
    let (p50, longest) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    let target = target.map(|most| format!("p50 ≤ {most} s: {}", if p50 <= most { "met" } else { "MISSED" }));
    println!(
        "| {what} | {} | {:.1} ms | {:.1} ms | {} |",
        times.len(),
        p50 * 1e3,
        longest * 1e3,
        target.unwrap_or_default()
    );
}
