//! The rotation of services, by Swarm's own updates.

use super::{cluster::asking, serving::local};
use crate::support::{PATIENCE, SOON, swarm::Swarm, vault::VaultServer, wait_for};
use serde_json::{Value, json};

/// Gives up on a task whose value does not begin with `good`.
const CHECKED: [&str; 8] = [
    "--health-cmd=grep -q ^good /run/secrets/pin",
    "--health-interval=500ms",
    "--health-retries=1",
    "--update-failure-action=rollback",
    "--update-monitor=3s",
    "--update-order=start-first",
    "--restart-delay=1s",
    "--secret=pin",
];

fn state(swarm: &Swarm, service: &str) -> String {
    swarm.inspect(service)["UpdateStatus"]["State"].as_str().unwrap_or_default().to_owned()
}

/// How often tasks were replaced.
pub fn forced(swarm: &Swarm, service: &str) -> u64 {
    swarm.inspect(service)["Spec"]["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or_default()
}

#[test]
fn a_bad_value_is_rolled_back_by_swarm_with_the_value_of_before_and_not_tried_again() {
    let (swarm, store) = local();
    store.set("app#pin", "good-1");
    swarm.secret("pin", &["dso.ref=local://app#pin"]);
    swarm.service(
        "app",
        &[&CHECKED[..], &["--replicas=2", "--label=theirs=kept", "--container-label=theirs=kept"]].concat(),
    );
    let read = || swarm.read("app", "/run/secrets/pin");
    wait_for("two tasks", SOON, || read() == ["good-1", "good-1"]);
    wait_for("the version to be noted", SOON, || swarm.docker(&["secret", "inspect", "pin"]).contains("dso.versions"));
    assert_eq!(swarm.inspect("app")["Spec"]["Labels"], json!({"theirs": "kept"}), "nothing before there is need");

    let before = swarm.inspect("app")["Spec"].clone();
    store.set("app#pin", "good-2");
    wait_for("the rotation", PATIENCE, || read() == ["good-2", "good-2"] && state(&swarm, "app") == "completed");
    let mut after = swarm.inspect("app")["Spec"].clone();
    assert_eq!(after["TaskTemplate"]["ForceUpdate"], 1);
    after["TaskTemplate"]["ForceUpdate"] = before["TaskTemplate"]["ForceUpdate"].clone();
    after["Labels"] = before["Labels"].clone();
    assert_eq!(after, before, "the rest of the specification is as it was");
    wait_for("the log to say so", SOON, || swarm.log().contains("result=\"rotated\""));

    store.set("app#pin", "bad-3");
    wait_for("Swarm's rollback", PATIENCE, || state(&swarm, "app") == "rollback_completed");
    wait_for("the tasks to be as before", SOON, || read() == ["good-2", "good-2"]);
    wait_for("the log to say so", SOON, || swarm.log().contains("result=\"rolled back\""));
    wait_for("it to be noted", SOON, || !label(&swarm, "dso.refused").is_empty());
    let refused = swarm.inspect("app");
    // A task that starts now gets what the service is on, not what its provider has.
    swarm.docker(&["service", "scale", "--detach", "app=3"]);
    wait_for("the third task", SOON, || read() == ["good-2"; 3]);
    let said = count(&swarm, "not tried again");
    swarm.nodes[0].plugin.kill();
    wait_for("the next process to say it too", PATIENCE, || count(&swarm, "not tried again") > said);
    let later = swarm.inspect("app");
    let labels = |of: &Value| of["Spec"]["Labels"].clone();
    assert_eq!((labels(&later), forced(&swarm, "app")), (labels(&refused), 1), "it was tried again");

    store.set("app#pin", "good-4");
    wait_for("the next good value", PATIENCE, || read() == ["good-4"; 3]);
}

fn count(swarm: &Swarm, text: &str) -> usize {
    swarm.log().matches(text).count()
}

#[test]
fn after_a_rollback_another_process_asks_the_provider_for_the_version_of_before() {
    let server = VaultServer::start();
    server.put("app", json!({"pin": "good-1"}));
    let swarm = Swarm::alone(asking(&server));
    swarm.secret("pin", &["dso.ref=vault://secret/app#pin"]);
    swarm.service("app", &CHECKED);
    let read = || swarm.read("app", "/run/secrets/pin");
    wait_for("the task", SOON, || read() == ["good-1"]);
    wait_for("the version to be noted", SOON, || swarm.docker(&["secret", "inspect", "pin"]).contains("dso.versions"));
    server.put("app", json!({"pin": "bad-2"}));
    wait_for("what was rolled back to be noted", PATIENCE, || {
        label(&swarm, "dso.refused").contains("vault://secret/app")
    });
    swarm.nodes[0].plugin.kill();
    swarm.docker(&["service", "scale", "--detach", "app=3"]);
    wait_for("two more tasks", PATIENCE, || read() == ["good-1"; 3]);
    assert_eq!(forced(&swarm, "app"), 0, "Swarm has brought back the specification of before");
    // A person says so: the same is tried once more.
    let tried = |swarm: &Swarm| swarm.log().matches("updated: Swarm replaces its tasks").count();
    let before = tried(&swarm);
    swarm.docker(&["service", "update", "--detach", "--quiet", "--label-rm=dso.refused", "app"]);
    wait_for("another try", PATIENCE, || tried(&swarm) == before + 1);
    wait_for("another rollback", PATIENCE, || label(&swarm, "dso.refused").contains("vault://secret/app"));
    wait_for("the tasks to be as before", PATIENCE, || read() == ["good-1"; 3]);
    assert_eq!(tried(&swarm), before + 1);
}

fn label(swarm: &Swarm, name: &str) -> String {
    swarm.inspect("app")["Spec"]["Labels"][name].as_str().unwrap_or_default().to_owned()
}
