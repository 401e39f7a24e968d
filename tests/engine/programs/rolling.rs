//! A container that is replaced behind the alias of its network.

use super::{
    inspected::{assert_same, settings},
    load::{Load, get_by_name},
    stage::Stage,
};
use crate::support::{BUSYBOX, SOON, wait_for};
use std::iter;

/// What a person can set and a replacement must have too, as far as an engine without more than this test can show it.
const WORDS: [&str; 22] = [
    "--label=dso.on-rotate=rolling",
    "--label=org.example.team=a b",
    "--network-alias=web",
    "--network-alias=www",
    // Late to be ready, and its health check fails until then.
    "--env=DELAY=2",
    "--health-start-period=20s",
    "--env=EMPTY=",
    "--restart=on-failure:5",
    "--memory=100m",
    "--pids-limit=50",
    "--cpus=1.5",
    "--ulimit=nofile=512:1024",
    "--cap-drop=NET_RAW",
    "--security-opt=no-new-privileges",
    "--tmpfs=/scratch:size=1m",
    "--log-driver=json-file",
    "--log-opt=max-size=1m",
    "--add-host=other.test:10.1.2.3",
    "--sysctl=net.ipv4.ip_unprivileged_port_start=0",
    "--shm-size=1m",
    "--workdir=/mnt",
    "--stop-timeout=7",
];

#[test]
fn a_rolling_replacement_behind_an_alias_fails_no_request() {
    let stage = Stage::start("");
    stage.put("first");
    let client = stage.plugin.named("client");
    let run = ["run", "--detach", "--init", "--name", &client, "--network", &stage.network];
    stage.engine().docker(&[&run[..], &["--volume=/cache", BUSYBOX, "sleep", "1000"]].concat());
    // Its anonymous volume, read-only: if two could write to it, the old one would be stopped before the new one starts.
    let lent = format!("--volumes-from={client}:ro");
    let name = stage.run_site("site", &[&WORDS[..], &[&lent]].concat());
    let pid = stage.pid(&client);
    let load = Load::none()
        .add(2, Some(pid), || || get_by_name("web"))
        .add(1, Some(pid), || || get_by_name("www"))
        .add(1, Some(pid), || {
            let name = name.clone();
            move || get_by_name(&name)
        });
    wait_for("the load to see the first token", SOON, || load.seen().count("first") > 100);

    for (old, new) in [("first", "second"), ("second", "third")] {
        let before = stage.inspect(&name);
        stage.rotate(new);
        wait_for("the load to see the new token", SOON, || load.seen().count(new) > 100);
        let after = stage.inspect(&name);
        assert_ne!(after["Id"], before["Id"]);
        assert_same(&settings(&after), &settings(&before));
        let volume = |inspected: &serde_json::Value| {
            let mounts = inspected["Mounts"].as_array().unwrap().iter();
            mounts.clone().find(|mount| mount["Destination"] == "/cache").map(|mount| mount["Name"].clone()).unwrap()
        };
        assert_eq!(volume(&after), volume(&before), "the anonymous volume");
        assert_eq!(stage.containers(), [after["Id"].as_str().unwrap()], "one container, and no other is left");
        let outcome = &stage.status()["last_rotation"];
        assert_eq!(outcome["result"], "verified", "{outcome}");
        assert!(load.seen().count(old) > 0);
        // Engine 28.5 gives the next container the address of the one that has gone, and a client that is still at it
        // would come to one that is not ready. It gives it up after five seconds.
        stage.let_pass(6);
    }
    let seen = load.end();
    seen.assert_faultless(500);
    assert!(iter::zip(seen.answers.keys(), ["first", "second", "third"]).all(|(seen, token)| seen == token));
}
