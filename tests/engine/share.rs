//! Several containers at one volume, and many at once at one secret.

use crate::support::{
    BUSYBOX, SCRATCH, SOON,
    engine::{Engine, outcome},
    local::LocalSecrets,
    plugin::Plugin,
    proxy::Fault,
    vault::VaultServer,
    wait_for,
};
use serde_json::json;
use std::{collections::BTreeMap, process::Stdio};

#[test]
fn two_containers_read_the_same_files_and_the_first_to_go_leaves_them_to_the_other() {
    let plugin = Plugin::on(&Engine::system()).start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    store.set("a", "first");
    let (engine, volume) = (plugin.engine(), plugin.named("volume"));
    let mount = plugin.mount(&volume, "/s", &["file.f=local://a"]);
    let start = || engine.docker(&["run", "-d", "--network=none", "--mount", &mount, BUSYBOX, "sleep", "1000"]);
    let read = |container: &str| engine.docker(&["exec", container, "cat", "/s/f"]);
    let device = |container: &str| engine.docker(&["exec", container, "stat", "-c", "%d %i", "/s/..data/f"]);
    let (one, two) = (start(), start());
    assert_eq!((read(&one), read(&two)), ("first".into(), "first".into()));
    assert_eq!(device(&one), device(&two), "one file in one tmpfs");
    assert_eq!(plugin.status(&volume)["mounts"], 2);

    store.set("a", "second");
    wait_for("the rotation in both", SOON, || read(&one) == "second" && read(&two) == "second");
    engine.docker(&["rm", "--force", &one]);
    assert_eq!(plugin.status(&volume)["mounts"], 1);
    assert_eq!(read(&two), "second");
    store.set("a", "third");
    wait_for("the rotation in the one that is left", SOON, || read(&two) == "third");
    engine.docker(&["rm", "--force", &two]);
    assert_eq!(plugin.status(&volume)["state"], "idle");
    assert!(!plugin.shown(&volume).exists());
}

/// Half of the containers share a volume, the others have one each; all show the same two secrets.
#[test]
fn twenty_containers_that_start_at_once_cost_one_read_of_each_distinct_secret() {
    let server = VaultServer::start();
    server.put("app", json!({"password": "hidden", "user": "someone"}));
    server.put("tls", json!({"key": "pem"}));
    let plugin = Plugin::on(&Engine::system())
        .config("dso.toml", server.settings())
        .config("vault-token", &server.bao.root)
        .set("DSO_LOG=debug")
        .start();
    let engine = plugin.engine();
    // As short a pause between two checks as there may be: it must not make for a read either.
    let options = ["from=vault://secret/app", "file.key=vault://secret/tls#key", "refresh=1s"];
    let run = |number: usize| {
        let volume = plugin.named(&if number < 10 { "shared".into() } else { format!("own-{number}") });
        let name = plugin.named(&format!("app-{number}"));
        let mut command = engine.command();
        command.args(["run", "--detach", "--network=none", "--name", &name, "--mount"]);
        command.arg(plugin.mount(&volume, "/s", &options)).args([SCRATCH, "watch", "/s/key", "600"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // The server's first answer is held back until the others want the same: each volume of its own, and the shared one.
    server.proxy.fail("secret/data/app", 1, Fault::Hold);
    let started: Vec<_> = (0..20).map(run).collect();
    let mounts = || plugin.log().matches("call=\"/VolumeDriver.Mount\"").count();
    wait_for("all to wait for one answer", SOON, || mounts() >= 11);
    server.proxy.release();
    let ended = started.into_iter().map(|child| outcome(child.wait_with_output().unwrap()));
    let containers: Vec<String> = ended.map(Result::unwrap).collect();
    for container in &containers {
        wait_for("the value in each container", SOON, || engine.docker(&["logs", container]) == "pem");
    }
    let reads = |part: &str| server.proxy.count("GET", part);
    let all: BTreeMap<_, usize> = server.proxy.requests().into_iter().fold(BTreeMap::new(), |mut counts, request| {
        *counts.entry(request).or_default() += 1;
        counts
    });
    assert_eq!((reads("secret/data/app"), reads("secret/data/tls")), (1, 1), "{all:#?}");
    assert_eq!(plugin.status(&plugin.named("shared"))["mounts"], 10);
    let own = plugin.status(&plugin.named("own-10"));
    assert_eq!(own["versions"], json!({"key": "1", "password": "1", "user": "1"}), "{own}");

    // One change, one more read: 11 volumes and 20 containers have it.
    server.put("tls", json!({"key": "other"}));
    for container in &containers {
        wait_for("the rotation in each container", SOON, || engine.docker(&["logs", container]) == "pem\nother");
    }
    assert_eq!((reads("secret/data/app"), reads("secret/data/tls")), (1, 2));
    let remove: Vec<&str> = ["rm", "--force"].into_iter().chain(containers.iter().map(String::as_str)).collect();
    engine.docker(&remove);
}
