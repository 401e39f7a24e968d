//! How much Key Vault is asked behind the seam.

use crate::{
    support::{
        azure::vault::{Fault, error},
        bao::eventually,
    },
    world::{World, id},
};
use dso::{
    provider::{Cache, Registry, cache::Round},
    secret::SecretId,
};
use std::{sync::Arc, time::Duration};

/// Two hundred secrets that are in use, and the seam before them.
async fn in_use(world: &World) -> (Cache, Vec<Arc<SecretId>>) {
    let ids: Vec<_> = (0..200).map(|n| id(&format!("azure://corp/s{n}"))).collect();
    for n in 0..200 {
        world.vault.put(&format!("s{n}"), "x");
    }
    let cache = Cache::new(Registry::of([("azure".to_owned(), world.azure("").provider())]));
    for id in &ids {
        cache.get(id, Duration::ZERO).await.unwrap();
    }
    assert_eq!((world.vault.calls().len(), world.vault.count("get")), (200, 200), "one read of each");
    world.vault.forget();
    (cache, ids)
}

#[tokio::test]
async fn two_hundred_secrets_are_eight_calls_an_interval_and_two_more_for_each_change() {
    let world = World::new().await;
    let (cache, ids) = in_use(&world).await;
    for _ in 0..3 {
        assert_eq!(cache.check(&ids).await, Round::Answered);
    }
    assert_eq!((world.vault.calls().len(), world.vault.count("list")), (24, 24));
    for n in 50..53 {
        world.vault.put(&format!("s{n}"), "y");
    }
    world.vault.forget();
    assert_eq!(cache.check(&ids).await, Round::Answered);
    for (n, id) in ids.iter().enumerate() {
        let expected = if (50..53).contains(&n) { b"y" } else { b"x" };
        assert_eq!(cache.current(id).await.unwrap().value.expose(), expected);
    }
    assert_eq!(["list", "versions", "get"].map(|action| world.vault.count(action)), [8, 3, 3]);
    assert_eq!(cache.check(&ids).await, Round::Answered);
    assert_eq!(["list", "versions", "get"].map(|action| world.vault.count(action)), [16, 3, 3]);
}

#[tokio::test]
async fn a_vault_that_throttles_is_asked_no_further_and_nothing_is_lost() {
    let world = World::new().await;
    let (cache, ids) = in_use(&world).await;
    let reply = error(429, "Throttled", None, "").header("retry-after", "2");
    world.vault.fail("list", 1, Fault::Answer(reply));
    assert!(matches!(cache.check(&ids).await, Round::Unreachable { .. }));
    assert!(matches!(cache.check(&ids).await, Round::Unreachable { .. }));
    assert_eq!(world.vault.calls().len(), 1, "not before it said");
    assert!(ids.iter().all(|id| cache.last_known(id, Duration::from_secs(60)).is_some()));
    let well = async || {
        cache.check(&ids).await;
        ids.iter().all(|id| cache.known(id).error.is_none())
    };
    eventually("an answer for each", well).await;
    assert_eq!(world.vault.count("get"), 0);
}

#[tokio::test]
async fn while_a_vault_refuses_three_of_ten_calls_each_secret_has_its_turn_and_no_more_is_asked() {
    const ROUNDS: usize = 30;
    let world = World::new().await;
    let (cache, ids) = in_use(&world).await;
    world.vault.throttle(3);
    let mut without = vec![0; ids.len()];
    let (mut longest, mut answered) = (0, 0);
    for round in 0..ROUNDS {
        if round == 10 {
            world.vault.put("s150", "y");
        }
        answered += usize::from(cache.check(&ids).await == Round::Answered);
        for (id, without) in ids.iter().zip(&mut without) {
            *without = if cache.known(id).error.is_some() { *without + 1 } else { 0 };
            longest = longest.max(*without);
        }
        assert!(ids.iter().all(|id| cache.last_known(id, Duration::from_secs(60)).is_some()));
    }
    // A list has eight pages, and no eight calls in a row are let through.
    assert!(answered >= ROUNDS / 2 && longest <= 6, "{answered} answered, {longest} in a row without an answer");
    assert_eq!(cache.current(&ids[150]).await.unwrap().value.expose(), b"y", "a rotation arrives meanwhile");
    assert!(world.vault.calls().len() <= ROUNDS * 8, "{} calls", world.vault.calls().len());
    world.vault.throttle(0);
    assert_eq!(cache.check(&ids).await, Round::Answered);
    assert!(ids.iter().all(|id| cache.known(id).error.is_none()));
}
