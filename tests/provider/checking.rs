//! Version checks: how many calls they make, and what they fall back to.

use crate::{
    support::{bao::eventually, instance::version_of, proxy::Fault},
    world::{World, id},
};
use dso::{
    provider::{ErrorKind, Observed},
    secret::SecretId,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

const READ: &str = r#"path "secret/data/*" { capabilities = ["read"] }"#;

/// Ten secrets of one folder, and their references.
async fn ten(world: &World) -> Vec<Arc<SecretId>> {
    for n in 0..10 {
        world.bao.put("secret", &format!("app/s{n}"), json!({"n": n})).await;
    }
    (0..10).map(|n| id(&format!("vault://secret/app/s{n}"))).collect()
}

#[tokio::test]
async fn ten_secrets_of_a_folder_are_one_call() {
    let world = World::new().await;
    let ids = ten(&world).await;
    let vault = world.vault("");
    let batches: BTreeSet<_> = ids.iter().map(|id| vault.batch(id)).collect();
    assert_eq!(batches, BTreeSet::from([Some("secret/app".to_owned())]), "one batch before anything is known");
    vault.secret("vault://secret/app/s0").await;
    world.bao.put("secret", "app/s3", json!({"n": 33})).await;
    world.proxy.reset();
    let versions: Vec<_> = vault.versions(&ids).await.into_iter().map(version_of).collect();
    assert_eq!(world.proxy.requests(), [("LIST".into(), "/v1/secret/detailed-metadata/app/".into())]);
    assert_eq!(versions[3].label(), "2");
    assert_eq!(versions[4].label(), "1");
    assert_eq!(versions[3], vault.secret("vault://secret/app/s3").await.version);
}

#[tokio::test]
async fn a_batch_tells_of_each_secret_by_itself() {
    let world = World::new().await;
    ten(&world).await;
    world.bao.put("secret", "app/s1", json!({"n": 11})).await;
    world.bao.api("DELETE", "secret/data/app/s2", Value::Null).await;
    world.bao.api("PUT", "secret/destroy/app/s3", json!({"versions": [1]})).await;
    let vault = world.vault("");
    let references = ["app/s0", "app/s1?version=1", "app/s2", "app/s3", "app/none", "app/s1?version=9"];
    let ids: Vec<_> = references.iter().map(|name| id(&format!("vault://secret/{name}"))).collect();
    let mut found = vault.versions(&ids).await.into_iter();
    assert_eq!(version_of(found.next().unwrap()).label(), "1");
    assert_eq!(version_of(found.next().unwrap()).label(), "1");
    let messages: Vec<_> = found.map(|result| result.unwrap_err()).collect();
    assert!(messages.iter().all(|error| error.kind() == ErrorKind::NotFound));
    let messages: Vec<_> = messages.iter().map(|error| world.message(error)).collect();
    assert!(
        messages[0].starts_with("vault (ADDRESS): version 1 of secret/app/s2 was deleted at 20"),
        "{}",
        messages[0]
    );
    assert_eq!(messages[1], "vault (ADDRESS): version 1 of secret/app/s3 was destroyed: write a new version");
    assert_eq!(
        messages[2],
        "vault (ADDRESS): 404 there is no secret at secret/app/none: write it there, or correct the reference"
    );
    assert_eq!(messages[3], "vault (ADDRESS): 404 there is no version 9 of secret/app/s1: correct `?version=`");
    assert_eq!(world.proxy.count("LIST", ""), 1);
}

#[tokio::test]
async fn without_the_list_each_secrets_metadata_is_asked_for() {
    let world = World::new().await;
    let ids = ten(&world).await;
    world.log_in_with(&format!(r#"{READ} path "secret/metadata/*" {{ capabilities = ["read"] }}"#)).await;
    let vault = world.vault("");
    let versions: Vec<_> = vault.versions(&ids).await.into_iter().map(version_of).collect();
    assert!(versions.iter().all(|version| version.label() == "1"));
    assert_eq!((world.proxy.count("LIST", ""), world.proxy.count("GET", "/secret/metadata/app/")), (1, 10));
    world.proxy.reset();
    vault.versions(&ids).await;
    assert_eq!((world.proxy.count("LIST", ""), world.proxy.count("GET", "/secret/metadata/app/")), (0, 10));
    assert_eq!(world.proxy.requests().len(), 10, "what was refused is remembered");
    assert_eq!(vault.batch(&ids[0]), None);
}

#[tokio::test]
async fn without_metadata_secrets_are_unversioned_and_cost_no_call() {
    let world = World::new().await;
    let ids = ten(&world).await;
    world.log_in_with(READ).await;
    let vault = world.vault("");
    for observed in vault.versions(&ids).await {
        assert_eq!(observed.unwrap(), Observed::Unversioned);
    }
    world.proxy.reset();
    assert_eq!(vault.versions(&ids).await.len(), 10);
    assert_eq!(world.proxy.requests(), []);
    assert_eq!(vault.value("vault://secret/app/s4").await, json!({"n": 4}));
}

#[tokio::test]
async fn a_lone_secret_is_one_call_and_takes_the_list_where_only_that_is_allowed() {
    let world = World::new().await;
    ten(&world).await;
    let vault = world.vault("");
    vault.secret("vault://secret/app/s0").await;
    world.proxy.reset();
    version_of(vault.version("vault://secret/app/s0").await);
    assert_eq!(world.proxy.requests(), [("GET".into(), "/v1/secret/metadata/app/s0".into())]);

    world.log_in_with(&format!(r#"{READ} path "secret/detailed-metadata/*" {{ capabilities = ["list"] }}"#)).await;
    let vault = world.vault("");
    assert_eq!(vault.version("vault://secret/app/s0").await.unwrap(), Observed::Unversioned);
    assert_eq!(version_of(vault.version("vault://secret/app/s0").await).label(), "1");
}

#[tokio::test]
async fn a_server_without_detailed_metadata_is_asked_one_by_one() {
    let world = World::new().await;
    let ids = ten(&world).await;
    let vault = world.vault("");
    // What Vault's KV engine says to a path that it does not know.
    let body = r#"{"request_id":"x","data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}"#;
    world.proxy.fail("/detailed-metadata/", 1, Fault::Answer(404, Vec::new(), body.into()));
    assert!(vault.versions(&ids).await.into_iter().all(|observed| version_of(observed).label() == "1"));
    assert_eq!(vault.batch(&ids[0]), None);
}

#[tokio::test]
async fn a_throttled_check_is_one_call_for_all_of_a_folder() {
    let world = World::new().await;
    let ids = ten(&world).await;
    let vault = world.vault("");
    vault.secret("vault://secret/app/s0").await;
    world.proxy.reset();
    world.proxy.fail("/detailed-metadata/", 1, Fault::throttle("9"));
    for observed in vault.versions(&ids).await {
        let error = observed.unwrap_err();
        assert_eq!((error.kind(), error.delay()), (ErrorKind::Throttled, Some(std::time::Duration::from_secs(9))));
    }
    assert_eq!(world.proxy.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_holds_up_a_check_once_not_once_for_each_secret() {
    let world = World::new().await;
    let ids = ten(&world).await;
    world.log_in_with(&format!(r#"{READ} path "secret/metadata/*" {{ capabilities = ["read"] }}"#)).await;
    let vault = world.vault("timeout = '500ms'");
    vault.versions(&ids).await;
    let many: Vec<_> = ids.iter().cycle().take(100).cloned().collect();
    world.proxy.reset();
    world.proxy.fail("/secret/metadata/", 100, Fault::Hang);
    for observed in vault.versions(&many).await {
        assert_eq!(observed.unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert!(world.proxy.requests().len() <= 16, "{} requests", world.proxy.requests().len());
}

#[tokio::test]
async fn a_wrong_path_in_a_batch_harms_no_other() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.mount("team/kv", "kv", "2").await;
    world.bao.mount("team/old", "kv", "1").await;
    let vault = world.vault("");
    let found = vault.versions(&[id("vault://team/kv"), id("vault://team/old"), id("vault://team/none")]).await;
    let messages: Vec<_> = found.iter().map(|result| world.message(result.as_ref().unwrap_err())).collect();
    assert_eq!(
        messages[0],
        "vault (ADDRESS): team/kv is a secrets engine: name a secret in it, as `vault kv get` takes it"
    );
    assert_eq!(
        messages[1],
        "vault (ADDRESS): team/old is a secrets engine: name a secret in it, as `vault kv get` takes it"
    );
    assert!(
        messages[2]
            .starts_with("vault (ADDRESS): 403 permission denied for team/none: no secrets engine is mounted there")
    );
}

/// The policies of docs/providers.md, by their order there.
fn documented(n: usize) -> &'static str {
    let page = include_str!("../../docs/providers.md");
    page.split("```hcl").nth(n + 1).unwrap().split("```").next().unwrap()
}

#[tokio::test]
async fn the_documented_policy_is_enough_and_each_part_of_it_is_needed() {
    let world = World::new().await;
    let ids = ten(&world).await;
    world.log_in_with(documented(0)).await;
    let vault = world.vault("");
    assert_eq!(vault.value("vault://secret/app/s4").await, json!({"n": 4}));
    world.proxy.reset();
    assert!(vault.versions(&ids).await.into_iter().all(|observed| version_of(observed).label() == "1"));
    assert_eq!(world.proxy.requests().len(), 1);
    assert_eq!(version_of(vault.version("vault://secret/app/s4").await).label(), "1");
    world.bao.put("secret", "other", json!({"n": 1})).await;
    assert_eq!(world.refused(&vault, "vault://secret/other").await.0, ErrorKind::Forbidden);

    world.bao.mount("kv1", "kv", "1").await;
    world.bao.api("POST", "kv1/app/a", json!({"n": 1})).await;
    world.log_in_with(documented(1)).await;
    assert_eq!(world.vault("").value("vault://kv1/app/a").await, json!({"n": 1}));
    // The token's own part, without the policy `default`.
    world.bao.policy("own", documented(2)).await;
    let alone = json!({"no_default_policy": true, "ttl": "3s"});
    world.write("vault-token", &world.guard(&world.bao.token(&["p", "own"], alone.clone()).await));
    let vault = world.vault("").running();
    eventually("a renewal", async || world.proxy.count("POST", "/auth/token/renew-self") > 0).await;
    assert_eq!(vault.value("vault://kv1/app/a").await, json!({"n": 1}));
    world.write("vault-token", &world.guard(&world.bao.token(&["p"], alone).await));
    assert_eq!(world.refused(&world.vault(""), "vault://kv1/app/a").await.0, ErrorKind::Unauthenticated);
}
