//! What goes wrong at AWS, and what a person is told.

use crate::{
    support::{
        aws::gate::{Fault, Key},
        bao::Bao,
        proxy::Proxy,
        server::Reply,
    },
    world::{World, id},
};
use dso::provider::ErrorKind;
use std::time::Duration;
use tokio::time::Instant;

fn fault(status: u16, code: &str) -> Fault {
    Fault::Answer(Reply::fault(status, code))
}

#[tokio::test]
async fn each_answer_has_its_class_and_says_what_to_do() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    let aws = world.aws("");
    for (status, code, kind, told) in [
        (
            400,
            "AccessDeniedException",
            ErrorKind::Forbidden,
            "AccessDeniedException for app: allow secretsmanager:GetSecretValue on it in the identity's policy, and see whether the secret's own policy denies it",
        ),
        (
            400,
            "DecryptionFailure",
            ErrorKind::Forbidden,
            "DecryptionFailure for app: allow kms:Decrypt on the secret's key to the identity, and keep the key enabled",
        ),
        (
            400,
            "ThrottlingException",
            ErrorKind::Throttled,
            "ThrottlingException: too many requests: dso asks again later",
        ),
        (429, "", ErrorKind::Throttled, "429 too many requests: dso asks again later"),
        (
            500,
            "InternalServiceError",
            ErrorKind::Unavailable,
            "500 AWS failed at GetSecretValue: it will be asked again",
        ),
        (503, "", ErrorKind::Unavailable, "503 AWS failed at GetSecretValue: it will be asked again"),
        (
            400,
            "InvalidParameterException",
            ErrorKind::Misconfigured,
            "InvalidParameterException for app: AWS does not take such a name, version or stage",
        ),
    ] {
        world.gate.fail("GetSecretValue", 1, fault(status, code));
        assert_eq!(world.refused(&aws, "aws://app").await, (kind, format!("aws (eu-central-1): {told}")));
    }
    assert_eq!(aws.text("aws://app").await, "x");
    assert_eq!(world.gate.count("GetSecretValue"), 8, "nothing is tried again behind the seam's back");
}

#[tokio::test]
async fn an_endpoint_that_hangs_breaks_off_or_is_not_there_is_told_in_time() {
    let world = World::new().await;
    world.moto.create("app", &world.canary()).await;
    let aws = world.aws("timeout = '500ms'");
    aws.secret("aws://app").await;
    world.gate.fail("GetSecretValue", 1, Fault::Hang);
    let start = Instant::now();
    let told = world.refused(&aws, "aws://app").await;
    assert_eq!(told.0, ErrorKind::Timeout, "{}", told.1);
    assert!(start.elapsed() < Duration::from_secs(3));
    world.gate.fail("GetSecretValue", 1, Fault::Cut);
    let broken = "aws (eu-central-1): the connection broke before the whole answer was there";
    assert_eq!(world.refused(&aws, "aws://app").await, (ErrorKind::Unreachable, broken.into()));
    world.gate.fail("GetSecretValue", 1, Fault::Answer(Reply::new(200, "<html>")));
    let told = world.refused(&aws, "aws://app").await;
    assert_eq!(told.0, ErrorKind::Malformed, "{}", told.1);
    world.gate.fail("GetSecretValue", 1, Fault::Answer(Reply::new(200, "{}")));
    assert_eq!(world.refused(&aws, "aws://app").await.0, ErrorKind::Malformed);
    let aws = world.at("http://127.0.0.1:1", "");
    let error = aws.read(&id("aws://app")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Unreachable, "aws (eu-central-1): connection refused: check `endpoint`")
    );
}

#[tokio::test]
async fn a_signature_by_another_key_is_refused_by_the_gate_and_told() {
    let world = World::new().await;
    world.moto.create("app", "x").await;
    let aws = world.aws("");
    aws.secret("aws://app").await;
    // AWS knows another secret for the key that the host has.
    world.gate.admit(&world.identity.key(), Key { secret: "another".into(), session: None, ends: None });
    let (kind, told) = world.refused(&aws, "aws://app").await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert!(told.starts_with("aws (eu-central-1): InvalidSignatureException: "), "{told}");
    assert_eq!(world.gate.refused(), ["GetSecretValue: a wrong signature"]);
}

#[tokio::test]
async fn an_endpoint_is_trusted_by_the_cas_in_its_file_and_by_no_other() {
    let world = World::new().await;
    let canary = world.canary();
    world.moto.create("app", &canary).await;
    let bao = Bao::start_tls().await;
    let tls = Proxy::before_tls(&world.moto.address, "127.0.0.1", bao.cert_files()).await;
    let untrusted = world.at(tls.address(), "");
    let told = "aws (eu-central-1): the endpoint's certificate is not trusted: set `ca_file` to the PEM file of the CA that issued it";
    assert_eq!(world.refused(&untrusted, "aws://app").await, (ErrorKind::Tls, told.into()));
    world.write("ca.pem", "no certificate");
    let aws = world.at(tls.address(), "ca_file = '/etc/dso/ca.pem'");
    let told = "aws (eu-central-1): the CA certificates in /etc/dso/ca.pem cannot be used: it has no PEM certificate: check `ca_file`";
    assert_eq!(world.refused(&aws, "aws://app").await, (ErrorKind::Misconfigured, told.into()));
    world.write("ca.pem", &std::fs::read_to_string(bao.ca_file()).unwrap());
    assert_eq!(aws.text("aws://app").await, canary, "a file that was replaced is used at once");
}
