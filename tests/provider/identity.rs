//! Logins with an identity that the host has: a JWT, a certificate, the metadata of a cloud.

use crate::{
    capture,
    cloud::{Cloud, Kind},
    signer::{Authority, Signer},
    support::bao::{Bao, eventually, unique},
    world::{Instance, World, id},
};
use dso::provider::ErrorKind;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const POLICY: &str = r#"path "secret/data/*" { capabilities = ["read"] }"#;

/// A server with a secret, and its method `jwt` at `mount` that trusts one key; `role` has more settings.
async fn trusting(mount: &str, key: &str, role: Value) -> World {
    let world = World::new().await;
    world.remove("vault-token");
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.policy("p", POLICY).await;
    world.bao.api("POST", &format!("sys/auth/{mount}"), json!({"type": "jwt"})).await;
    world.bao.api("POST", &format!("auth/{mount}/config"), json!({"jwt_validation_pubkeys": [key]})).await;
    let mut settings = json!({"role_type": "jwt", "user_claim": "sub", "token_policies": "p"});
    settings.as_object_mut().unwrap().extend(role.as_object().cloned().unwrap());
    world.bao.api("POST", &format!("auth/{mount}/role/web"), settings).await;
    world
}

fn logins(world: &World, mount: &str) -> usize {
    world.proxy.count("POST", &format!("/auth/{mount}/login"))
}

/// Writes a JWT for the audience `vault`.
fn write_jwt(world: &World, signer: &Signer, audience: &str, seconds: i64) {
    let token = signer.token(json!({"sub": "host-1", "aud": audience}), seconds);
    world.write("jwt", &format!("{}\n", world.guard(&token)));
}

fn jwt(world: &World) -> Instance {
    world.vault("auth.method = 'jwt'\nauth.role = 'web'\nauth.jwt_file = '/etc/dso/jwt'")
}

#[tokio::test]
async fn a_jwt_from_a_file_logs_in() {
    let signer = Signer::new();
    let world = trusting("jwt", &signer.public_key(), json!({"bound_audiences": "vault"})).await;
    write_jwt(&world, &signer, "vault", 60);
    assert_eq!(jwt(&world).value("vault://secret/a").await, json!({"n": 1}));
    assert_eq!(logins(&world, "jwt"), 1);
}

#[tokio::test]
async fn a_jwt_that_is_refused_is_told_and_the_next_one_is_used_at_once() {
    let (signer, other) = (Signer::new(), Signer::new());
    let world = trusting("jwt", &signer.public_key(), json!({"bound_audiences": "vault"})).await;
    let vault = jwt(&world);
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert_eq!(
        message,
        "vault (ADDRESS): no JWT: cannot read /etc/dso/jwt: No such file or directory (os error 2); put one there, or \
         name its file by `auth.jwt_file`"
    );
    for (signed_by, audience, seconds) in [(&signer, "vault", -600), (&signer, "other", 60), (&other, "vault", 60)] {
        write_jwt(&world, signed_by, audience, seconds);
        let (kind, message) = world.refused(&vault, "vault://secret/a").await;
        assert_eq!(kind, ErrorKind::Unauthenticated, "{message}");
        assert_eq!(
            message,
            "vault (ADDRESS): 400 the login at auth/jwt/login was refused: the JWT in /etc/dso/jwt has expired, or its \
             issuer, audience or claims are not those of role `web`; or no method is enabled there (`auth.mount`), or the \
             role does not accept this host's address. The server's log tells which"
        );
    }
    write_jwt(&world, &signer, "vault", 60);
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}));
    assert_eq!(logins(&world, "jwt"), 4, "one for each file");
}

#[tokio::test]
async fn a_rotated_jwt_is_sent_with_the_next_login() {
    let signer = Signer::new();
    let role = json!({"bound_audiences": "vault", "token_ttl": "2s", "token_max_ttl": "2s", "clock_skew_leeway": -1, "expiration_leeway": -1});
    let world = trusting("jwt", &signer.public_key(), role).await;
    write_jwt(&world, &signer, "vault", 4);
    let vault = jwt(&world).running();
    // Two files later the first JWT is long out of date.
    let end = Instant::now() + Duration::from_secs(9);
    let mut rotated = Instant::now();
    while Instant::now() < end {
        if rotated.elapsed() > Duration::from_secs(2) {
            write_jwt(&world, &signer, "vault", 4);
            rotated = Instant::now();
        }
        vault.secret("vault://secret/a").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(logins(&world, "jwt") >= 4);
}

#[tokio::test]
async fn tokens_of_5_s_under_load_fail_no_read_and_logins_are_bounded() {
    const TIME: u64 = 21;
    let signer = Signer::new();
    let role = json!({"bound_audiences": "vault", "token_ttl": "5s", "token_max_ttl": "5s"});
    let world = trusting("jwt", &signer.public_key(), role).await;
    write_jwt(&world, &signer, "vault", 300);
    let vault = jwt(&world).running();
    let (end, reads) = (Instant::now() + Duration::from_secs(TIME), std::cell::Cell::new(0));
    let reader = async || {
        while Instant::now() < end {
            vault.secret("vault://secret/a").await;
            reads.set(reads.get() + 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    futures_util::future::join_all((0..20).map(|_| reader())).await;
    let (logins, most) = (logins(&world, "jwt"), TIME as usize * 3 / 10 + 1);
    println!("{} reads, {logins} logins, at most {most} are allowed", reads.get());
    assert!(reads.get() > 1000 && (4..=most).contains(&logins), "{logins} logins");
}

#[tokio::test]
async fn a_kubernetes_token_file_logs_in_at_its_own_mount() {
    let signer = Signer::new();
    let world = trusting("kubernetes", &signer.public_key(), json!({"bound_audiences": "vault"})).await;
    let token = signer.token(json!({"sub": "system:serviceaccount:default:dso", "aud": "vault"}), 60);
    world.write("kubernetes-token", &world.guard(&token));
    let vault = world.vault("auth.method = 'kubernetes'\nauth.role = 'web'");
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}));
    assert_eq!(logins(&world, "kubernetes"), 1);
}

/// A server with TLS that trusts an authority's clients of one name.
async fn trusting_certificates(authority: &Authority) -> World {
    let world = World::with(Bao::start_tls().await).await;
    world.remove("vault-token");
    world.write("ca.pem", &std::fs::read_to_string(world.bao.ca_file()).unwrap());
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.policy("p", POLICY).await;
    world.bao.api("POST", "sys/auth/cert", json!({"type": "cert"})).await;
    trust(&world, authority).await;
    world
}

async fn trust(world: &World, authority: &Authority) {
    let role = json!({
        "certificate": authority.certificate(), "allowed_common_names": "host-1", "token_policies": "p",
        "token_ttl": "3s",
    });
    world.bao.api("POST", "auth/cert/certs/web", role).await;
}

fn write_pair(world: &World, (certificate, key): (String, String)) {
    world.write("cert.pem", &certificate);
    world.guard(key.lines().nth(2).unwrap());
    world.write("key.pem", &key);
}

fn cert(world: &World, role: &str) -> Instance {
    named_cert(world, "vault", role)
}

fn named_cert(world: &World, name: &str, role: &str) -> Instance {
    let files = "auth.cert_file = '/etc/dso/cert.pem'\nauth.key_file = '/etc/dso/key.pem'";
    world.named(
        name,
        &world.bao.address,
        &format!("ca_file = '/etc/dso/ca.pem'\nauth.method = 'cert'\n{files}\n{role}"),
    )
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_another_name_does_not() {
    let authority = Authority::new();
    let world = trusting_certificates(&authority).await;
    let vault = cert(&world, "auth.role = 'web'");
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert!(
        message
            .ends_with("no client certificate: cannot read /etc/dso/cert.pem: No such file or directory (os error 2)"),
        "{message}"
    );
    write_pair(&world, authority.issue("host-2"));
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert!(
        message.contains(
            "the certificate in /etc/dso/cert.pem has expired, or role `web` does not trust its issuer or its names"
        ),
        "{message}"
    );
    write_pair(&world, authority.issue("host-1"));
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}));
    assert_eq!(cert(&world, "").value("vault://secret/a").await, json!({"n": 1}), "the server finds the role");
}

#[tokio::test]
async fn a_renewed_certificate_takes_over_file_by_file_and_no_read_fails() {
    let (before, after) = (Authority::new(), Authority::new());
    let world = trusting_certificates(&before).await;
    write_pair(&world, before.issue("host-1"));
    let vault = named_cert(&world, "renewing", "auth.role = 'web'").running();
    vault.secret("vault://secret/a").await;
    let (certificate, key) = after.issue("host-1");
    world.write("cert.pem", &certificate);
    vault.secret("vault://secret/a").await;
    trust(&world, &after).await;
    world.write("key.pem", &key);
    // Past the life of the first token, which the new certificate may not renew.
    let end = Instant::now() + Duration::from_secs(7);
    while Instant::now() < end {
        vault.secret("vault://secret/a").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(capture::contains(r#"logged in provider="renewing""#));
    // The server would refuse it: the token is of another certificate.
    for line in ["cannot renew the token", "cannot renew the token yet"] {
        assert!(!capture::contains(&format!("{line} provider=\"renewing\"")), "{line}");
    }
}

#[tokio::test]
async fn a_key_of_another_certificate_is_told() {
    let authority = Authority::new();
    let world = trusting_certificates(&authority).await;
    write_pair(&world, (authority.issue("host-1").0, authority.issue("host-1").1));
    let (kind, message) = world.refused(&cert(&world, ""), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert!(message.contains("/etc/dso/key.pem is not the key of the certificate in /etc/dso/cert.pem"), "{message}");
}

const AZURE: &str = "https://management.azure.com/";

async fn on_azure(cloud: &Cloud) -> World {
    trusting("azure", &cloud.public_key(), json!({"bound_audiences": AZURE, "bound_subject": "principal-1"})).await
}

fn azure(world: &World, cloud: &Cloud, more: &str) -> Instance {
    let endpoint = format!("auth.metadata_endpoint = '{}'", cloud.address);
    world.vault(&format!("auth.method = 'azure'\nauth.role = 'web'\n{endpoint}\n{more}"))
}

fn guard_issued(world: &World, cloud: &Cloud) {
    assert!(!cloud.issued().is_empty());
    for token in cloud.issued() {
        world.guard(&token);
    }
}

#[tokio::test]
async fn a_managed_identity_of_azure_logs_in_and_names_its_machine() {
    let cloud = Cloud::start(Kind::Machine).await;
    let world = on_azure(&cloud).await;
    assert_eq!(azure(&world, &cloud, "").value("vault://secret/a").await, json!({"n": 1}));
    let mut sent = world.proxy.sent("/auth/azure/login");
    sent["jwt"].take();
    assert_eq!(
        sent,
        json!({
            "role": "web", "jwt": null, "subscription_id": "subscription-1", "resource_group_name": "group-1",
            "vm_name": "vm-1",
        })
    );
    assert_eq!(cloud.refused(), [0u16; 0]);
    guard_issued(&world, &cloud);
}

#[tokio::test]
async fn what_azure_refuses_is_told() {
    let cloud = Cloud::start(Kind::Machine).await;
    let world = on_azure(&cloud).await;
    let (kind, message) = world.refused(&azure(&world, &cloud, "auth.client_id = 'x'"), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert_eq!(
        message.replace(&cloud.address, "METADATA"),
        "vault (ADDRESS): the instance metadata service at METADATA: 400 no token for `https://management.azure.com/`: \
         assign a managed identity to this machine (of several, name one by `auth.client_id`, `auth.object_id` or \
         `auth.identity_id`), and check `auth.resource`"
    );
    let known = azure(&world, &cloud, "auth.client_id = 'known-client'");
    assert_eq!(known.value("vault://secret/a").await, json!({"n": 1}));
    let (kind, message) =
        world.refused(&azure(&world, &cloud, "auth.resource = 'https://x'"), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert!(message.contains("the token's audience `https://x` is not the method's `resource`"), "{message}");
    guard_issued(&world, &cloud);
}

#[tokio::test]
async fn a_metadata_service_that_is_busy_is_asked_again_when_it_says() {
    let cloud = Cloud::start(Kind::Machine).await;
    let world = on_azure(&cloud).await;
    let vault = azure(&world, &cloud, "");
    cloud.fail(429, Some("2"));
    cloud.fail(410, None);
    let started = Instant::now();
    let error = vault.read(&id("vault://secret/a")).await.unwrap_err();
    assert_eq!((error.kind(), error.delay()), (ErrorKind::Throttled, Some(Duration::from_secs(2))));
    eventually("the login", async || vault.read(&id("vault://secret/a")).await.is_ok()).await;
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(cloud.refused(), [429, 410]);
}

#[tokio::test]
async fn an_endpoint_of_app_service_logs_in_with_its_header() {
    let word = format!("header-{}", unique());
    let cloud = Cloud::start(Kind::AppService(word.clone())).await;
    let world = on_azure(&cloud).await;
    let endpoint = format!("{}/msi/token", cloud.address);
    let vault = world.vault(&format!(
        "auth.method = 'azure'\nauth.role = 'web'\nauth.identity_endpoint = '{endpoint}'\n\
         auth.identity_header_file = '/etc/dso/header'"
    ));
    world.write("header", &world.guard(&format!("wrong-{word}")));
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert!(message.contains("401 it refuses to answer this host"), "{message}");
    world.write("header", &world.guard(&word));
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}));
    guard_issued(&world, &cloud);
}

fn gcp(world: &World, endpoint: &str, more: &str) -> Instance {
    world.vault(&format!("auth.method = 'gcp'\nauth.role = 'web'\nauth.metadata_endpoint = '{endpoint}'\n{more}"))
}

#[tokio::test]
async fn a_google_service_account_logs_in_with_an_identity_token_of_its_instance() {
    let cloud = Cloud::start(Kind::Google).await;
    // The claim that `format=full` alone gives is bound, as a role of type `gce` does.
    let role = json!({
        "bound_audiences": "http://vault/web",
        "bound_claims": {"/google/compute_engine/instance_name": "vm-1"},
    });
    let world = trusting("gcp", &cloud.public_key(), role).await;
    assert_eq!(gcp(&world, &cloud.address, "").value("vault://secret/a").await, json!({"n": 1}));
    let (kind, message) =
        world.refused(&gcp(&world, &cloud.address, "auth.service_account = 'x'"), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert!(message.contains("404 there is no service account `x` on this instance"), "{message}");
    assert_eq!(cloud.refused(), [404]);
    guard_issued(&world, &cloud);
}

#[tokio::test]
async fn what_is_no_metadata_server_is_told_apart() {
    let azure = Cloud::start(Kind::Machine).await;
    let google = Cloud::start(Kind::Google).await;
    let world = trusting("gcp", &google.public_key(), json!({"bound_audiences": "http://vault/web"})).await;
    // Another server answers at the name, without the header that Google's has.
    google.fail(200, None);
    let (kind, message) = world.refused(&gcp(&world, &google.address, ""), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Malformed);
    assert!(message.ends_with("what answers there is not a metadata server"), "{message}");
    let (kind, _) = world.refused(&gcp(&world, &azure.address, ""), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Malformed, "a 400 is nothing that Google's says");
    let (kind, message) = world.refused(&gcp(&world, "http://127.0.0.1:1", ""), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unreachable);
    assert!(message.ends_with("cannot connect: does this host run in that cloud?"), "{message}");
}
