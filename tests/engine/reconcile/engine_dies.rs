//! The engine is killed in the middle of a rolling replacement.

use crate::support::{
    BUSYBOX, SOON,
    bao::unique,
    door::{Door, When},
    local::LocalSecrets,
    own_engine::OwnEngine,
    plugin::Plugin,
    unique as name, until, wait_for,
};
use std::{fs, path::PathBuf, time::Duration};

const PATIENCE: Duration = Duration::from_secs(90);
const TOML: &str = "[rotation]\nrestart_budget = 1000\nverify_timeout = '30s'\n";

#[test]
fn an_engine_killed_in_a_rolling_replacement_ends_with_one_container_of_the_name_and_that_one_healthy() {
    let mut engine = OwnEngine::start();
    engine.load_images();
    let folder = PathBuf::from("/run").join(name());
    let door = Door::before(&engine.socket(), &folder);
    let source = format!("engine.source={}", folder.display());
    let plugin = Plugin::on(&engine).set(&source).config("dso.toml", TOML).start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    store.set("app#password", unique());
    let mount = plugin.mount("v", "/secrets", &["file.password=local://app#password"]);
    let script = "cp /secrets/password /tmp/seen; while :; do sleep 0.1; done";
    let words =
        ["run", "--detach", "--network=none", "--stop-timeout=0", "--restart=always", "--name=app", "--mount", &mount];
    let health =
        ["--health-cmd=cmp /secrets/password /tmp/seen", "--health-interval=1s", "--label=dso.on-rotate=rolling"];
    engine.docker(&[&words[..], &health, &["--volume=/anonymous", BUSYBOX, "sh", "-c", script]].concat());
    let healthy = |engine: &OwnEngine| {
        engine
            .try_docker(&["inspect", "--format", "{{.State.Health.Status}}", "app"])
            .is_ok_and(|said| said == "healthy")
    };
    wait_for("the container to be healthy", SOON, || healthy(&engine));
    wait_for("the container to be seen", SOON, || plugin.status("v")["containers"].is_array());

    // The engine's containers die with it, and the volume is mounted anew: what counts is what they read.
    let ends_well = |engine: &OwnEngine, value: &str, at: &str| {
        wait_for(&format!("one healthy container with the new value ({at})"), PATIENCE, || {
            let names = engine.try_docker(&["ps", "--all", "--format", "{{.Names}}"]);
            let seen = engine.try_docker(&["exec", "app", "cat", "/tmp/seen"]);
            names.is_ok_and(|names| names == "app") && seen.is_ok_and(|seen| seen == value) && healthy(engine)
        });
        let status = until(&format!("the rollout to end ({at})"), PATIENCE, || {
            let status = engine.json(&["volume", "inspect", "v"], ".Status");
            (status["mounts"] == 1 && status["state"] == "current").then_some(status)
        });
        assert_eq!(status["last_rotation"]["result"], "verified", "{at}: {status}");
        assert_eq!(engine.docker(&["ps", "--all", "--format", "{{.Names}}"]), "app", "{at}");
    };
    door.hold(usize::MAX, When::Before);
    let value = unique();
    store.set("app#password", &value);
    ends_well(&engine, &value, "nothing killed");
    let calls = door.calls();
    println!("calls: {calls:#?}");
    for (number, call) in calls.iter().enumerate() {
        let at = format!("killed after call {number}, {call}");
        door.hold(number, When::After);
        let value = unique();
        store.set("app#password", &value);
        wait_for(&format!("the call ({at})"), PATIENCE, || door.is_holding());
        engine.kill();
        door.close();
        door.open();
        engine.resume();
        ends_well(&engine, &value, &at);
    }
    drop(door);
    let _ = fs::remove_dir_all(&folder);
}
