//! What a version check tells, and what it costs.

use crate::world::{PATIENT, World, json_of, version_of};
use dso::provider::{ErrorKind, Observed};
use serde_json::json;
use std::{fs, time::Duration};
use tokio::time::Instant;

const MANY: usize = 10_000;
/// A check of a secret with that many versions may take this long on a busy machine …
const LONGEST: Duration = Duration::from_secs(5);
/// … and this much memory.
const MOST_KIB: usize = 32 << 10;

pub async fn a_check_tells_the_version_of_each_and_reads_no_value(world: &impl World) {
    let provider = world.instance(PATIENT);
    for name in ["one", "two", "three"] {
        world.put(name, &json!({"name": name})).await;
    }
    world.put("two", &json!({"name": "again"})).await;
    let names = ["three", "none", "one", "two"];
    let ids = names.map(|name| world.id(name));
    let before = world.reads();
    let (first, second) = (provider.versions(&ids).await, provider.versions(&ids).await);
    for ((name, first), second) in names.iter().zip(first).zip(second) {
        match first {
            Ok(observed) => {
                let version = version_of(Ok(observed));
                assert_eq!(version, version_of(second), "{name}: nothing has changed");
                assert_eq!(version, world.version(&*provider, name).await, "{name}: alone as among others");
            }
            Err(error) => {
                assert_eq!((*name, error.kind()), ("none", ErrorKind::NotFound), "{error}");
                assert!(world.is_silent(&error));
            }
        }
    }
    assert_eq!(world.reads(), before, "no value was read");
    for name in ["one", "two", "three"] {
        assert_eq!(world.version(&*provider, name).await, world.read(&*provider, name).await.version);
    }
}

pub async fn a_rotation_is_another_version_with_the_new_value(world: &impl World) {
    let (old, new, provider) = (world.canary(), world.canary(), world.instance(PATIENT));
    world.put("app", &json!({"password": old})).await;
    world.put("other", &json!({"n": 1})).await;
    let first = world.read(&*provider, "app").await;
    let other = world.version(&*provider, "other").await;
    world.put("app", &json!({"password": new})).await;
    let seen = world.version(&*provider, "app").await;
    assert_ne!((&seen, seen.label()), (&first.version, first.version.label()));
    let second = world.read(&*provider, "app").await;
    assert_eq!((json_of(&second), second.version), (json!({"password": new}), seen));
    assert_eq!(world.version(&*provider, "other").await, other, "its neighbour is what it was");
}

pub async fn what_was_removed_and_made_again_is_another_version(world: &impl World) {
    let provider = world.instance(PATIENT);
    world.put("app", &json!({"n": 1})).await;
    let first = world.read(&*provider, "app").await;
    world.remove("app").await;
    let error = world.refused(&*provider, "app").await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = provider.versions(&[world.id("app")]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    world.put("app", &json!({"n": 2})).await;
    let second = world.read(&*provider, "app").await;
    assert_ne!(second.version, first.version);
    assert_eq!(json_of(&second), json!({"n": 2}));
    assert_eq!(world.version(&*provider, "app").await, second.version);
}

pub async fn of_ten_thousand_versions_the_newest_is_found_in_time_and_in_bounded_memory<W: World>(world: &W) {
    let (canary, provider) = (world.canary(), world.instance(PATIENT));
    // The first call sets up what all further ones use.
    world.put("small", &json!({"n": 1})).await;
    world.version(&*provider, "small").await;
    world.put_versions("app", MANY, &json!({"password": canary})).await;
    // Where the first look is not enough, its server is a part of this process, and what that takes is not dso's.
    if !W::TELLS_AMONG_MANY {
        let told = provider.versions(&[world.id("app")]).await.remove(0);
        assert!(
            matches!(told, Ok(Observed::Unversioned)),
            "{:?}",
            told.map(|_| "a version").map_err(|e| e.to_string())
        );
        world.read(&*provider, "app").await;
    }
    let (began, before) = (Instant::now(), reset_peak());
    let version = world.version(&*provider, "app").await;
    let (took, grown) = (began.elapsed(), memory("VmHWM").saturating_sub(before));
    println!("a check among {MANY} versions: {took:?}, {grown} KiB");
    assert!(took < LONGEST, "{took:?}");
    assert!(grown < MOST_KIB, "{grown} KiB");
    let secret = world.read(&*provider, "app").await;
    assert_eq!((json_of(&secret), secret.version), (json!({"password": canary}), version));
}

/// Forgets the most memory that this process has had; what it has now, in KiB.
fn reset_peak() -> usize {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    memory("VmRSS")
}

fn memory(of: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(of)).expect("a line of it");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
