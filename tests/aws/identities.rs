//! How a host proves who it is: instance metadata, container endpoints, web identity, roles, profiles.

use crate::{
    support::{
        aws::{gate::Key, identity::Identity},
        bao::{eventually, unique},
    },
    world::{Instance, World, id},
};
use dso::{findings::Level, provider::ErrorKind};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const APP: &str = "aws://app";

/// Reads again and again for a while; every read must succeed.
async fn under_load(aws: &Instance, time: Duration) -> usize {
    let (end, mut reads) = (Instant::now() + time, 0);
    while Instant::now() < end {
        for secret in futures_util::future::join_all((0..4).map(|_| aws.text(APP))).await {
            assert_eq!(secret, "x");
            reads += 1;
        }
        sleep(Duration::from_millis(100)).await;
    }
    reads
}

#[tokio::test]
async fn an_instance_proves_itself_by_version_2_of_its_metadata_service_which_also_tells_the_region() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    let imds = Identity::instance(&world.gate).await;
    let aws = world.plain(&format!("imds_endpoint = '{}'", imds.address()));
    assert_eq!(aws.text(APP).await, "x");
    assert_eq!(aws.text(APP).await, "x");
    assert_eq!((imds.given(), imds.refused()), (1, vec![]), "asked once, and never as version 1");
    assert_eq!(world.gate.calls()[0].region, "eu-central-1");
    imds.tokens().iter().for_each(|token| drop(world.guard(token)));
    let told = aws.provider().examine().await;
    assert!(told[0].level == Level::Ok && told[0].message.contains(", good for "), "{told:?}");
}

#[tokio::test]
async fn an_examination_tells_that_there_is_no_identity_and_what_to_give() {
    let world = World::new().await;
    let aws = world.plain("region = 'eu-central-1'\nimds_endpoint = 'http://127.0.0.1:1'\ntimeout = '5s'");
    let told = aws.provider().examine().await;
    assert!(told[0].level == Level::Error && told[0].message.contains("the host has no identity"), "{told:?}");
    assert!(!told[0].advice.is_empty());
}

#[tokio::test]
async fn a_region_that_nobody_tells_is_asked_for_and_a_reference_that_names_one_needs_no_other() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    let imds = Identity::instance(&world.gate).await;
    imds.hide_region();
    let aws = world.plain(&format!("imds_endpoint = '{}'", imds.address()));
    let told = "aws: the region is not known: set `region` (or AWS_REGION), or add `?region=` to the reference";
    assert_eq!(world.refused(&aws, APP).await, (ErrorKind::Misconfigured, told.into()));
    for _ in 0..2 {
        assert_eq!(aws.text("aws://app?region=eu-central-1").await, "x");
    }
    assert_eq!(imds.given(), 1);
}

#[tokio::test]
async fn a_host_without_any_identity_is_told_what_to_give_it() {
    let world = World::new().await;
    let nobody = "region = 'eu-central-1'\nimds_endpoint = 'http://127.0.0.1:1'\ntimeout = '5s'";
    let told = "aws (eu-central-1): the host has no identity: give the instance a role, or set the container's, web \
                identity's or profile's settings";
    assert_eq!(world.refused(&world.plain(nobody), APP).await, (ErrorKind::Unauthenticated, told.into()));
}

#[tokio::test]
async fn the_metadata_service_of_these_tests_refuses_version_1() {
    let world = World::new().await;
    let imds = Identity::instance(&world.gate).await;
    let get = reqwest::get(format!("{}/latest/meta-data/iam/security-credentials/", imds.address())).await;
    assert_eq!(get.unwrap().status(), 401);
    let put = reqwest::Client::new().put(format!("{}/latest/api/token", imds.address())).send().await;
    assert_eq!(put.unwrap().status(), 400);
    assert_eq!(imds.refused().len(), 2);
}

#[tokio::test]
async fn credentials_that_end_every_5_s_are_renewed_ahead_and_no_read_fails() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    let imds = Identity::instance(&world.gate).await;
    imds.last(Duration::from_secs(5));
    let aws = world.plain(&format!("region = 'eu-central-1'\nimds_endpoint = '{}'", imds.address()));
    let reads = under_load(&aws, Duration::from_secs(12)).await;
    assert!(reads > 40 && (3..=8).contains(&imds.given()), "{reads} reads, {} logins", imds.given());
    assert_eq!((world.gate.refused(), imds.refused()), (vec![], vec![]));
    imds.tokens().iter().for_each(|token| drop(world.guard(token)));
}

#[tokio::test]
async fn a_containers_token_is_read_anew_from_its_file() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    world.identity.last(Duration::from_secs(5));
    let aws = world.aws("");
    assert_eq!(aws.text(APP).await, "x");
    world.write("token", &world.guard(&format!("token-{}", unique())));
    under_load(&aws, Duration::from_secs(7)).await;
    assert!(world.identity.given() >= 2);
    assert_eq!(world.identity.refused(), Vec::<String>::new());
}

#[tokio::test]
async fn a_key_that_aws_takes_no_more_is_replaced_without_a_failure() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    let aws = world.aws("");
    assert_eq!(aws.text(APP).await, "x");
    // Credentials that are younger are taken for what they are.
    sleep(Duration::from_millis(1100)).await;
    world.gate.revoke(&world.identity.key());
    assert_eq!(aws.text(APP).await, "x");
    assert_eq!((world.identity.given(), world.gate.refused().len()), (2, 1));
}

#[tokio::test]
async fn an_endpoint_of_credentials_that_fails_leaves_the_old_ones_in_use_and_is_told_without_them() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    world.identity.last(Duration::from_secs(8));
    let aws = world.aws("");
    assert_eq!(aws.text(APP).await, "x");
    world.identity.ready(false);
    // Past the time of renewal.
    under_load(&aws, Duration::from_millis(6500)).await;
    let told = "aws (eu-central-1): whoever gives the host its credentials (instance metadata, container endpoint, STS) \
                failed: it will be asked again";
    let refusal = async || aws.read(&id(APP)).await.err().map(|error| (error.kind(), world.message(&error)));
    let refused = Some((ErrorKind::Unavailable, told.to_owned()));
    eventually("they have ended", async || refusal().await == refused).await;
    world.identity.ready(true);
    eventually("there are new ones", async || refusal().await.is_none()).await;
}

#[tokio::test]
async fn a_wrong_token_for_the_containers_endpoint_is_told_without_it() {
    let world = World::new().await;
    let other = Identity::container(&world.gate, Some(world.etc.path().join("other"))).await;
    world.write("other", "another");
    let settings = format!(
        "region = 'eu-central-1'\ncontainer_uri = '{}/credentials'\ncontainer_token_file = '/etc/dso/token'",
        other.address()
    );
    let (kind, told) = world.refused(&world.plain(&settings), APP).await;
    assert_eq!((kind, other.refused()), (ErrorKind::Unavailable, vec!["another token".to_owned()]), "{told}");
    let settings = settings.replace("/etc/dso/token", "/etc/dso/none");
    let (kind, told) = world.refused(&world.plain(&settings), APP).await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert!(told.contains("the token file of the host's identity cannot be read"), "{told}");
}

#[tokio::test]
async fn a_role_is_taken_on_with_its_external_id_and_not_without() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    world.gate.ask_for_external_id("partner-1");
    let role = "role_arn = 'arn:aws:iam::123456789012:role/reader'";
    let (kind, told) = world.refused(&world.aws(role), APP).await;
    assert_eq!(kind, ErrorKind::Forbidden);
    assert!(told.contains("does not let the host take on `role_arn`: allow sts:AssumeRole"), "{told}");
    let aws = world.aws(&format!("{role}\nexternal_id = 'partner-1'\nsession_name = 'host-7'"));
    assert_eq!(aws.text(APP).await, "x");
    let last = world.gate.calls().pop().unwrap();
    assert_ne!(last.key, world.identity.key(), "the read is the role's");
}

#[tokio::test]
async fn a_role_whose_sessions_end_every_5_s_is_taken_on_again_ahead() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    world.gate.end_sessions_after(Duration::from_secs(5));
    let aws = world.aws("role_arn = 'arn:aws:iam::123456789012:role/reader'");
    under_load(&aws, Duration::from_secs(12)).await;
    assert!((3..=8).contains(&world.gate.count("AssumeRole")), "{}", world.gate.count("AssumeRole"));
    assert_eq!(world.gate.refused(), Vec::<String>::new());
}

#[tokio::test]
async fn a_web_identity_is_proved_by_the_token_in_its_file() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    let settings = "region = 'eu-central-1'\nweb_identity_token_file = '/etc/dso/web'\n\
                    web_identity_role_arn = 'arn:aws:iam::123456789012:role/web'";
    let token = world.guard(&format!("jwt.{}", unique()));
    world.write("web", &token);
    world.gate.take_web_token("another");
    let (kind, told) = world.refused(&world.plain(settings), APP).await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert!(told.contains("AWS does not take the host's token"), "{told}");
    world.gate.take_web_token(&token);
    let aws = world.plain(settings);
    assert_eq!(aws.text(APP).await, "x");
    assert_eq!(world.gate.count("AssumeRoleWithWebIdentity"), 2);
}

#[tokio::test]
async fn a_developers_profile_is_read_from_its_file_and_again_when_that_changes() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    let settings = "region = 'eu-central-1'\nprofile = 'work'\ncredentials_file = '/etc/dso/credentials'";
    let aws = world.plain(settings);
    for _ in 0..2 {
        let (key, secret) = (format!("AKIA{}", &unique()[..16]), unique());
        world.gate.admit(&key, Key { secret: secret.clone(), session: None, ends: None });
        world.write("credentials", &format!("[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"));
        assert_eq!(aws.text(APP).await, "x");
        assert_eq!(world.gate.calls().pop().unwrap().key, key);
    }
}
