//! Three managers of one Swarm, with one OpenBao that all of them reach.

use super::rotating::forced;
use crate::support::{
    PATIENCE, SOON,
    own_engine::OwnEngine,
    plugin::Preparation,
    scan::{Needles, Search},
    swarm::{DRIVER, Swarm},
    vault::VaultServer,
    wait_for,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

/// Tasks are replaced all at once, and watched for a moment.
const AT_ONCE: [&str; 3] = ["--update-parallelism=0", "--update-monitor=1s", "--secret=pin"];

/// More rotations than a service has in its budget.
const SETTINGS: &str = "[rotation]\nrestart_budget = 100\n";

/// What makes a plugin ask the server, in whatever network namespace it is.
pub fn asking(server: &VaultServer) -> impl Fn(&OwnEngine, Preparation) -> Preparation {
    let (port, token, toml) = (server.port(), server.token(), server.settings() + SETTINGS);
    move |engine, plugin| {
        engine.forward(port);
        plugin.config("vault-token", &token).config("dso.toml", &toml)
    }
}

fn put(server: &VaultServer, pin: &str) {
    server.put("app", json!({"pin": pin}));
}

#[test]
fn services_with_secrets_and_with_volumes_rotate_five_times_on_three_managers() {
    let server = VaultServer::start();
    put(&server, "0");
    let swarm = Swarm::of_three(&[], asking(&server));
    swarm.secret("pin", &["dso.ref=vault://secret/app#pin"]);
    swarm.service("secrets", &[&AT_ONCE[..], &["--replicas=3"]].concat());
    let mount = format!(
        "type=volume,source=pins,volume-driver={DRIVER},dst=/s,volume-opt=file.pin=vault://secret/app#pin,volume-opt=refresh=1s"
    );
    swarm.service("volumes", &["--mode=global", "--mount", &mount]);
    let read = || (swarm.read("secrets", "/run/secrets/pin"), swarm.read("volumes", "/s/pin"));
    let all = |pin: &str| (vec![pin.to_owned(); 3], vec![pin.to_owned(); 3]);
    wait_for("three tasks of each", PATIENCE, || read() == all("0"));
    for rotation in 1..=5 {
        let (old, new) = ((rotation - 1).to_string(), rotation.to_string());
        put(&server, &new);
        wait_for("every task to have its value", PATIENCE, || {
            let (secrets, volumes) = read();
            assert!(secrets.iter().chain(&volumes).all(|pin| *pin == old || *pin == new), "{secrets:?} {volumes:?}");
            (secrets, volumes) == all(&new) && swarm.inspect("secrets")["UpdateStatus"]["State"] == "completed"
        });
        assert_eq!(forced(&swarm, "secrets"), rotation);
    }
    let reads = server.proxy.count("GET", "/v1/secret/data/app");
    assert!(reads <= 3 * 6, "{reads} reads: one for each version and node is enough");
}

#[test]
fn the_leader_is_killed_in_a_rotation_and_the_next_one_goes_on_and_nobody_rotates_twice() {
    let server = VaultServer::start();
    put(&server, "1");
    let mut swarm = Swarm::of_three(&[], asking(&server));
    swarm.secret("pin", &["dso.ref=vault://secret/app#pin"]);
    swarm.service("app", &["--secret=pin", "--replicas=4", "--update-delay=1s", "--update-monitor=1s"]);
    let read = |swarm: &Swarm| swarm.read("app", "/run/secrets/pin");
    wait_for("four tasks", PATIENCE, || read(&swarm) == ["1"; 4]);
    put(&server, "2");
    wait_for("Swarm to replace the first task", PATIENCE, || read(&swarm).contains(&"2".to_owned()));
    let first = swarm.leader();
    swarm.nodes[first].engine.kill();
    let next = swarm.leader();
    assert_ne!(next, first);
    // Those of the node that is gone are started elsewhere.
    wait_for("every task to have its value", PATIENCE * 2, || read(&swarm) == ["2"; 4]);
    assert_eq!(forced(&swarm, "app"), 1);

    put(&server, "3");
    wait_for("a rotation by the next leader", PATIENCE * 2, || read(&swarm) == ["3"; 4]);
    assert_eq!(forced(&swarm, "app"), 2);
    swarm.nodes[first].engine.resume();
    wait_for("the first node to be back", PATIENCE, || {
        let list = swarm.docker(&["node", "ls", "--format", "{{.Status}}"]);
        list.lines().filter(|status| *status == "Ready").count() == 3
    });
    let checks = server.proxy.count("GET", "/v1/secret/metadata/app");
    wait_for("some more checks", PATIENCE, || server.proxy.count("GET", "/v1/secret/metadata/app") > checks + 3);
    assert_eq!(forced(&swarm, "app"), 2, "somebody rotated it twice");
    assert_eq!(swarm.log().matches("updated: Swarm replaces its tasks").count(), 2);
}

#[test]
fn no_value_is_in_the_log_that_managers_share_with_autolock_off_and_on() {
    let server = VaultServer::start();
    let (values, planted) = ([random(), random()], random());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    put(&server, &hex(&values[0]));
    let swarm = Swarm::of_three(&[], asking(&server));
    let needles = Needles::new(&[("value", values[0]), ("value", values[1]), ("planted", planted)], &[]);
    let lead = swarm.leader();
    let engine = &swarm.nodes[lead].engine;
    let node = engine.docker(&["node", "inspect", "self", "--format", "{{.ID}}"]);
    swarm.secret("pin", &["dso.ref=vault://secret/app#pin"]);
    // The others are to know of it by the shared log alone.
    swarm.service("app", &[&AT_ONCE[..], &["--constraint", &format!("node.id=={node}")]].concat());
    engine.docker_with_input(&["secret", "create", "plain", "-"], &planted);
    let found = |lock: &str, value: &[u8; 32]| {
        wait_for("the task to have its value", PATIENCE, || swarm.read("app", "/run/secrets/pin") == [hex(value)]);
        for (number, node) in swarm.nodes.iter().enumerate() {
            let mut search = Search::new(&needles, Path::new("/none"));
            search.all(&node.engine.data_root.join("swarm"));
            assert!(search.findings.files > 3, "{:#?}", search.findings);
            assert_eq!(search.findings.hits, [].into(), "autolock {lock}, node {number}: {:#?}", search.findings);
            if number != lead {
                // The log is encrypted on disk. What it says, a manager has in memory, and that is where to look.
                let seen = in_memory(node.engine.pid(), &needles);
                assert_eq!(seen, ["planted".to_owned()].into(), "autolock {lock}, node {number}");
            }
        }
        let shown: String = ["app", "plain", "pin"].iter().map(|name| engine.docker(&["inspect", name])).collect();
        let tasks = engine.docker(&["service", "ps", "--quiet", "--no-trunc", "app"]);
        let tasks: String = tasks.lines().map(|task| engine.docker(&["inspect", task])).collect();
        assert!(shown.contains("dso.ref") && tasks.contains("SecretName"));
        assert_eq!(needles.find((shown + &tasks).as_bytes()), [].into(), "what the API tells");
    };
    found("off", &values[0]);
    engine.docker(&["swarm", "update", "--autolock=true"]);
    put(&server, &hex(&values[1]));
    found("on", &values[1]);
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// The names of the secrets that are in the memory of a process.
fn in_memory(pid: u32, needles: &Needles) -> BTreeSet<String> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = BTreeSet::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let (mut at, mut buffer) = (from, vec![0; 1 << 22]);
        while at < to {
            let length = usize::try_from(to - at).unwrap().min(buffer.len());
            // A region may go while it is read.
            let Ok(read @ 1..) = memory.read_at(&mut buffer[..length], at) else { break };
            found.extend(needles.find(&buffer[..read]));
            // What begins in one piece may end in the next.
            at += if read == length && at + (length as u64) < to { (read - 128) as u64 } else { read as u64 };
        }
    }
    found
}

#[test]
fn a_hundred_tasks_make_one_read_for_each_version() {
    let server = VaultServer::start();
    put(&server, "1");
    let swarm = Swarm::alone(asking(&server));
    swarm.secret("pin", &["dso.ref=vault://secret/app#pin"]);
    let create = ["service", "create", "--quiet", "--detach", "--no-resolve-image", "--name=app", "--replicas=100"];
    let more = ["--stop-grace-period=0s", crate::support::SCRATCH, "wait"];
    swarm.docker(&[&create[..], &AT_ONCE, &more].concat());
    let asked = |version: &str| {
        let mut tasks = BTreeSet::new();
        for line in swarm.log().lines().filter(|line| line.contains(r#": served secret="pin""#)) {
            if line.contains(&format!(r#"{{"vault://secret/app":"{version}"}}"#)) {
                tasks.extend(line.split(" task=").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned));
            }
        }
        tasks.len()
    };
    let long = Duration::from_secs(130);
    wait_for("a hundred tasks to be given the value", long, || asked("1") >= 100);
    assert_eq!(server.proxy.count("GET", "/v1/secret/data/app"), 1);
    put(&server, "2");
    wait_for("a hundred tasks to be given the next", long, || asked("2") >= 100);
    assert_eq!(server.proxy.count("GET", "/v1/secret/data/app"), 2);
    swarm.docker(&["service", "rm", "app"]);
}

#[test]
fn while_the_provider_is_down_tasks_get_what_is_known_for_a_while_and_others_start_as_ever() {
    let server = VaultServer::start();
    put(&server, "1");
    server.put("cold", json!({"pin": "2"}));
    let swarm = Swarm::alone(asking(&server));
    swarm.secret("pin", &["dso.ref=vault://secret/app#pin", "dso.max-stale=20s"]);
    swarm.secret("cold", &["dso.ref=vault://secret/cold#pin"]);
    swarm.service("app", &["--secret=pin"]);
    let read = || swarm.read("app", "/run/secrets/pin");
    wait_for("the task", SOON, || read() == ["1"]);
    #[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real time that tasks take")]
    let start = |name: &str| {
        let began = std::time::Instant::now();
        swarm.service(name, &[]);
        wait_for("a task without secrets", SOON, || !swarm.read(name, "/proc/version").is_empty());
        began.elapsed()
    };
    let normal = start("before");

    server.proxy.fail("/v1/", usize::MAX, crate::support::proxy::Fault::Hang);
    swarm.service("cold", &["--secret=cold"]);
    wait_for("the first answer to be late", SOON, || {
        swarm.log().contains("no answer from provider `vault` within 2 s")
    });
    let during = start("during");
    println!("a task without secrets: {normal:?}, and {during:?} during the outage");
    assert!(during <= normal + Duration::from_millis(1500), "{during:?}, and {normal:?} before");
    swarm.docker(&["service", "scale", "--detach", "app=2"]);
    wait_for("a second task with what is known", SOON, || read() == ["1", "1"]);
    let says = |service: &str| swarm.docker(&["service", "ps", "--no-trunc", "--format", "{{.Error}}", service]);
    wait_for("Swarm to say that the task cannot start", SOON, || says("cold").contains("unable to get secret"));

    let mut tasks = 2;
    wait_for("what is known to be too old", PATIENCE, || {
        tasks += 1;
        swarm.docker(&["service", "scale", "--detach", &format!("app={tasks}")]);
        let is_refused = || says("app").contains("unable to get secret");
        wait_for("one more task, or none", SOON, || read().len() == tasks || is_refused());
        is_refused()
    });
    assert!(swarm.log().contains("serving the last known good value"));
    server.proxy.heal();
    wait_for("all tasks", PATIENCE, || read() == vec!["1"; tasks] && swarm.read("cold", "/run/secrets/cold") == ["2"]);
}
