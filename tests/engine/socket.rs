//! What an operator asks of a real plugin at its socket, and at its address for metrics.

use crate::support::{BUSYBOX, SOON, engine::Engine, local::LocalSecrets, plugin::Plugin, unique, wait_for};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
};

/// What comes after the head of an answer, as it comes; chunks are told apart by their lines.
fn open(plugin: &Plugin, request: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(plugin.socket()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "{request} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert_ne!(answer.read_line(&mut line).unwrap(), 0, "{request} is not answered");
    }
    answer
}

fn next(stream: &mut impl BufRead) -> Option<Value> {
    let mut line = String::new();
    (stream.read_line(&mut line).expect("an event in time") > 0).then(|| serde_json::from_str(&line).unwrap())
}

fn text(plugin: &Plugin, request: &str) -> String {
    let mut text = String::new();
    open(plugin, request).read_to_string(&mut text).unwrap();
    text
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn a_rotation_is_followed_from_the_request_to_the_last_container() {
    let (engine, first, second) = (Engine::system(), unique(), unique());
    let plugin = Plugin::on(&engine).set("DSO_REFRESH=1h").start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    store.set("app", &first);
    let (volume, container) = (plugin.named("v"), plugin.named("c"));
    let mut followed = open(&plugin, "GET /dso/v1/events?follow");

    // Before the deployment.
    let check = |option: &str| {
        let body = json!({"name": volume, "options": {"file.token": option}});
        plugin.call("/dso/v1/check", &body)
    };
    let (status, checked) = check("local://app");
    assert_eq!((status, &checked["ok"], &checked["files"][0]["bytes"]), (200, &json!(true), &json!(first.len())));
    let (_, refused) = check("local://none");
    assert!(refused["faults"][0].as_str().unwrap().starts_with("option `file.token`: `local://none`: "), "{refused}");

    let mount = plugin.mount(&volume, "/secrets", &["file.token=local://app"]);
    let run = ["run", "--detach", "--init", "--network=none", "--stop-timeout=1", "--label=dso.on-rotate=restart"];
    let run = [&run[..], &["--name", &container, "--mount", &mount, BUSYBOX, "sleep", "1000"]].concat();
    engine.docker(&run);
    let mounted = next(&mut followed).unwrap();
    assert_eq!(
        (&mounted["event"], &mounted["volume"], &mounted["stale"]),
        (&json!("mounted"), &json!(volume), &json!(false))
    );

    store.set("app", &second);
    let mut asked = open(&plugin, &format!("POST /dso/v1/volumes/{volume}/refresh?wait"));
    let told: Vec<_> = std::iter::from_fn(|| next(&mut asked)).collect();
    let end = told.last().unwrap();
    assert_eq!((&end["event"], &end["ok"], &end["result"]), (&json!("refreshed"), &json!(true), &json!("verified")));
    // The restart's own mounts may come between.
    let steps: Vec<_> = kinds(&told).into_iter().filter(|kind| !kind.contains("mounted")).collect();
    assert_eq!(steps, ["rollout_started", "container", "decided", "refreshed"]);
    assert_eq!(engine.docker(&["exec", &container, "cat", "/secrets/token"]), second);
    for event in &told {
        let seen = std::iter::from_fn(|| next(&mut followed)).find(|seen| seen["id"] == event["id"]);
        assert_eq!(seen.as_ref(), Some(event), "who follows hears the same");
    }
    let remembered = text(&plugin, "GET /dso/v1/events");
    assert!(remembered.lines().count() > told.len());

    let mut asked = open(&plugin, &format!("POST /dso/v1/volumes/{volume}/refresh?wait&force"));
    assert_eq!(next(&mut asked).unwrap()["result"], "unchanged");
    let everything = [remembered, checked.to_string(), text(&plugin, "GET /metrics"), plugin.log()].concat();
    assert!([&first, &second].iter().all(|value| !everything.contains(*value)), "a value is told");

    let label = ["run", "--detach", "--network=none", "--label=dso.on-rotat=restart", "--mount", &mount];
    engine.docker(&[&label[..], &["--name", &plugin.named("wrong"), BUSYBOX, "sleep", "1000"]].concat());
    let wrong = std::iter::from_fn(|| next(&mut followed)).find(|event| event["event"] == "label_fault").unwrap();
    assert_eq!(wrong["container"], json!(plugin.named("wrong")));
    assert!(wrong["error"].as_str().unwrap().contains("did you mean `dso.on-rotate`?"), "{wrong}");
}

#[test]
fn metrics_are_at_the_socket_and_at_the_address_that_was_set_and_health_beside_them() {
    // One that is free now; nobody else of these tests listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plugin = Plugin::on(&Engine::system()).set(&format!("DSO_METRICS_ADDR={address}")).start();
    LocalSecrets::in_dir(&plugin.config_dir()).set("app", "x");
    let (volume, options) = (plugin.named("v"), json!({"file.x": "local://app"}));
    plugin.call("/VolumeDriver.Create", &json!({"Name": volume, "Opts": options}));
    assert_eq!(plugin.call("/VolumeDriver.Mount", &json!({"Name": volume, "ID": "m"})).1["Err"], "");
    let at_address = |path: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for metrics in [text(&plugin, "GET /metrics"), at_address("/metrics")] {
        for line in
            ["dso_mounts_total{result=\"fresh\"} 1", "dso_volumes{state=\"current\"} 1", "dso_engine_event_connected 1"]
        {
            assert!(metrics.lines().any(|there| there == line), "{line} in {metrics}");
        }
        assert!(metrics.contains(&format!("dso_volume_stale{{volume=\"{volume}\"}} 0")));
    }
    assert!(at_address("/healthz").contains("200 OK") && at_address("/dso/v1/settings").contains("404 "));
    assert_eq!(text(&plugin, "GET /healthz"), r#"{"alive":true,"ready":true}"#);
    assert_eq!(
        text(&plugin, "GET /dso/v1/version"),
        format!(r#"{{"version":"{}","api":"1"}}"#, env!("CARGO_PKG_VERSION"))
    );
    plugin.call("/VolumeDriver.Unmount", &json!({"Name": volume, "ID": "m"}));
}

#[test]
fn an_address_that_cannot_be_used_is_told_and_volumes_are_served() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (wrong, said) in [
        ("localhost:9323", "DSO_METRICS_ADDR: `localhost:9323` is no address and port"),
        (address.as_str(), "metrics cannot be served"),
    ] {
        let plugin = Plugin::on(&Engine::system()).set(&format!("DSO_METRICS_ADDR={wrong}")).start();
        wait_for("the fault in the log", SOON, || plugin.log().contains(said));
        assert_eq!(text(&plugin, "GET /healthz"), r#"{"alive":true,"ready":true}"#);
    }
}

#[test]
fn each_delivery_of_a_secret_is_recorded_with_its_container_and_without_its_value() {
    let (engine, first, second) = (Engine::system(), unique(), unique());
    let toml = "refresh = '1s'\naudit.to = 'log'\n";
    let plugin = Plugin::on(&engine).set("DSO_LOG=error").config("dso.toml", toml).start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    store.set("app", &first);
    let (volume, container) = (plugin.named("v"), plugin.named("c"));
    let mount = plugin.mount(&volume, "/secrets", &["file.token=local://app"]);
    let labels = ["--label=com.docker.compose.project=shop", "--label=com.docker.compose.service=web"];
    let run = ["run", "--detach", "--init", "--network=none", "--name", &container, "--mount", &mount];
    let id = engine.docker(&[&run[..], &labels, &[BUSYBOX, "sleep", "1000"]].concat());
    let image = engine.docker(&["inspect", "--format={{.Image}}", &container]);
    let records = || {
        let lines = plugin.log();
        let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record["audit"] == "delivery").collect::<Vec<_>>()
    };
    wait_for("the record of the mount", SOON, || records().iter().any(|record| !record["container"].is_null()));
    let to = json!({"name": container, "id": id, "image": image, "compose_project": "shop", "compose_service": "web"});
    let record = records().into_iter().find(|record| !record["container"].is_null()).unwrap();
    assert_eq!((&record["cause"], &record["container"]), (&json!("mount"), &to));
    assert_eq!(
        (&record["secret"], &record["files"], &record["result"], &record["identity"]),
        (&json!("local://app"), &json!(["token"]), &json!("delivered"), &json!("the identity file /etc/dso/identity"))
    );
    assert_eq!(record["version"], plugin.status(&volume)["versions"]["token"]);

    store.set("app", &second);
    wait_for("the record of the change", SOON, || records().iter().any(|record| record["cause"] == "rotation"));
    let record = records().into_iter().find(|record| record["cause"] == "rotation").unwrap();
    assert_eq!((&record["container"], &record["volume"]), (&to, &json!(volume)));
    let log = plugin.log();
    assert!([&first, &second].iter().all(|value| !log.contains(*value)), "a value is recorded");
}
