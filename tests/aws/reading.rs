//! What is read is what was written, and a rotation is seen.

use crate::{
    support::instance::version_of,
    world::{World, id},
};
use dso::provider::ErrorKind;
use serde_json::json;

#[tokio::test]
async fn a_text_is_read_with_its_version_and_a_field_of_it_by_its_name() {
    let world = World::new().await;
    let canary = world.canary();
    let made = world.moto.create("prod/app/db", &json!({"user": "app", "password": canary}).to_string()).await;
    let aws = world.aws("");
    let secret = aws.secret("aws://prod/app/db").await;
    assert_eq!(secret.value.field(&"password".parse().unwrap()).unwrap().expose(), canary.as_bytes());
    assert_eq!(secret.version.label(), made["VersionId"].as_str().unwrap());
    assert_eq!(version_of(aws.version("aws://prod/app/db").await), secret.version);
    let arn = made["ARN"].as_str().unwrap();
    assert_eq!(aws.secret(&format!("aws://{arn}")).await.version, secret.version);
    assert_eq!(version_of(aws.version(&format!("aws://{arn}")).await), secret.version);
}

#[tokio::test]
async fn a_rotation_arrives_and_the_stage_awsprevious_serves_the_old_one() {
    let world = World::new().await;
    let (old, new) = (world.canary(), world.canary());
    let made = world.moto.create("app", &old).await;
    let aws = world.aws("");
    let before = aws.secret("aws://app").await.version;
    let second = world.moto.put("app", &new).await;
    let seen = version_of(aws.version("aws://app").await);
    assert_ne!(seen, before);
    assert_eq!(seen.label(), second);
    assert_eq!((aws.text("aws://app").await, aws.secret("aws://app").await.version), (new.clone(), seen));
    assert_eq!(aws.text("aws://app?stage=AWSPREVIOUS").await, old);
    assert_eq!(version_of(aws.version("aws://app?stage=AWSPREVIOUS").await), before);
    let first = made["VersionId"].as_str().unwrap();
    assert_eq!(aws.text(&format!("aws://app?version={first}")).await, old);
    assert_eq!(version_of(aws.version(&format!("aws://app?version={first}")).await).label(), first);
    assert_eq!(aws.text(&format!("aws://app?version={second}")).await, new);
}

#[tokio::test]
async fn a_secret_is_looked_for_in_the_region_that_the_reference_its_arn_or_the_settings_name() {
    let world = World::new().await;
    world.moto.create("app", "frankfurt").await;
    let body = json!({"Name": "app", "SecretString": "virginia"});
    let made = world.moto.call("us-east-1", "CreateSecret", body).await;
    let aws = world.aws("");
    assert_eq!(aws.text("aws://app").await, "frankfurt");
    assert_eq!(aws.text("aws://app?region=us-east-1").await, "virginia");
    assert_eq!(aws.text(&format!("aws://{}", made["ARN"].as_str().unwrap())).await, "virginia");
    let regions: Vec<_> = world.gate.calls().into_iter().map(|call| call.region).collect();
    assert_eq!(regions, ["eu-central-1", "us-east-1", "us-east-1"]);
}

#[tokio::test]
async fn what_is_missing_deleted_or_without_a_value_says_so() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    world.moto.create("gone", "x").await;
    world.moto.call("eu-central-1", "DeleteSecret", json!({"SecretId": "gone"})).await;
    world.moto.call("eu-central-1", "CreateSecret", json!({"Name": "empty"})).await;
    let aws = world.aws("");
    for (reference, read, checked) in [
        (
            "aws://none",
            "there is no secret none in this region: create it, or correct the reference",
            "there is no secret none in this region: create it, or correct the reference",
        ),
        (
            "aws://app?stage=BLUE",
            "there is no app with stage BLUE: correct `?stage=` or the name",
            "no version of app has stage BLUE: correct `?stage=`, or move the stage",
        ),
        (
            "aws://gone",
            "gone is marked for deletion: restore it (RestoreSecret), or correct the reference",
            "gone is marked for deletion: restore it (RestoreSecret), or correct the reference",
        ),
        ("aws://empty", "empty has no value yet: put one", "empty has no value yet: put one"),
    ] {
        assert_eq!(
            world.refused(&aws, reference).await,
            (ErrorKind::NotFound, format!("aws (eu-central-1): {read}")),
            "{reference}"
        );
        let error = aws.version(reference).await.unwrap_err();
        assert_eq!(
            (error.kind(), world.message(&error)),
            (ErrorKind::NotFound, format!("aws (eu-central-1): {checked}"))
        );
    }
    let pinned = format!("aws://app?version={}", "0".repeat(36));
    assert!(world.refused(&aws, &pinned).await.1.contains("of version 000"));
    let many = aws.versions(&["aws://app", "aws://none", "aws://gone"].map(id)).await;
    assert!(many[0].is_ok() && many[1].is_err() && many[2].is_err(), "each by itself: {many:?}");
}
