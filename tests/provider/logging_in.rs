//! Logins, and the life of a token.

use crate::{
    support::{bao::eventually, proxy::Fault},
    world::{Instance, World, id},
};
use dso::provider::ErrorKind;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const POLICY: &str = r#"path "secret/data/*" { capabilities = ["read"] }"#;

/// An instance that logs in by AppRole, with these settings of the role.
async fn approle(world: &World, settings: Value) -> Instance {
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.policy("p", POLICY).await;
    let role = world.bao.approle("approle", "web", settings).await;
    world.write("secret-id", &world.guard(&role.secret_id));
    world.remove("vault-token");
    world.vault(&format!(
        "timeout = '5s'\nauth.method = 'approle'\nauth.role_id = '{}'\nauth.secret_id_file = '/etc/dso/secret-id'",
        role.role_id
    ))
}

fn logins(world: &World) -> usize {
    world.proxy.count("POST", "/auth/approle/login")
}

/// Reads again and again for a time; none may fail.
async fn reads_for(vault: &Instance, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        vault.secret("vault://secret/a").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_role_id_and_a_secret_id_from_a_file_log_in_once() {
    let world = World::new().await;
    let vault = approle(&world, json!({"token_policies": "p"})).await;
    let reads: Vec<_> = (0..50).map(|_| id("vault://secret/a")).collect();
    let reads = reads.iter().map(|id| vault.read(id));
    for read in join(reads).await {
        read.unwrap();
    }
    assert_eq!(logins(&world), 1);
    assert_eq!(world.proxy.count("GET", "/sys/internal/ui/mounts/"), 1);
}

#[tokio::test]
async fn a_role_id_may_come_from_a_file_and_the_mount_may_have_another_name() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.policy("p", POLICY).await;
    let role = world.bao.approle("team/hosts", "web", json!({"token_policies": "p"})).await;
    world.write("secret-id", &format!("{}\n", world.guard(&role.secret_id)));
    world.write("role-id", &format!("  {}\n", role.role_id));
    let vault = world.vault(
        "auth.method = 'approle'\nauth.mount = 'team/hosts'\nauth.role_id_file = '/etc/dso/role-id'\nauth.secret_id_file = '/etc/dso/secret-id'",
    );
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}));
}

#[tokio::test]
async fn a_wrapped_secret_id_is_used_once_and_a_used_one_is_told() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.policy("p", POLICY).await;
    let role = world
        .bao
        .approle("approle", "web", json!({"token_policies": "p", "token_ttl": "2s", "token_max_ttl": "2s"}))
        .await;
    let settings = format!(
        "auth.method = 'approle'\nauth.role_id = '{}'\nauth.secret_id_file = '/etc/dso/secret-id'\nauth.secret_id_wrapped = true",
        role.role_id
    );
    let wrapping = world.guard(&world.bao.wrapped("auth/approle/role/web/secret-id", json!({})).await);
    world.write("secret-id", &wrapping);
    let vault = world.vault(&settings);
    vault.secret("vault://secret/a").await;
    eventually("a second login, with the SecretID that was unwrapped before", async || {
        vault.secret("vault://secret/a").await;
        logins(&world) >= 2
    })
    .await;
    assert_eq!(world.proxy.count("POST", "/sys/wrapping/unwrap"), 1);

    let again = world.vault(&settings);
    let (kind, message) = world.refused(&again, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert_eq!(
        message,
        "vault (ADDRESS): the wrapping token in /etc/dso/secret-id is not valid: it was used before or has expired; \
         unless dso itself used it before a restart, somebody else may know the SecretID: revoke it, and put a new one there"
    );
    let forged = world.guard(&world.bao.wrapped("sys/wrapping/wrap", json!({"secret_id": role.secret_id})).await);
    world.write("secret-id", &forged);
    let (kind, message) = world.refused(&again, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert_eq!(
        message,
        "vault (ADDRESS): the wrapping token in /etc/dso/secret-id was not made by auth/approle/role/<role>/secret-id: \
         somebody may have replaced it; find out, and put a new one there"
    );
    let fresh = world.guard(&world.bao.wrapped("auth/approle/role/web/secret-id", json!({})).await);
    world.write("secret-id", &fresh);
    assert_eq!(again.value("vault://secret/a").await, json!({"n": 1}), "a new file is used at once");
}

#[tokio::test]
async fn a_wrapped_secret_id_survives_a_caller_that_goes_away() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.policy("p", POLICY).await;
    let role = world.bao.approle("approle", "web", json!({"token_policies": "p"})).await;
    let wrapping = world.guard(&world.bao.wrapped("auth/approle/role/web/secret-id", json!({})).await);
    world.write("secret-id", &wrapping);
    let vault = world.vault(&format!(
        "auth.method = 'approle'\nauth.role_id = '{}'\nauth.secret_id_file = '/etc/dso/secret-id'\nauth.secret_id_wrapped = true",
        role.role_id
    ));
    let secret = id("vault://secret/a");
    world.proxy.fail("/sys/wrapping/unwrap", 1, Fault::Hold);
    tokio::select! {
        _ = vault.read(&secret) => panic!("the answer is held back"),
        () = eventually("the unwrapping is under way", async || world.proxy.count("POST", "/sys/wrapping/unwrap") == 1) => {}
    }
    world.proxy.release();
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}));
    assert_eq!(world.proxy.count("POST", "/sys/wrapping/unwrap"), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let world = World::new().await;
    let vault = approle(&world, json!({"token_policies": "p", "token_ttl": "3s"})).await.running();
    reads_for(&vault, Duration::from_secs(8)).await;
    assert_eq!(logins(&world), 1);
    assert!(world.proxy.count("POST", "/auth/token/renew-self") >= 3);
}

#[tokio::test]
async fn past_its_max_ttl_a_token_gives_way_to_a_new_login() {
    let world = World::new().await;
    let vault =
        approle(&world, json!({"token_policies": "p", "token_ttl": "2s", "token_max_ttl": "4s"})).await.running();
    reads_for(&vault, Duration::from_secs(9)).await;
    assert!(logins(&world) >= 2);
    assert!(logins(&world) <= 6, "{} logins", logins(&world));
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_gives_way_to_a_new_login() {
    let world = World::new().await;
    let vault =
        approle(&world, json!({"token_policies": "p", "token_ttl": "3s", "token_type": "batch"})).await.running();
    reads_for(&vault, Duration::from_secs(5)).await;
    assert!(logins(&world) >= 2);
    assert_eq!(world.proxy.count("POST", "/auth/token/renew-self"), 0);
}

#[tokio::test]
async fn fifty_reads_with_a_revoked_token_make_one_login() {
    let world = World::new().await;
    let vault = approle(&world, json!({"token_policies": "p"})).await;
    vault.secret("vault://secret/a").await;
    let (_, accessors) = world.bao.send("LIST", "auth/token/accessors", Value::Null, &[]).await;
    for accessor in accessors["data"]["keys"].as_array().unwrap() {
        let (_, token) = world.bao.send("POST", "auth/token/lookup-accessor", json!({"accessor": accessor}), &[]).await;
        if token["data"]["path"] == "auth/approle/login" {
            world.bao.api("POST", "auth/token/revoke-accessor", json!({"accessor": accessor})).await;
        }
    }
    world.proxy.reset();
    let ids: Vec<_> = (0..50).map(|_| id("vault://secret/a")).collect();
    for read in join(ids.iter().map(|id| vault.read(id))).await {
        read.unwrap();
    }
    assert_eq!(logins(&world), 1);
    assert_eq!(world.proxy.count("GET", "/auth/token/lookup-self"), 1);
}

#[tokio::test]
async fn fifty_reads_without_a_valid_secret_id_make_one_login() {
    let world = World::new().await;
    let vault = approle(&world, json!({"token_policies": "p"})).await;
    let wrong = world.canary();
    world.write("secret-id", &wrong);
    let ids: Vec<_> = (0..50).map(|_| id("vault://secret/a")).collect();
    for read in join(ids.iter().map(|id| vault.read(id))).await {
        let error = read.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert_eq!(
            world.message(&error),
            "vault (ADDRESS): 400 the AppRole login at auth/approle was refused: the RoleID is wrong, or the SecretID of \
             /etc/dso/secret-id is wrong, used up or expired; put a new one there"
        );
    }
    assert_eq!(logins(&world), 1);
    let answer = world.bao.api("POST", "auth/approle/role/web/secret-id", json!({})).await;
    world.write("secret-id", &world.guard(answer["data"]["secret_id"].as_str().unwrap()));
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}), "a changed file is tried at once");
}

#[tokio::test]
async fn a_forbidden_path_costs_no_login_and_few_look_ups() {
    let world = World::new().await;
    let vault = approle(&world, json!({"token_policies": "p"})).await;
    vault.secret("vault://secret/a").await;
    world.bao.policy("p", r#"path "secret/metadata/*" { capabilities = ["read"] }"#).await;
    world.proxy.reset();
    for _ in 0..20 {
        assert_eq!(world.refused(&vault, "vault://secret/a").await.0, ErrorKind::Forbidden);
    }
    assert_eq!(logins(&world), 0);
    assert!(world.proxy.count("GET", "/auth/token/lookup-self") <= 2);
}

#[tokio::test]
async fn a_token_that_may_not_look_itself_up_is_not_logged_in_for_again_and_again() {
    let world = World::new().await;
    let vault = approle(&world, json!({"token_policies": "p", "token_no_default_policy": true})).await;
    vault.secret("vault://secret/a").await;
    world.bao.policy("p", r#"path "secret/metadata/*" { capabilities = ["read"] }"#).await;
    for _ in 0..20 {
        assert_eq!(world.refused(&vault, "vault://secret/a").await.0, ErrorKind::Forbidden);
    }
    assert_eq!(logins(&world), 2);
}

#[tokio::test]
async fn a_role_without_policies_of_its_own_logs_in() {
    let world = World::new().await;
    let vault = approle(&world, json!({"token_no_default_policy": true})).await;
    assert_eq!(world.refused(&vault, "vault://secret/a").await.0, ErrorKind::Forbidden);
    assert!(logins(&world) > 0);
}

#[tokio::test]
async fn a_token_file_is_kept_alive_though_nobody_reads() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.policy("p", POLICY).await;
    // Long enough for a third of it to be no hurry on a busy machine.
    let token = world.guard(&world.bao.token(&["p"], json!({"ttl": "12s"})).await);
    let ends = async || {
        let told = world.bao.api("POST", "auth/token/lookup", json!({"token": token})).await;
        told["data"]["expire_time"].as_str().unwrap().to_owned()
    };
    let first = ends().await;
    world.write("vault-token", &format!(" {token}\n"));
    let vault = world.vault("").running();
    eventually("a renewal", async || ends().await > first).await;
    let second = ends().await;
    eventually("another one", async || ends().await > second).await;
    assert!(world.proxy.count("POST", "/auth/token/renew-self") >= 2);
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}));
}

#[tokio::test]
async fn a_replaced_token_file_is_used_at_once() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    let first = world.log_in_with(POLICY).await;
    let vault = world.vault("");
    vault.secret("vault://secret/a").await;
    world.log_in_with(POLICY).await;
    world.bao.revoke(&first).await;
    vault.secret("vault://secret/a").await;
    assert_eq!(world.proxy.count("GET", "/auth/token/lookup-self"), 2, "one for each token");
    world.write("vault-token", "");
    vault.secret("vault://secret/a").await;
    world.remove("vault-token");
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}), "a token that works is not given up");
}

#[tokio::test]
async fn a_token_file_that_is_no_good_is_told() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.remove("vault-token");
    let vault = world.vault("");
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert_eq!(
        message,
        "vault (ADDRESS): no token: cannot read /etc/dso/vault-token: No such file or directory (os error 2); put one there, or name its file by `auth.token_file`"
    );
    let token = world.log_in_with(POLICY).await;
    vault.secret("vault://secret/a").await;
    world.bao.revoke(&token).await;
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert_eq!(
        message,
        "vault (ADDRESS): 403 the token in /etc/dso/vault-token was refused: it has expired, was revoked, or may not read \
         auth/token/lookup-self; put a new one there"
    );
    world.log_in_with(POLICY).await;
    vault.secret("vault://secret/a").await;
}

#[tokio::test]
async fn a_throttled_login_waits_as_long_as_the_server_asks() {
    let world = World::new().await;
    let vault = approle(&world, json!({"token_policies": "p"})).await;
    world.proxy.fail("/auth/approle/login", 1, Fault::throttle("2"));
    let started = Instant::now();
    let error = vault.read(&id("vault://secret/a")).await.unwrap_err();
    assert_eq!((error.kind(), error.delay()), (ErrorKind::Throttled, Some(Duration::from_secs(2))));
    eventually("the login", async || vault.read(&id("vault://secret/a")).await.is_ok()).await;
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(logins(&world), 2);
}

#[tokio::test]
async fn a_login_that_hangs_ends_in_time_and_is_tried_again() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    let vault = world.vault("timeout = '500ms'");
    world.proxy.fail("/auth/token/lookup-self", 1, Fault::Hang);
    let started = Instant::now();
    assert_eq!(world.refused(&vault, "vault://secret/a").await.0, ErrorKind::Timeout);
    eventually("the login", async || vault.read(&id("vault://secret/a")).await.is_ok()).await;
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_login_where_there_is_no_approle_is_told() {
    let world = World::new().await;
    world.write("secret-id", "x");
    let vault = world.vault("auth.method = 'approle'\nauth.role_id = 'x'\nauth.secret_id_file = '/etc/dso/secret-id'");
    let (kind, message) = world.refused(&vault, "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert_eq!(
        message,
        "vault (ADDRESS): 403 the AppRole login at auth/approle was refused: there is no AppRole method there, \
         or the role does not accept this host's address"
    );
}

/// All of some futures at once.
async fn join<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<_> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(cx)
            {
                *output = Some(done);
            }
        }
        if outputs.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
