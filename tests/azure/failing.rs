//! What goes wrong at Azure, and what a person is told.

use crate::{
    support::{
        azure::vault::{Fault, error, forbidden},
        server::Reply,
    },
    world::{World, id},
};
use dso::provider::ErrorKind;
use std::time::Duration;
use tokio::time::Instant;

const DB: &str = "azure://corp/db";

#[tokio::test]
async fn each_answer_has_its_class_and_says_what_to_do() {
    let world = World::new().await;
    world.vault.put("db", "x");
    let azure = world.azure("");
    let role = "give the host's identity the role \"Key Vault Secrets User\" on the vault or this secret, or the permission `get` in the vault's access policies";
    let firewall = "the vault's firewall keeps this host out: allow its address or network, or use a private endpoint";
    for (reply, kind, told) in [
        (forbidden("ForbiddenByRbac"), ErrorKind::Forbidden, format!("403 ForbiddenByRbac for db: {role}")),
        (forbidden("AccessDenied"), ErrorKind::Forbidden, format!("403 AccessDenied for db: {role}")),
        (Reply::new(403, ""), ErrorKind::Forbidden, format!("403 Forbidden for db: {role}")),
        (forbidden("ForbiddenByFirewall"), ErrorKind::Forbidden, format!("403 ForbiddenByFirewall: {firewall}")),
        (
            error(400, "BadParameter", None, "The request URI contains an invalid name: canary"),
            ErrorKind::Misconfigured,
            "400 BadParameter for db: Key Vault does not take such a name or version".into(),
        ),
        (
            error(429, "Throttled", None, "Request was not processed because too many requests were received."),
            ErrorKind::Throttled,
            "429 too many requests: dso asks again later".into(),
        ),
        (
            error(500, "InternalServerError", None, "canary"),
            ErrorKind::Unavailable,
            "500 the vault failed: it will be asked again".into(),
        ),
        (Reply::new(503, "<html>"), ErrorKind::Unavailable, "503 the vault failed: it will be asked again".into()),
        (
            Reply::new(302, "").header("location", "https://evil.vault.test/"),
            ErrorKind::Redirected,
            "302 the vault sends to another address, where dso does not follow: check its name".into(),
        ),
        (
            Reply::new(418, "x"),
            ErrorKind::Malformed,
            "418 for db is not what Key Vault answers: check the vault's name".into(),
        ),
        (
            Reply::new(200, "<html>"),
            ErrorKind::Malformed,
            "the answer to get db is not what Key Vault answers: check the vault's name".into(),
        ),
        (
            Reply::new(200, "{}"),
            ErrorKind::Malformed,
            "the answer to get db is not what Key Vault answers: check the vault's name".into(),
        ),
    ] {
        world.vault.fail("get", 1, Fault::Answer(reply));
        assert_eq!(world.refused(&azure, DB).await, (kind, format!("azure (corp.vault.test): {told}")));
    }
    assert_eq!(azure.text(DB).await, "x");
    assert_eq!(world.vault.count("get"), 13, "nothing is tried again behind the seam's back");
}

#[tokio::test]
async fn a_pause_that_azure_asks_for_is_passed_on() {
    let world = World::new().await;
    let azure = world.azure("");
    for (name, value, delay) in
        [("retry-after", "7", Duration::from_secs(7)), ("x-ms-retry-after-ms", "1500", Duration::from_millis(1500))]
    {
        let reply = error(429, "Throttled", None, "").header(name, value);
        world.vault.fail("get", 1, Fault::Answer(reply));
        let told = azure.read(&id(DB)).await.unwrap_err();
        assert_eq!((told.kind(), told.delay()), (ErrorKind::Throttled, Some(delay)));
    }
}

#[tokio::test]
async fn a_vault_that_hangs_breaks_off_or_is_not_there_is_told_in_time() {
    let world = World::new().await;
    world.vault.put("db", &world.canary());
    let azure = world.azure("timeout = '500ms'");
    azure.secret(DB).await;
    world.vault.fail("get", 1, Fault::Hang);
    let start = Instant::now();
    let told = "azure (corp.vault.test): no answer of corp.vault.test in time: is it reachable from this host?";
    assert_eq!(world.refused(&azure, DB).await, (ErrorKind::Timeout, told.into()));
    assert!(start.elapsed() < Duration::from_secs(3));
    world.vault.fail("get", 1, Fault::Cut);
    let told = "azure (corp.vault.test): the connection to corp.vault.test broke before the whole answer was there";
    assert_eq!(world.refused(&azure, DB).await, (ErrorKind::Unreachable, told.into()));
    // The vaults of the public cloud, at a port where nobody is.
    let nobody = world.azure("");
    let told = "azure (corp.vault.azure.net): connection refused by corp.vault.azure.net: check its address";
    assert_eq!(world.refused(&nobody, "azure://corp.vault.azure.net/db").await, (ErrorKind::Unreachable, told.into()));
}

#[tokio::test]
async fn a_vault_is_trusted_by_the_cas_in_the_file_and_by_no_other() {
    let world = World::new().await;
    let canary = world.canary();
    world.vault.put("db", &canary);
    let identity = format!("auth.metadata_endpoint = '{}'", world.machine.address());
    let untrusted = world.instance(&identity);
    let told = "azure (corp.vault.test): the certificate of corp.vault.test is not trusted: set `ca_file` to the PEM file of the CA that issued it";
    assert_eq!(world.refused(&untrusted, DB).await, (ErrorKind::Tls, told.into()));
    let azure = world.azure("");
    assert_eq!(azure.text(DB).await, canary);
    let right = std::fs::read_to_string(world.certificates.ca_file()).unwrap();
    world.write("ca.pem", "no certificate");
    let told = "azure (corp.vault.test): the CA certificates in /etc/dso/ca.pem cannot be used: it has no PEM certificate: check `ca_file`";
    assert_eq!(world.refused(&azure, DB).await, (ErrorKind::Misconfigured, told.into()));
    world.write("ca.pem", &right);
    assert_eq!(azure.text(DB).await, canary, "a file that was replaced is used at once");
}

#[tokio::test]
async fn a_vault_that_asks_for_a_token_of_another_service_gets_none() {
    let world = World::new().await;
    world.vault.put("db", "x");
    for resource in ["https://management.azure.com", "https://other.test", "https://ault.test", "no url"] {
        world.vault.challenge(resource);
        let told = "azure (corp.vault.test): the vault asks for a token of another service: none was sent; check the vault's name and `dns_suffix`";
        let azure = world.azure("");
        let (kind, text) = world.refused(&azure, DB).await;
        assert_eq!(kind, ErrorKind::Malformed, "{resource}: {text}");
        if resource != "no url" {
            assert_eq!(text, told);
        }
    }
    assert_eq!((world.machine.asked().len(), world.directory.issued().len()), (0, 0), "none was even asked for");
    assert!(world.vault.refused().iter().all(|why| why == "no token"));
}
