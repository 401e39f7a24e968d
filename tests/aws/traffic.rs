//! How much AWS is asked behind the seam, counted at the gate.

use crate::world::{World, id};
use dso::{
    provider::{Cache, Registry, cache::Round},
    secret::SecretId,
};
use std::{sync::Arc, time::Duration};

/// Two hundred secrets that are in use, and the seam before them.
async fn in_use(world: &World) -> (Cache, Vec<Arc<SecretId>>) {
    let ids: Vec<_> = (0..200).map(|n| id(&format!("aws://s{n}"))).collect();
    for id in &ids {
        world.moto.create(id.path(), "x").await;
    }
    let cache = Cache::new(Registry::of([("aws".to_owned(), world.aws("").provider())]));
    for id in &ids {
        cache.get(id, Duration::ZERO).await.unwrap();
    }
    assert_eq!((world.gate.calls().len(), world.gate.count("GetSecretValue")), (200, 200), "one read of each");
    world.gate.reset();
    (cache, ids)
}

#[tokio::test]
async fn two_hundred_secrets_are_two_calls_an_interval_and_changes_a_description_each_and_one_read_together() {
    let world = World::new().await;
    let (cache, ids) = in_use(&world).await;
    for _ in 0..3 {
        assert_eq!(cache.check(&ids).await, Round::Answered);
    }
    assert_eq!((world.gate.calls().len(), world.gate.count("ListSecrets")), (6, 6));
    for id in &ids[50..53] {
        world.moto.put(id.path(), "y").await;
    }
    world.gate.reset();
    assert_eq!(cache.check(&ids).await, Round::Answered);
    for id in &ids {
        let expected = if (50..53).any(|n| ids[n] == *id) { b"y" } else { b"x" };
        assert_eq!(cache.current(id).await.unwrap().value.expose(), expected);
    }
    let actions = ["ListSecrets", "DescribeSecret", "BatchGetSecretValue", "GetSecretValue"];
    assert_eq!(actions.map(|action| world.gate.count(action)), [2, 3, 1, 0]);
}

#[tokio::test]
async fn while_aws_refuses_three_of_ten_calls_nothing_is_lost_and_no_more_is_asked() {
    let world = World::new().await;
    let (cache, ids) = in_use(&world).await;
    world.gate.throttle(3);
    let (mut failed, mut longest) = (0, 0);
    for _ in 0..20 {
        match cache.check(&ids).await {
            Round::Answered => failed = 0,
            Round::Unreachable { .. } => failed += 1,
        }
        longest = longest.max(failed);
        assert!(ids.iter().all(|id| cache.last_known(id, Duration::from_secs(60)).is_some()));
    }
    assert!((1..=4).contains(&longest), "{longest} rounds without an answer");
    assert!(world.gate.calls().len() <= 40, "{} calls", world.gate.calls().len());
    world.gate.throttle(0);
    assert_eq!(cache.check(&ids).await, Round::Answered);
    assert!(ids.iter().all(|id| cache.known(id).error.is_none()));
}
