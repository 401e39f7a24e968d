//! Version checks: how many calls they make, and what they fall back to.

use crate::{
    support::{aws::gate::Fault, instance::version_of, server::Reply},
    world::{World, id},
};
use dso::{
    provider::{ErrorKind, Observed},
    secret::SecretId,
};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};

fn denied() -> Fault {
    Fault::Answer(Reply::fault(400, "AccessDeniedException"))
}

/// Ten secrets, and their references.
async fn ten(world: &World) -> Vec<Arc<SecretId>> {
    for n in 0..10 {
        world.moto.create(&format!("app/s{n}"), "x").await;
    }
    (0..10).map(|n| id(&format!("aws://app/s{n}"))).collect()
}

#[tokio::test]
async fn ten_secrets_of_a_region_are_one_call_and_a_lone_one_is_described() {
    let world = World::new().await;
    let ids = ten(&world).await;
    let aws = world.aws("");
    let batches: BTreeSet<_> = ids.iter().map(|id| aws.batch(id)).collect();
    assert!(batches.len() == 1 && batches.first().unwrap().is_some(), "one batch: {batches:?}");
    assert_ne!(aws.batch(&id("aws://x?region=us-east-1")), aws.batch(&ids[0]), "of one region");
    let second = world.moto.put("app/s3", "y").await;
    let versions: Vec<_> = aws.versions(&ids).await.into_iter().map(version_of).collect();
    let actions: Vec<_> = world.gate.calls().into_iter().map(|call| call.action).collect();
    assert_eq!(actions, ["ListSecrets"]);
    assert_eq!(versions[3].label(), second);
    for (id, version) in ids.iter().zip(&versions) {
        assert_eq!(version_of(aws.versions(std::slice::from_ref(id)).await.remove(0)), *version, "as described");
    }
    assert_eq!((world.gate.count("ListSecrets"), world.gate.count("DescribeSecret")), (1, 10));
    assert_eq!(aws.secret("aws://app/s3").await.version, versions[3]);
}

#[tokio::test]
async fn where_the_policy_forbids_the_list_each_is_described_and_where_that_too_is_forbidden_it_is_read() {
    let world = World::new().await;
    let ids = ten(&world).await;
    let aws = world.aws("");
    world.gate.fail("ListSecrets", usize::MAX, denied());
    aws.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!((world.gate.count("ListSecrets"), world.gate.count("DescribeSecret")), (1, 10));
    assert_eq!(aws.batch(&ids[0]), None, "it is known that no one call tells of them");
    world.gate.reset();
    aws.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!((world.gate.count("ListSecrets"), world.gate.count("DescribeSecret")), (0, 10), "the refusal is known");
    world.gate.fail("DescribeSecret", usize::MAX, denied());
    for _ in 0..2 {
        assert_eq!(aws.version("aws://app/s0").await.unwrap(), Observed::Unversioned);
    }
    assert_eq!(world.gate.count("DescribeSecret"), 11, "and so is the other");
    assert_eq!(aws.text("aws://app/s0").await, "x");
}

#[tokio::test]
async fn where_only_the_list_is_allowed_a_lone_secret_is_listed() {
    let world = World::new().await;
    ten(&world).await;
    let aws = world.aws("");
    world.gate.fail("DescribeSecret", usize::MAX, denied());
    assert_eq!(aws.version("aws://app/s0").await.unwrap(), Observed::Unversioned);
    version_of(aws.version("aws://app/s0").await);
    assert_eq!((world.gate.count("ListSecrets"), world.gate.count("DescribeSecret")), (1, 1));
}

#[tokio::test]
async fn what_a_list_does_not_tell_is_asked_for_by_itself() {
    let world = World::new().await;
    let mut ids = ten(&world).await;
    ids.push(id("aws://none"));
    let aws = world.aws("");
    // The list knows nothing of a secret for some minutes after it was made.
    let listed = world.moto.call("eu-central-1", "ListSecrets", json!({})).await;
    let listed: Vec<_> = listed["SecretList"].as_array().unwrap().iter().skip(1).cloned().collect();
    world.gate.fail("ListSecrets", 1, Fault::Answer(Reply::new(200, json!({"SecretList": listed}).to_string())));
    let found = aws.versions(&ids).await;
    assert!(found[..10].iter().all(Result::is_ok));
    assert_eq!(found[10].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.gate.count("DescribeSecret"), 2);
    assert!(aws.batch(&ids[0]).is_some());
}

#[tokio::test]
async fn an_account_with_more_pages_than_secrets_in_use_is_not_listed_again() {
    let world = World::new().await;
    let ids = ten(&world).await;
    let aws = world.aws("");
    let page = json!({"SecretList": [], "NextToken": "more"}).to_string();
    world.gate.fail("ListSecrets", usize::MAX, Fault::Answer(Reply::new(200, page)));
    assert!(aws.versions(&ids[..2]).await.iter().all(Result::is_ok));
    assert_eq!((world.gate.count("ListSecrets"), world.gate.count("DescribeSecret")), (2, 2));
    assert_eq!(aws.batch(&ids[0]), None);
}

#[tokio::test]
async fn the_pages_of_a_list_are_read_until_all_is_found() {
    let world = World::new().await;
    for n in 0..130 {
        world.moto.create(&format!("s{n}"), "x").await;
    }
    let aws = world.aws("");
    let ids: Vec<_> = (0..130).map(|n| id(&format!("aws://s{n}"))).collect();
    aws.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!((world.gate.count("ListSecrets"), world.gate.count("DescribeSecret")), (2, 0));
}

#[tokio::test]
async fn a_list_that_is_behind_takes_no_secret_back_and_a_change_that_it_tells_is_confirmed() {
    let world = World::new().await;
    let ids = ten(&world).await;
    let aws = world.aws("");
    let behind = world.moto.call("eu-central-1", "ListSecrets", json!({})).await.to_string();
    world.moto.put("app/s0", "y").await;
    let new = aws.secret("aws://app/s0").await.version;
    world.gate.reset();
    world.gate.fail("ListSecrets", 1, Fault::Answer(Reply::new(200, behind)));
    assert_eq!(version_of(aws.versions(&ids).await.remove(0)), new);
    assert_eq!((world.gate.count("ListSecrets"), world.gate.count("DescribeSecret")), (1, 1));
    let newer = world.moto.put("app/s0", "z").await;
    assert_eq!(version_of(aws.versions(&ids).await.remove(0)).label(), newer);
    assert_eq!((world.gate.count("ListSecrets"), world.gate.count("DescribeSecret")), (2, 2));
}

#[tokio::test]
async fn with_list_off_each_is_described() {
    let world = World::new().await;
    let ids = ten(&world).await;
    let aws = world.aws("list = false");
    assert_eq!(aws.batch(&ids[0]), None);
    aws.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!((world.gate.count("ListSecrets"), world.gate.count("DescribeSecret")), (0, 10));
}
