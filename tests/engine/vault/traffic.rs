//! How much a server is asked, counted at the server's door.

use super::world::World;
use crate::support::{BUSYBOX, SOON, wait_for};
use serde_json::json;
use std::{process::Stdio, time::Duration};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_containers_at_once_on_four_volumes_of_two_secrets_make_two_reads() {
    let world = World::start().await;
    for name in ["a", "b"] {
        world.bao.put("secret", name, json!({"password": world.canary()})).await;
    }
    let volumes = ["a", "b"].map(|secret| {
        ["1", "2"].map(|n| world.volume(&format!("{secret}{n}"), &[&format!("from=vault://secret/{secret}")]))
    });
    let volumes = volumes.concat();
    world.proxy.reset();
    // The image has /mnt: then the engine mounts at `create` and again at `start`.
    let names: Vec<_> = (0..20).map(|n| world.plugin.named(&format!("c{n}"))).collect();
    let started: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let mount = format!("type=volume,source={},target=/mnt", volumes[n % 4]);
            let words =
                ["run", "--detach", "--network=none", "--name", name, "--mount", &mount, BUSYBOX, "sleep", "1000"];
            world.plugin.engine().command().args(words).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut container in started {
        assert!(container.wait().unwrap().success());
    }
    let reads = ["a", "b"].map(|name| world.proxy.count("GET", &format!("/v1/secret/data/{name}")));
    assert_eq!(reads, [1, 1], "{:?}", world.proxy.requests());
    for volume in ["a1", "a2", "b1", "b2"] {
        assert_eq!(world.status(volume)["mounts"], 5, "{volume}");
    }
    let remove = [&["rm", "--force"], &names.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat();
    world.plugin.engine().docker(&remove);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_and_a_start_make_one_read() {
    let world = World::start().await;
    world.bao.put("secret", "app", json!({"password": world.canary()})).await;
    let volume = world.volume("v", &["from=vault://secret/app"]);
    let (engine, name, mount) =
        (world.plugin.engine(), world.plugin.named("c"), format!("type=volume,source={volume},target=/mnt"));
    engine.docker(&["create", "--network=none", "--name", &name, "--mount", &mount, BUSYBOX, "sleep", "1000"]);
    assert_eq!(world.proxy.count("GET", "/v1/secret/data/app"), 1, "the engine has mounted it at `create`");
    engine.docker(&["start", &name]);
    assert_eq!(world.proxy.count("GET", "/v1/secret/data/app"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secrets_of_a_folder_are_checked_by_one_call_each_interval_and_read_once_for_each_change() {
    let world = World::start().await;
    for name in ["a", "b", "c"] {
        world.bao.put("secret", &format!("app/{name}"), json!({"password": world.canary()})).await;
    }
    world.volume("v", &["file.a=vault://secret/app/a#password", "file.b=vault://secret/app/b#password"]);
    world.volume("w", &["file.b=vault://secret/app/b#password", "file.c=vault://secret/app/c#password"]);
    world.keep("v");
    world.keep("w");
    let lists = || world.proxy.count("LIST", "/v1/secret/detailed-metadata/app");
    // From a check that begins, so that the first interval is a whole one.
    let first = lists();
    wait_for("the next check", SOON, || lists() > first);
    world.proxy.reset();
    let since = Instant::now();
    wait_for("four checks", SOON, || lists() >= 4);
    let (requests, elapsed) = (world.proxy.requests(), since.elapsed());
    assert!(requests.iter().all(|(method, _)| method == "LIST"), "nothing else is asked: {requests:?}");
    // The interval is a second less up to a tenth.
    let most = (elapsed.as_secs_f64() / 0.9).ceil() as usize;
    assert!(requests.len() <= most, "{} checks in {elapsed:?}", requests.len());

    for n in 1..=3 {
        let value = format!("{n}-{}", world.canary());
        world.bao.put("secret", "app/b", json!({"password": value})).await;
        world.wait_for_file("v", "b", &value);
        world.wait_for_file("w", "b", &value);
        assert_eq!(world.proxy.count("GET", "/v1/secret/data/"), n, "{:?}", world.proxy.requests());
    }
    assert_eq!(world.proxy.count("GET", "/v1/secret/data/app/b"), 3);
    assert_eq!(world.proxy.count("GET", "metadata"), 0, "no check of a single secret");
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_arrives_in_a_running_container_within_one_interval() {
    let interval = Duration::from_secs(4);
    let world = World::start().await;
    world.bao.put("secret", "app", json!({"password": world.canary()})).await;
    world.volume("v", &["from=vault://secret/app", "refresh=4s"]);
    world.keep("v");
    let checks = || world.proxy.count("*", "metadata");
    for _ in 0..2 {
        let value = world.canary();
        world.bao.put("secret", "app", json!({"password": value})).await;
        world.proxy.reset();
        let since = Instant::now();
        world.wait_for_file("v", "password", &value);
        // A busy machine may take its time to look, but the first check after the change brings it.
        assert!(since.elapsed() < interval + Duration::from_secs(3), "{:?}", since.elapsed());
        assert!(checks() <= 1, "{:?}", world.proxy.requests());
    }
}
