//! Many secrets at once: how many calls that is, and what it falls back to.

use crate::{
    support::{aws::gate::Fault, server::Reply},
    world::{World, id},
};
use dso::{
    provider::{Cache, ErrorKind, ProviderError, Registry},
    secret::{Secret, SecretId},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// So many secrets, each with its name as its value, and their references.
async fn secrets(world: &World, count: usize) -> Vec<Arc<SecretId>> {
    for n in 0..count {
        world.moto.create(&format!("app/s{n}"), &format!("app/s{n}")).await;
    }
    (0..count).map(|n| id(&format!("aws://app/s{n}"))).collect()
}

/// Batches and single reads.
fn calls(world: &World) -> (usize, usize) {
    (world.gate.count("BatchGetSecretValue"), world.gate.count("GetSecretValue"))
}

#[track_caller]
fn all_read(ids: &[Arc<SecretId>], found: Vec<Result<Secret, ProviderError>>) {
    assert_eq!(ids.len(), found.len());
    for (id, found) in ids.iter().zip(found) {
        assert_eq!(found.unwrap().value.expose(), id.path().as_bytes(), "{id}");
    }
}

#[tokio::test]
async fn forty_five_secrets_are_three_calls_and_each_is_what_it_is_alone() {
    let world = World::new().await;
    let ids = secrets(&world, 45).await;
    let aws = world.aws("");
    assert_eq!(aws.read_group(&ids[0]), aws.read_group(&ids[44]));
    all_read(&ids, aws.read_many(&ids).await);
    assert_eq!((calls(&world), world.gate.refused()), ((3, 0), vec![]));
    let many = aws.read_many(&ids[..2]).await.remove(1).unwrap();
    assert_eq!(many.version, aws.secret("aws://app/s1").await.version, "with its stamp");
}

#[tokio::test]
async fn secrets_of_another_region_or_version_are_of_no_group_with_the_others() {
    let world = World::new().await;
    let aws = world.aws("");
    let group = |reference: &str| aws.read_group(&id(reference));
    assert_ne!(group("aws://a"), group("aws://a?region=us-east-1"));
    assert_eq!(group("aws://a?stage=AWSPREVIOUS"), None);
    assert_eq!(group(&format!("aws://a?version={}", "0".repeat(32))), None);
    assert_eq!(group("aws://a"), group("aws://arn:aws:secretsmanager:eu-central-1:123456789012:secret:b"));
}

#[tokio::test]
async fn an_arn_and_a_name_of_one_secret_both_get_it() {
    let world = World::new().await;
    let ids = secrets(&world, 2).await;
    let told = world.moto.call("eu-central-1", "DescribeSecret", json!({"SecretId": "app/s0"})).await;
    let aws = world.aws("");
    let many = [ids[0].clone(), id(&format!("aws://{}", told["ARN"].as_str().unwrap())), ids[1].clone()];
    let found = aws.read_many(&many).await;
    let read: Vec<_> = found.into_iter().map(|found| found.unwrap().value.expose().to_vec()).collect();
    assert_eq!(read, [b"app/s0", b"app/s0", b"app/s1"]);
}

#[tokio::test]
async fn where_the_policy_forbids_the_batch_each_is_read_and_the_refusal_is_known() {
    let world = World::new().await;
    let ids = secrets(&world, 25).await;
    for code in ["AccessDeniedException", "UnknownOperationException"] {
        let aws = world.aws("");
        world.gate.reset();
        world.gate.heal();
        world.gate.fail("BatchGetSecretValue", usize::MAX, Fault::Answer(Reply::fault(400, code)));
        all_read(&ids, aws.read_many(&ids).await);
        let (batches, reads) = calls(&world);
        assert!((1..=2).contains(&batches) && reads == 25, "{code}: {batches}, {reads}");
        assert_eq!(aws.read_group(&ids[0]), None, "{code}");
        world.gate.reset();
        all_read(&ids, aws.read_many(&ids).await);
        assert_eq!(calls(&world), (0, 25), "{code}");
    }
}

#[tokio::test]
async fn a_secret_that_the_batch_fails_for_is_read_alone_and_says_by_itself_what_is_wrong() {
    let world = World::new().await;
    let mut ids = secrets(&world, 3).await;
    ids.insert(1, id("aws://none"));
    let aws = world.aws("");
    let mut found = aws.read_many(&ids).await;
    let error = found.remove(1).unwrap_err();
    let told = "aws (eu-central-1): there is no secret none in this region: create it, or correct the reference";
    assert_eq!((error.kind(), world.message(&error)), (ErrorKind::NotFound, told.into()));
    ids.remove(1);
    all_read(&ids, found);
    assert_eq!(calls(&world), (1, 1));
    assert!(aws.read_group(&ids[0]).is_some(), "the batch is allowed all the same");
}

#[tokio::test]
async fn what_the_policy_forbids_of_a_batch_and_what_did_not_fit_into_the_answer_is_read_alone() {
    let world = World::new().await;
    let ids = secrets(&world, 4).await;
    let names: Vec<_> = ids.iter().map(|id| id.path()).collect();
    let mut answer = world.moto.call("eu-central-1", "BatchGetSecretValue", json!({"SecretIdList": names})).await;
    let values = answer["SecretValues"].as_array_mut().unwrap();
    values.truncate(2);
    let denied = json!({"SecretId": "app/s3", "ErrorCode": "AccessDeniedException", "Message": "as planned"});
    (answer["Errors"], answer["NextToken"]) = (json!([denied]), json!("more"));
    let reply = |body: &Value| Fault::Answer(Reply::new(200, body.to_string()));
    world.gate.fail("BatchGetSecretValue", 1, reply(&answer));
    let aws = world.aws("");
    all_read(&ids, aws.read_many(&ids).await);
    assert_eq!(calls(&world), (1, 2));
}

#[tokio::test]
async fn a_batch_that_is_throttled_or_has_no_answer_is_not_followed_by_a_call_for_each() {
    let world = World::new().await;
    let ids = secrets(&world, 20).await;
    let aws = world.aws("timeout = '500ms'");
    all_read(&ids, aws.read_many(&ids).await);
    world.gate.reset();
    let throttled = Reply::fault(400, "ThrottlingException").header("retry-after", "7");
    for (fault, kind, delay) in [
        (Fault::Answer(throttled), ErrorKind::Throttled, Some(Duration::from_secs(7))),
        (Fault::Cut, ErrorKind::Unreachable, None),
        (Fault::Hang, ErrorKind::Timeout, None),
    ] {
        world.gate.fail("BatchGetSecretValue", 1, fault);
        for found in aws.read_many(&ids).await {
            let error = found.unwrap_err();
            assert_eq!((error.kind(), error.delay()), (kind, delay), "{}", world.message(&error));
        }
    }
    assert_eq!(calls(&world), (3, 0));
    all_read(&ids, aws.read_many(&ids).await);
}

#[tokio::test]
async fn a_mount_of_many_secrets_and_a_check_that_finds_many_changed_are_batches() {
    let world = World::new().await;
    let ids = secrets(&world, 30).await;
    let cache = Arc::new(Cache::new(Registry::of([("aws".to_owned(), world.aws("").provider())])));
    let found = cache.get_all(ids.clone(), Duration::ZERO).await;
    assert_eq!((found.found.len(), calls(&world)), (30, (2, 0)), "a volume's first fill");
    for id in &ids[..22] {
        world.moto.put(id.path(), "new").await;
    }
    world.gate.reset();
    cache.check(&ids).await;
    let found = cache.current_all(ids.clone()).await.found;
    assert!(ids[..22].iter().all(|id| found[id].value.expose() == b"new"));
    assert_eq!((calls(&world), world.gate.count("ListSecrets")), ((2, 0), 1));
    // As after a start of the plugin under a policy without metadata: each check reads all, in batches.
    for action in ["ListSecrets", "DescribeSecret"] {
        world.gate.fail(action, usize::MAX, Fault::Answer(Reply::fault(400, "AccessDeniedException")));
    }
    cache.check(&ids).await;
    world.gate.reset();
    world.moto.put("app/s7", "newer").await;
    cache.check(&ids).await;
    assert_eq!((calls(&world), world.gate.calls().len()), ((2, 0), 2));
    assert_eq!(cache.current(&ids[7]).await.unwrap().value.expose(), b"newer");
}

#[tokio::test]
async fn the_documented_policy_allows_every_call_that_is_made_and_no_other() {
    let page = include_str!("../../docs/providers.md");
    let (_, aws) = page.split_once("\n## `aws`").unwrap();
    let (_, policy) = aws.split_once("### What the policy needs\n\n```json\n").unwrap();
    let policy: Value = serde_json::from_str(policy.split_once("```").unwrap().0).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    let allowed: BTreeSet<_> = statements.map(|statement| statement["Action"].as_str().unwrap().to_owned()).collect();

    let world = World::new().await;
    let ids = secrets(&world, 3).await;
    let cache = Arc::new(Cache::new(Registry::of([("aws".to_owned(), world.aws("").provider())])));
    cache.get_all(ids.clone(), Duration::ZERO).await;
    cache.check(&ids).await;
    for lone in &ids[..2] {
        world.moto.put(lone.path(), "new").await;
        cache.get(lone, Duration::ZERO).await.unwrap();
    }
    let made = world.gate.calls().into_iter().map(|call| format!("secretsmanager:{}", call.action));
    assert_eq!(made.collect::<BTreeSet<_>>(), allowed);
}
