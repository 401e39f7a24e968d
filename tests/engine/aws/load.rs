//! What an account's secrets on very many volumes cost, counted at the gate; and what becomes of them while AWS refuses calls.

use super::world::World;
use crate::support::{PATIENCE, SOON, wait_for};
use serde_json::{Value, json};
use std::{
    env, fs, thread,
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, sleep_until};

const VOLUMES: usize = 1_000;
const SECRETS: usize = 200;
/// `ListSecrets` tells of a hundred secrets at a time.
const PAGES: usize = SECRETS / 100;
/// How many volumes are mounted at a time.
const AT_ONCE: usize = 4;
const INTERVAL: Duration = Duration::from_secs(2);

fn secret(n: usize) -> String {
    format!("app/s{n}")
}

/// Calls of each kind since the last count.
fn calls(world: &World) -> [usize; 4] {
    let actions = ["ListSecrets", "DescribeSecret", "GetSecretValue", "BatchGetSecretValue"];
    let counted = actions.map(|action| world.gate.count(action));
    assert_eq!(counted.iter().sum::<usize>(), world.gate.calls().len(), "no calls of another kind");
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_secrets_on_a_thousand_volumes_are_two_calls_an_interval_and_outlast_a_throttled_minute() {
    let world = World::with("", |plugin| plugin.set(&format!("DSO_REFRESH={}s", INTERVAL.as_secs()))).await;
    for n in 0..SECRETS {
        world.moto.create(&secret(n), "first").await;
    }
    let volume = |n: usize| world.plugin.named(&format!("v{n}"));
    let shown = |n: usize| fs::read_to_string(world.plugin.shown(&volume(n)).join("value")).unwrap();
    thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let (world, volume) = (&world, &volume);
            scope.spawn(move || {
                for n in (first..VOLUMES).step_by(AT_ONCE) {
                    world.mount(&volume(n), json!({"file.value": format!("aws://{}", secret(n % SECRETS))}));
                }
            });
        }
    });
    assert!((0..VOLUMES).all(|n| shown(n) == "first"));
    let mounting = calls(&world);
    assert_eq!((mounting[2], mounting[3]), (SECRETS, 0), "one read of each secret: {mounting:?}");
    assert!(mounting[1] <= VOLUMES - SECRETS, "at most a check for each further mount: {mounting:?}");

    // Nothing changes.
    let listed = world.gate.count("ListSecrets");
    wait_for("the next check", SOON, || world.gate.count("ListSecrets") > listed);
    world.gate.reset();
    let (began, intervals) = (Instant::now(), 5);
    sleep_until(began + INTERVAL * intervals).await;
    let idle = calls(&world);
    // An interval is two seconds less up to a tenth, and a check may fall on either edge.
    let (least, most) = ((intervals as usize - 1) * PAGES, (intervals as usize * 10 / 9 + 2) * PAGES);
    assert!((least..=most).contains(&idle[0]), "{idle:?} in {intervals} intervals, and not {least} to {most} lists");
    assert_eq!(idle[1..], [0, 0, 0], "nothing changed, and nothing was read");

    // Fifty change: each is read once, twenty at a time, whoever shows it.
    world.gate.reset();
    for n in 0..50 {
        world.moto.put(&secret(n), "second").await;
    }
    let follows = |n: usize, value: &str| (n..VOLUMES).step_by(SECRETS).all(|user| shown(user) == value);
    wait_for("the new values in every volume", PATIENCE, || (0..50).all(|n| follows(n, "second")));
    let changed = calls(&world);
    // The changes fall into one interval or more, and one that is alone in its interval is read alone.
    assert!(changed[1] <= 50 && changed[2] + changed[3] <= 25, "{changed:?}");

    let throttled = throttled(&world, &volume, |n| follows(n, "third")).await;
    println!(
        "{VOLUMES} volumes, {SECRETS} secrets; lists, descriptions, reads, batches: {mounting:?} to mount, {idle:?} in \
         {intervals} intervals, {changed:?} for 50 changes; {throttled}"
    );
    for n in 0..VOLUMES {
        world.unmount(&volume(n));
    }
}

/// A while in which AWS refuses three of ten calls, and secrets change all the same: `DSO_TEST_SECONDS=60` for the whole minute.
async fn throttled(world: &World, volume: &dyn Fn(usize) -> String, follows: impl Fn(usize) -> bool) -> String {
    let seconds = env::var("DSO_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20).min(60);
    world.gate.reset();
    world.gate.throttle(3);
    let (began, mut changes, mut oldest) = (Instant::now(), 0, Duration::ZERO);
    for second in 1..=seconds {
        sleep_until(began + Duration::from_secs(second)).await;
        if second % 4 == 1 {
            world.moto.put(&secret(changes), "third").await;
            changes += 1;
        }
        let status = world.status(&volume(VOLUMES - 1));
        oldest = oldest.max(age(&status["checked"]));
        assert_ne!(status["state"], "failed", "{status}");
    }
    let made = calls(world);
    wait_for("what changed meanwhile", PATIENCE, || (0..changes).all(&follows));
    world.gate.throttle(0);
    wait_for("all to be current", PATIENCE, || {
        (0..VOLUMES).step_by(7).all(|n| world.status(&volume(n))["state"] == "current")
    });
    // A check that was refused is made again after a second, not for each volume or secret.
    let most = seconds as usize * PAGES * 3 / 2 + changes * 4;
    assert!(made.iter().sum::<usize>() <= most, "{made:?} in {seconds} s, and not at most {most}");
    assert!(oldest < INTERVAL * 5, "what could be read was not confirmed for {oldest:?}");
    format!("{made:?} in {seconds} throttled seconds with {changes} changes, confirmed at the latest after {oldest:?}")
}

fn age(time: &Value) -> Duration {
    let time = humantime::parse_rfc3339(time.as_str().expect("when it was checked")).unwrap();
    SystemTime::now().duration_since(time).unwrap_or_default()
}
