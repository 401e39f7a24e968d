//! A value that a program does not take: everything is as before, nobody tries again, and the next value goes through.

use super::{
    inspected::{assert_same, lasting, settings},
    stage::{HEALTH, Stage},
};
use crate::support::{NGINX, SOON, wait_for};
use serde_json::Value;

/// What there is of a container beside itself.
struct Before {
    inspected: Value,
    files: String,
    containers: Vec<String>,
    members: Vec<Value>,
    generation: u64,
}

impl Before {
    fn of(stage: &Stage, container: &str) -> Self {
        Self {
            inspected: stage.inspect(container),
            files: stage.files(),
            containers: stage.containers(),
            members: members(stage),
            generation: stage.status()["generation"].as_u64().unwrap(),
        }
    }
}

/// The names of the network's members, and their IDs.
fn members(stage: &Stage) -> Vec<Value> {
    let containers = stage.engine().json(&["network", "inspect", &stage.network], ".Containers");
    let members = containers.as_object().unwrap().iter();
    members.map(|(id, member)| serde_json::json!([id, member["Name"]])).collect()
}

/// A bad value, and then a good one; `untouched` says whether the container may not even have been restarted, and
/// `way` is what the record says of how it was done.
fn a_bad_value(words: &[&str], untouched: bool, way: &str) {
    let stage = Stage::start("verify_timeout = '20s'");
    stage.put("good-1");
    let container = stage.run_site("site", &[words, &["--volume=/cache", "--network-alias=web"]].concat());
    refused(&stage, &container, untouched, way);
}

fn refused(stage: &Stage, container: &str, untouched: bool, way: &str) {
    let before = Before::of(stage, container);
    stage.put("bad-2");
    let status = stage.status_when("rolled back", before.generation);
    let same = |after: &Value, before: &Value| match untouched {
        true => {
            let health_aside = |inspected: &Value| {
                let mut inspected = inspected.clone();
                inspected["State"]["Health"] = Value::Null;
                inspected
            };
            assert_same(&health_aside(after), &health_aside(before));
        }
        false => assert_same(&lasting(after), &lasting(before)),
    };
    stage.wait_until_healthy(container);
    let after = stage.inspect(container);
    same(&after, &before.inspected);
    assert_eq!(stage.files(), before.files);
    assert_eq!(stage.containers(), before.containers);
    assert_eq!(members(stage), before.members);
    for told in [&status["error"], &status["last_rotation"]["reason"]] {
        assert!(told.as_str().is_some_and(|told| told.contains("health")), "{status:#}");
    }
    // The decision's record.
    let log = stage.plugin.log();
    let record = log.lines().find(|line| line.contains("rolled back")).unwrap_or_else(|| panic!("{log}"));
    assert!(record.contains(way), "{record}");
    assert_eq!(stage.engine().docker(&["exec", container, "wget", "-q", "-O", "-", "http://127.0.0.1/"]), "good-1");

    // Nobody tries it again.
    stage.let_pass(4);
    let later = stage.inspect(container);
    assert_eq!(later["State"]["StartedAt"], after["State"]["StartedAt"]);
    same(&later, &before.inspected);
    assert_eq!(stage.containers(), before.containers);
    assert_eq!(stage.files(), before.files);
    assert_eq!(stage.status()["last_rotation"], status["last_rotation"]);

    stage.rotate("good-3");
    wait_for("the next value", SOON, || {
        stage.engine().docker(&["exec", container, "wget", "-q", "-O", "-", "http://127.0.0.1/"]) == "good-3"
    });
    let last = stage.inspect(container);
    assert_same(&settings(&last), &settings(&before.inspected));
    assert_eq!(stage.containers(), [last["Id"].as_str().unwrap()]);
    assert_eq!(stage.status()["error"], Value::Null);
}

#[test]
fn a_restart_that_fails_is_undone() {
    a_bad_value(&["--label=dso.on-rotate=restart"], false, "restart");
}

#[test]
fn a_replacement_that_fails_beside_the_old_one_leaves_that_untouched() {
    let stage = Stage::start("verify_timeout = '20s'");
    stage.put("good-1");
    let words = ["--label=dso.on-rotate=rolling", "--network-alias=web"];
    let container = stage.run_site("site", &words);
    refused(&stage, &container, true, "beside");
}

#[test]
fn a_replacement_that_fails_in_the_place_of_a_published_port_gives_it_back() {
    let port = free_port();
    a_bad_value(
        &["--label=dso.on-rotate=rolling", &format!("--publish=127.0.0.1:{port}:80")],
        false,
        "in place: it publishes port",
    );
}

#[test]
fn a_replacement_that_fails_in_the_place_of_a_fixed_address_gives_it_back() {
    let stage = Stage::start("verify_timeout = '20s'");
    stage.put("good-1");
    let subnet = stage.engine().json(&["network", "inspect", &stage.network], "(index .IPAM.Config 0).Subnet");
    let address = subnet.as_str().unwrap().replace(".0/24", ".77");
    let ip = format!("--ip={address}");
    let container = stage.run_site("site", &["--label=dso.on-rotate=rolling", &ip, "--volume=/cache"]);
    refused(&stage, &container, false, "in place: it has the fixed address");
    assert_eq!(stage.address(&container).to_string(), address);
}

/// Of the engine's network namespace, which this test is in.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_command_that_fails_is_told_with_its_exit_code_and_the_files_go_back() {
    let stage = Stage::start("");
    stage.put("good-1");
    stage.engine().import(NGINX);
    let site = stage.site();
    let mine = ["--mount", &site, "--label=dso.on-rotate=exec:nginx -c /nowhere.conf -s reload"];
    let container = stage.run("site", &[&mine[..], &HEALTH, &[NGINX, "sh", "/site/start"]].concat());
    stage.wait_until_healthy(&container);
    let before = Before::of(&stage, &container);
    stage.put("good-2");
    let status = stage.status_when("rolled back", before.generation);
    let reason = status["last_rotation"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("1") && reason.contains("/nowhere.conf"), "{status:#}");
    let log = stage.plugin.log();
    let record = log.lines().find(|line| line.contains("/nowhere.conf")).unwrap_or_else(|| panic!("{log}"));
    assert!(record.contains("No such file or directory"), "{record}");
    assert_eq!(stage.files(), before.files);
    assert_eq!(stage.inspect(&container)["State"]["StartedAt"], before.inspected["State"]["StartedAt"]);
}
