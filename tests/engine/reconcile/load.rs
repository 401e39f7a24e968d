//! What many volumes cost a server, counted at its door.

use crate::{support::SOON, support::wait_for, vault::world::World};
use serde_json::json;
use std::fs;
use tokio::time::{Duration, Instant, sleep_until};

const VOLUMES: usize = 200;
const SECRETS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_volumes_on_five_secrets_are_five_checks_an_interval_and_one_read_a_change() {
    let world = World::with("", |plugin| plugin.set("DSO_REFRESH=2s")).await;
    // A folder each: those of one folder would be one check together.
    for n in 0..SECRETS {
        world.bao.put("secret", &format!("f{n}/app"), json!({"password": world.canary()})).await;
    }
    let name = |n: usize| world.plugin.named(&format!("v{n}"));
    for n in 0..VOLUMES {
        let options = json!({"from": format!("vault://secret/f{}/app", n % SECRETS)});
        let (_, created) = world.plugin.call("/VolumeDriver.Create", &json!({"Name": name(n), "Opts": options}));
        let (_, mounted) = world.plugin.call("/VolumeDriver.Mount", &json!({"Name": name(n), "ID": "m"}));
        assert_eq!((&created["Err"], &mounted["Err"]), (&json!(""), &json!("")));
    }
    let checks = || world.proxy.count("*", "metadata");
    let first = checks();
    wait_for("the next check", SOON, || checks() > first);
    world.proxy.reset();
    let (began, intervals) = (Instant::now(), 5);
    sleep_until(began + Duration::from_secs(2 * intervals)).await;
    let (seen, requests) = (checks(), world.proxy.requests());
    // An interval is two seconds less up to a tenth, and a check may fall on either edge.
    let (least, most) = ((intervals as usize - 1) * SECRETS, (intervals as usize * 10 / 9 + 2) * SECRETS);
    assert!((least..=most).contains(&seen), "{seen} checks in {intervals} intervals, and not {least} to {most}");
    assert_eq!(world.proxy.count("GET", "/data/"), 0, "nothing changed, and nothing was read: {requests:?}");

    for n in 0..SECRETS {
        world.proxy.reset();
        let value = world.canary();
        world.bao.put("secret", &format!("f{n}/app"), json!({"password": value})).await;
        let users = || (n..VOLUMES).step_by(SECRETS);
        wait_for("the new value in every volume", SOON, || {
            users().all(|user| {
                fs::read_to_string(world.plugin.shown(&name(user)).join("password")).is_ok_and(|read| read == value)
            })
        });
        assert_eq!(world.proxy.count("GET", "/data/"), 1, "{:?}", world.proxy.requests());
    }
    println!(
        "{VOLUMES} volumes, {SECRETS} secrets: {seen} checks in {intervals} intervals, {SECRETS} reads for {SECRETS} changes"
    );
    for n in 0..VOLUMES {
        world.plugin.call("/VolumeDriver.Unmount", &json!({"Name": name(n), "ID": "m"}));
    }
    world.nothing_leaked();
}
