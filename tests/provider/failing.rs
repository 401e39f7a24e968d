//! Every way in which a server fails to answer has its own class and its own message.

use crate::{
    support::{
        bao::{Bao, eventually},
        proxy::{Fault, Proxy},
    },
    world::{World, id},
};
use dso::provider::ErrorKind;
use serde_json::{Value, json};
use std::{fs, time::Duration};

#[tokio::test]
async fn forbidden_missing_deleted_and_destroyed_are_four_things() {
    let world = World::new().await;
    for name in ["app", "deleted", "destroyed", "empty"] {
        world.bao.put("secret", name, json!({"password": world.canary()})).await;
    }
    world.bao.api("DELETE", "secret/data/deleted", Value::Null).await;
    world.bao.api("PUT", "secret/destroy/destroyed", json!({"versions": [1]})).await;
    world.bao.put("secret", "empty", Value::Null).await;
    let names = ["none", "deleted", "destroyed", "empty", "data/app"]
        .map(|name| format!(r#"path "secret/data/{name}" {{ capabilities = ["read"] }}"#));
    world.log_in_with(&names.join("\n")).await;
    let vault = world.vault("");
    for (name, kind, expected) in [
        (
            "secret/app",
            ErrorKind::Forbidden,
            "403 permission denied for secret/data/app: the token's policy needs capability \"read\" on that path",
        ),
        (
            "secret/none",
            ErrorKind::NotFound,
            "404 there is no secret at secret/none: write it there, or correct the reference",
        ),
        (
            "secret/data/app",
            ErrorKind::NotFound,
            "404 there is no secret at secret/data/app: did you mean `secret/app`, without `data/`?",
        ),
        (
            "secret/destroyed",
            ErrorKind::NotFound,
            "404 version 1 of secret/destroyed was destroyed: write a new version",
        ),
        ("secret/empty", ErrorKind::Malformed, "the answer for secret/empty has no data"),
        (
            "nowhere/app",
            ErrorKind::Forbidden,
            "403 permission denied for nowhere/app: no secrets engine is mounted there, or the token's policies grant nothing under it",
        ),
    ] {
        let expected = (kind, format!("vault (ADDRESS): {expected}"));
        assert_eq!(world.refused(&vault, &format!("vault://{name}")).await, expected);
    }
    let (kind, message) = world.refused(&vault, "vault://secret/deleted").await;
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(message.starts_with("vault (ADDRESS): 404 version 1 of secret/deleted was deleted at 20"), "{message}");
    assert!(message.ends_with("Z: write a new version, or undelete it"), "{message}");
}

#[tokio::test]
async fn a_sealed_server_says_so_and_is_transient() {
    let world = World::new().await;
    let vault = world.vault("");
    world.bao.put("secret", "a", json!({"n": 1})).await;
    vault.secret("vault://secret/a").await;
    world.bao.seal().await;
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!((kind, &*message), (ErrorKind::Unavailable, "vault (ADDRESS): 503 Vault is sealed: unseal it"));
    assert!(kind.is_transient());
    assert_eq!(vault.version("vault://secret/a").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_rate_quota_throttles_and_its_retry_after_is_passed_on() {
    let world = World::new().await;
    let vault = world.vault("");
    world.bao.put("secret", "a", json!({"n": 1})).await;
    vault.secret("vault://secret/a").await;
    world.bao.rate_quota("q", "secret", 1.0, "7s").await;
    let throttled = async || vault.read(&id("vault://secret/a")).await.err();
    eventually("the quota is reached", async || throttled().await.is_some()).await;
    let error = throttled().await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert_eq!(
        world.message(&error),
        "vault (ADDRESS): 429 too many requests, last for secret/data/a: dso asks again later"
    );
    let delay = error.delay().expect("OpenBao says when to come again");
    assert!(delay > Duration::ZERO && delay <= Duration::from_secs(8), "{delay:?}");
}

#[tokio::test]
async fn a_standby_is_followed_to_the_active_server_but_not_to_anything_else() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    let vault = world.vault("");
    for status in [301, 302, 307, 308] {
        world.proxy.fail("/v1/secret/data/a", 1, Fault::Redirect(status, world.bao.address.clone()));
        assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}), "{status}");
    }
    let upgraded = Bao::start_tls().await;
    world.proxy.fail("/v1/secret/data/a", 1, Fault::Redirect(307, upgraded.address.clone()));
    let to_tls = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(to_tls.0, ErrorKind::Tls, "https is spoken, and that server's CA is not the host's: {}", to_tls.1);
    let loops = Fault::Redirect(307, world.proxy.address().into());
    world.proxy.fail("/v1/secret/data/a", 3, loops);
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Redirected);
    assert_eq!(
        message,
        "vault (ADDRESS): redirected more than 2 times, at last to ADDRESS: check `api_addr` of the servers"
    );

    let elsewhere = Proxy::before(&world.bao.address).await;
    let away = Fault::Answer(302, vec![("Location", format!("{}/login?next=x", elsewhere.address()))], String::new());
    world.proxy.fail("/v1/secret/data/a", 1, away);
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Redirected);
    let host = elsewhere.address();
    assert_eq!(
        message,
        format!(
            "vault (ADDRESS): 302 redirected to {host}, which dso does not follow: it leads to another path; set `address` to the server itself"
        )
    );
    assert_eq!(elsewhere.requests(), [], "the token went nowhere");
}

#[tokio::test]
async fn a_redirect_away_from_https_is_refused() {
    let world = World::with(Bao::start_tls().await).await;
    world.write("ca.pem", &fs::read_to_string(world.bao.ca_file()).unwrap());
    let secure = Proxy::before_tls(&world.bao.address, "127.0.0.1", world.bao.cert_files()).await;
    let plain = Proxy::before(&world.bao.address).await;
    let vault = world.vault_at(secure.address(), "ca_file = '/etc/dso/ca.pem'");
    world.bao.put("secret", "a", json!({"n": 1})).await;
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}));
    secure.fail("/v1/secret/data/a", 1, Fault::Redirect(307, plain.address().into()));
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Redirected);
    assert_eq!(
        message,
        format!(
            "vault ({}): 307 redirected to {}, which dso does not follow: it leads away from https; \
             set `api_addr` of that server to its https address, or `address` to the active server",
            secure.address(),
            plain.address()
        )
    );
    assert_eq!(plain.requests(), []);
}

#[tokio::test]
async fn only_a_certificate_of_the_ca_and_for_the_name_is_trusted() {
    let world = World::with(Bao::start_tls().await).await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    let address = &world.bao.address;
    let untrusted = "the server's certificate is not trusted: set `ca_file` to the PEM file of the CA that issued it";
    let at_host = world.refused(&world.vault_at(address, ""), "vault://secret/a").await;
    assert_eq!(at_host, (ErrorKind::Tls, format!("vault ({address}): {untrusted}")), "with the host's CA bundle");

    let settings = "ca_file = '/etc/dso/ca.pem'";
    let vault = world.vault_at(address, settings);
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert_eq!(
        message,
        format!(
            "vault ({address}): the CA certificates in /etc/dso/ca.pem cannot be used: No such file or directory (os error 2): check `ca_file`"
        )
    );
    world.write("ca.pem", "no certificate\n");
    let (_, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(
        message,
        format!(
            "vault ({address}): the CA certificates in /etc/dso/ca.pem cannot be used: it has no PEM certificate: check `ca_file`"
        )
    );

    let other = Bao::start_tls().await;
    world.write("ca.pem", &fs::read_to_string(other.ca_file()).unwrap());
    assert_eq!(
        world.refused(&vault, "vault://secret/a").await,
        (ErrorKind::Tls, format!("vault ({address}): {untrusted}"))
    );
    world.write("ca.pem", &fs::read_to_string(world.bao.ca_file()).unwrap());
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}), "a new CA file is used without a restart");

    let misnamed = Proxy::before_tls(address, "127.0.0.2", world.bao.cert_files()).await;
    let (kind, message) = world.refused(&world.vault_at(misnamed.address(), settings), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Tls);
    assert_eq!(
        message,
        format!(
            "vault ({}): the server's certificate is not trusted: it is for another name: set `address` to a name or IP that the certificate has",
            misnamed.address()
        )
    );

    let spoken_plainly = address.replace("https", "http");
    let (kind, message) = world.refused(&world.vault_at(&spoken_plainly, ""), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert!(message.ends_with("(if the server speaks TLS, `address` must start with https://)"), "{message}");
    let plain = world.proxy.address().replace("http", "https");
    let (kind, message) = world.refused(&world.vault_at(&plain, ""), "vault://secret/a").await;
    assert_eq!(
        (kind, message),
        (
            ErrorKind::Tls,
            format!("vault ({plain}): the server does not speak TLS there: check scheme and port of `address`")
        )
    );
}

#[tokio::test]
async fn an_outage_is_told_by_its_kind() {
    let mut world = World::new().await;
    world.bao.put("secret", "a", json!({"password": world.canary()})).await;
    let vault = world.vault("timeout = '700ms'");
    vault.secret("vault://secret/a").await;
    let broken =
        (ErrorKind::Unreachable, "vault (ADDRESS): the connection broke before the whole answer was there".to_owned());
    for fault in [Fault::Truncate, Fault::Close] {
        world.proxy.fail("/v1/secret/data/a", 1, fault.clone());
        assert_eq!(world.refused(&vault, "vault://secret/a").await, broken, "{fault:?}");
    }
    world.proxy.fail("/v1/secret/data/a", 1, Fault::Hang);
    let started = tokio::time::Instant::now();
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Timeout);
    assert_eq!(message, "vault (ADDRESS): no answer in time: is the server up and reachable from this host?");
    assert!(started.elapsed() < Duration::from_secs(5));
    let secret = world.refused(&world.vault_at("http://no-such-host.invalid:8200", ""), "vault://secret/a").await;
    assert_eq!(secret.0, ErrorKind::Unreachable);
    assert_eq!(
        secret.1,
        "vault (http://no-such-host.invalid:8200): its host name cannot be resolved: check `address` and the host's DNS"
    );
    world.bao.stop();
    let direct = world.vault_at(&world.bao.address, "");
    let (kind, message) = world.refused(&direct, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unreachable);
    assert_eq!(
        message,
        format!("vault ({}): connection refused: is the server up, and the port right?", world.bao.address)
    );
}

#[tokio::test]
async fn every_other_status_has_its_class() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    let vault = world.vault("");
    vault.secret("vault://secret/a").await;
    for (status, kind, part) in [
        (400, ErrorKind::Misconfigured, "400 bad request for secret/data/a"),
        (412, ErrorKind::Unavailable, "412 the server has not yet seen the latest write"),
        (429, ErrorKind::Throttled, "429 too many requests"),
        (472, ErrorKind::Unavailable, "472 the server is a disaster-recovery secondary"),
        (473, ErrorKind::Unavailable, "473 the server is a performance standby"),
        (501, ErrorKind::Unavailable, "501 the server is not initialized"),
        (500, ErrorKind::Unavailable, "500 the server failed at secret/data/a: its log tells why"),
        (502, ErrorKind::Unavailable, "502 the server failed at secret/data/a"),
        (503, ErrorKind::Unavailable, "503 the server failed at secret/data/a"),
        (418, ErrorKind::Malformed, "418 for secret/data/a is not what Vault answers"),
        (401, ErrorKind::Malformed, "401 for secret/data/a is not what Vault answers"),
    ] {
        world.proxy.fail("/v1/secret/data/a", 1, Fault::status(status));
        let (found, message) = world.refused(&vault, "vault://secret/a").await;
        assert!(message.starts_with(&format!("vault (ADDRESS): {part}")), "{message}");
        assert_eq!(found, kind, "{status}");
        vault.secret("vault://secret/a").await;
    }
}

#[tokio::test]
async fn what_is_no_answer_of_vault_is_never_a_value_and_never_quoted() {
    let world = World::new().await;
    let canary = world.canary();
    world.bao.put("secret", "a", json!({"n": 1})).await;
    let vault = world.vault("");
    vault.secret("vault://secret/a").await;
    let html = format!("<html>{canary}");
    let wrong_type = format!(r#"{{"data":"{canary}"}}"#);
    let no_metadata = format!(r#"{{"data":{{"data":{{"x":"{canary}"}}}}}}"#);
    for body in ["", "{}", "null", r#"{"data":null}"#, &html, &wrong_type, &no_metadata] {
        world.proxy.fail("/v1/secret/data/a", 1, Fault::body(body));
        let (kind, message) = world.refused(&vault, "vault://secret/a").await;
        assert_eq!(kind, ErrorKind::Malformed, "{message}");
        world.proxy.fail("/v1/secret/metadata/a", 1, Fault::body(body));
        let error = vault.version("vault://secret/a").await.unwrap_err();
        world.message(&error);
    }
    world.proxy.fail("/v1/secret/data/a", 1, Fault::Answer(500, Vec::new(), format!(r#"{{"errors":["{canary}"]}}"#)));
    world.refused(&vault, "vault://secret/a").await;
    let huge = "x".repeat(81 << 20);
    world.proxy.fail("/v1/secret/data/a", 1, Fault::body(&huge));
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!((kind, &*message), (ErrorKind::Malformed, "vault (ADDRESS): the answer is larger than 80 MiB"));
}
