//! `make bench`: what a mount costs, against a plugin made of the release build, on the engine that answers.
//!
//! Prints figures and whether they are within their targets. A missed target is a figure like any other; the exit code
//! tells only whether they could be had.

#[path = "../tests/support/mod.rs"]
mod support;

use dso::{host::HostFiles, provider::local::LocalStore, secret::SecretValue};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};
use support::{BUSYBOX, bao::Bao, engine::Engine, plugin::Plugin};
use tokio::time::{Duration, Instant};
use zeroize::Zeroizing;

const WARM: usize = 500;
const COLD: usize = 200;
const RUNS: usize = 40;
const MANY: usize = 1_000;
/// Distinct secrets behind the many volumes, of ten fields each.
const SECRETS: usize = 100;

#[tokio::main]
async fn main() {
    let engine = Engine::system();
    machine(&engine);
    let bao = Bao::start().await;
    let plugin = Plugin::on(&engine).config("vault-token", &bao.root).config("dso.toml", vault(&bao)).start();
    let store = LocalStore::open("local", toml::Table::new(), &HostFiles::on_host(plugin.config_dir())).unwrap();
    for n in 0..SECRETS.max(COLD) {
        set(&store, &format!("bench/{n}"), 10);
        set(&store, &format!("one/{n}"), 1);
    }
    let mut socket = Socket::connect(&plugin);
    println!("\n| at the socket | calls | p50 | p99 | target |\n|---|---|---|---|---|");
    let joined = joined(&mut socket);
    row("Mount of a volume that is mounted, 10 files", joined.0, None);
    row("Unmount of it", joined.1, None);
    for (files, folder) in [(1, "one"), (10, "bench")] {
        let (mounts, unmounts) = warm(&mut socket, folder);
        let target = (files == 10).then_some((0.5, 2.0));
        row(&format!("Mount, warm (value held, version checked), {files} file(s)"), mounts, target);
        row(&format!("Unmount of the last, {files} file(s)"), unmounts, None);
        row(&format!("Mount, cold (first read), local, {files} file(s)"), cold(&mut socket, "local", folder), None);
    }
    for n in 0..COLD {
        let fields: serde_json::Map<_, _> =
            (0..10).map(|f| (format!("f{f}"), json!(format!("value-{n}-{f}")))).collect();
        bao.put("secret", &format!("bench/{n}"), Value::Object(fields)).await;
    }
    row("Mount, cold (first read), OpenBao on loopback, 10 files", cold(&mut socket, "vault", "secret/bench"), None);
    memory(&plugin, &mut socket);
    docker_run(&engine, &plugin);
}

fn vault(bao: &Bao) -> String {
    format!(
        "[provider.vault]\ntype = \"vault\"\naddress = \"{}\"\nauth.token_file = \"/etc/dso/vault-token\"\n",
        bao.address
    )
}

fn machine(engine: &Engine) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("Machine: {model}, {cores} cores, Linux {}", read("/proc/sys/kernel/osrelease").trim());
    println!("Engine: {}", engine.docker(&["version", "--format", "{{.Server.Version}}"]).trim());
    let now = std::time::SystemTime::now();
    println!("Date: {}", humantime::format_rfc3339_seconds(now));
}

fn set(store: &LocalStore, name: &str, fields: usize) {
    let fields: Vec<_> = (0..fields).map(|n| format!("\"f{n}\":\"value-{n}\"")).collect();
    let value = Zeroizing::new(format!("{{{}}}", fields.join(",")).into_bytes());
    store.set(&store.target(name).unwrap(), SecretValue::new(value)).unwrap();
}

/// A second container on a mounted volume.
fn joined(socket: &mut Socket) -> (Vec<Duration>, Vec<Duration>) {
    socket.create("joined", "local://bench/0");
    socket.mount("joined", "first");
    let times = (0..WARM).map(|n| {
        let id = format!("joined-{n}");
        (socket.mount("joined", &id), socket.unmount("joined", &id))
    });
    let times = times.unzip();
    socket.unmount("joined", "first");
    times
}

/// Nobody has the volume mounted, and the values of its secret are held.
fn warm(socket: &mut Socket, folder: &str) -> (Vec<Duration>, Vec<Duration>) {
    let volume = format!("warm-{folder}");
    socket.create(&volume, &format!("local://{folder}/1"));
    socket.mount(&volume, "first");
    socket.unmount(&volume, "first");
    let times = (0..WARM).map(|n| {
        let id = format!("warm-{n}");
        (socket.mount(&volume, &id), socket.unmount(&volume, &id))
    });
    times.unzip()
}

/// Each volume has a secret that was never read.
fn cold(socket: &mut Socket, provider: &str, folder: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 2..COLD {
        let volume = format!("cold-{provider}-{}-{n}", folder.replace('/', "-"));
        socket.create(&volume, &format!("{provider}://{folder}/{n}"));
        times.push(socket.mount(&volume, "cold"));
        socket.unmount(&volume, "cold");
        socket.remove(&volume);
    }
    times
}

fn memory(plugin: &Plugin, socket: &mut Socket) {
    for n in 0..MANY {
        let volume = format!("many-{n}");
        socket.create(&volume, &format!("local://bench/{}", n % SECRETS));
        socket.mount(&volume, "many");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", plugin.pid())).unwrap();
    let mib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
    };
    let (resident, own) = (mib("VmRSS"), mib("RssAnon"));
    println!(
        "\n{MANY} volumes of 10 files mounted, {SECRETS} secrets: {resident:.1} MiB resident, {own:.1} MiB of it anonymous; target ≤ 24 MiB: {}",
        met(resident <= 24.0)
    );
    let (mounts, _) = warm(socket, "one");
    println!(
        "Mount, warm, 1 file, beside them: p50 {:.3} ms, p99 {:.3} ms",
        percentile(&mounts, 50),
        percentile(&mounts, 99)
    );
    for n in 0..MANY {
        socket.unmount(&format!("many-{n}"), "many");
    }
}

/// A container that does nothing, with a dso volume and with one of the `local` driver, in turns.
fn docker_run(engine: &Engine, plugin: &Plugin) {
    let (dso, local) = (plugin.named("run-dso"), plugin.named("run-local"));
    engine.docker(&["volume", "create", "-d", &plugin.driver(), "-o", "from=local://bench/1", &dso]);
    engine.docker(&["volume", "create", &local]);
    let run = |volume: &str| {
        let start = Instant::now();
        let mount = format!("{volume}:/s:ro");
        engine.docker(&["run", "--rm", "--network=none", "-v", &mount, BUSYBOX, "true"]);
        start.elapsed()
    };
    let (mut with_dso, mut with_local) = (Vec::new(), Vec::new());
    run(&dso);
    run(&local);
    for _ in 0..RUNS {
        with_local.push(run(&local));
        with_dso.push(run(&dso));
    }
    let (a, b) = (percentile(&with_dso, 50), percentile(&with_local, 50));
    let ratio = a / b;
    println!(
        "\n`docker run`, {RUNS} in turns: dso {a:.0} ms, local {b:.0} ms, ratio {ratio:.3}; target ≤ 1.05: {}",
        met(ratio <= 1.05)
    );
    engine.docker(&["volume", "rm", &dso, &local]);
}

fn row(what: &str, times: Vec<Duration>, target: Option<(f64, f64)>) {
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    let target = target.map(|(a, b)| format!("p50 ≤ {a} ms: {}, p99 ≤ {b} ms: {}", met(p50 <= a), met(p99 <= b)));
    println!("| {what} | {} | {p50:.3} ms | {p99:.3} ms | {} |", times.len(), target.unwrap_or_default());
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// In milliseconds.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1000.0
}

/// A connection that stays, as the engine's does.
struct Socket(BufReader<UnixStream>);

impl Socket {
    fn connect(plugin: &Plugin) -> Self {
        let path = plugin.socket();
        Self(BufReader::new(UnixStream::connect(Path::new(&path)).unwrap()))
    }

    fn create(&mut self, volume: &str, from: &str) {
        self.call("Create", json!({ "Name": volume, "Opts": { "from": from } }));
    }

    fn mount(&mut self, volume: &str, id: &str) -> Duration {
        self.call("Mount", json!({ "Name": volume, "ID": id }))
    }

    fn unmount(&mut self, volume: &str, id: &str) -> Duration {
        self.call("Unmount", json!({ "Name": volume, "ID": id }))
    }

    fn remove(&mut self, volume: &str) {
        self.call("Remove", json!({ "Name": volume }));
    }

    fn call(&mut self, name: &str, body: Value) -> Duration {
        let body = body.to_string();
        let request =
            format!("POST /VolumeDriver.{name} HTTP/1.1\r\nHost: dso\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let start = Instant::now();
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).unwrap();
        let took = start.elapsed();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["Err"], "", "{name} of {body}");
        took
    }
}
