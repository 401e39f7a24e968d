//! What is read, from every kind of engine, is what was written.

use crate::{
    support::{bao::eventually, instance::version_of, proxy::Fault},
    world::{World, id},
};
use dso::{
    provider::{ErrorKind, Observed},
    secret::SecretVersion,
};
use serde_json::{Value, json};

#[tokio::test]
async fn kv_version_2_is_found_and_read_with_its_version() {
    let world = World::new().await;
    let canary = world.canary();
    let fields: serde_json::Map<_, _> = (0..10).map(|n| (format!("field{n}"), json!(format!("{canary}{n}")))).collect();
    world.bao.put("secret", "app/db", Value::Object(fields.clone())).await;
    let vault = world.vault("");
    let secret = vault.secret("vault://secret/app/db").await;
    assert_eq!(serde_json::from_slice::<Value>(secret.value.expose()).unwrap(), Value::Object(fields));
    assert_eq!(secret.version.label(), "1");
    assert_eq!(version_of(vault.version("vault://secret/app/db").await), secret.version);
    assert_eq!(world.proxy.count("GET", "/v1/sys/internal/ui/mounts/"), 1);
}

#[tokio::test]
async fn a_version_can_be_pinned() {
    let world = World::new().await;
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.put("secret", "a", json!({"n": 2})).await;
    let vault = world.vault("");
    assert_eq!(vault.value("vault://secret/a?version=1").await, json!({"n": 1}));
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 2}));
    assert_eq!(version_of(vault.version("vault://secret/a?version=1").await).label(), "1");
    let (kind, message) = world.refused(&vault, "vault://secret/a?version=7").await;
    assert_eq!(
        (kind, &*message),
        (ErrorKind::NotFound, "vault (ADDRESS): 404 there is no version 7 of secret/a: correct `?version=`")
    );
}

#[tokio::test]
async fn a_mount_may_have_slashes_and_names_may_be_any_text() {
    let world = World::new().await;
    world.bao.mount("team/eu/kv", "kv", "2").await;
    for (n, name) in
        ["größe/ключ", "a b/c%2Fd", "x+y/z;w=1", "deep/er/and/deeper", "plain", "q'\"<>`{}|^[]"].iter().enumerate()
    {
        world.bao.put("team/eu/kv", name, json!({"n": n})).await;
        let vault = world.vault("");
        let reference = format!("vault://team/eu/kv/{name}");
        assert_eq!(vault.value(&reference).await, json!({"n": n}), "{name}");
        assert_eq!(version_of(vault.version(&reference).await).label(), "1");
        let pair = [id(&reference), id(&format!("{reference}?version=1"))];
        for observed in vault.versions(&pair).await {
            assert_eq!(version_of(observed).label(), "1");
        }
    }
}

#[tokio::test]
async fn kv_version_1_is_read_and_has_no_versions() {
    let world = World::new().await;
    let canary = world.canary();
    world.bao.mount("old", "kv", "1").await;
    world.bao.api("POST", "old/app/db", json!({"password": canary})).await;
    let vault = world.vault("");
    let secret = vault.secret("vault://old/app/db").await;
    assert_eq!(serde_json::from_slice::<Value>(secret.value.expose()).unwrap(), json!({"password": canary}));
    assert_eq!(secret.version, SecretVersion::new("", ""));
    world.proxy.reset();
    assert_eq!(vault.version("vault://old/app/db").await.unwrap(), Observed::Unversioned);
    assert_eq!(world.proxy.requests(), [], "an engine without versions is not asked for one");
    let (kind, message) = world.refused(&vault, "vault://old/none").await;
    assert_eq!(
        (kind, &*message),
        (
            ErrorKind::NotFound,
            "vault (ADDRESS): 404 there is no secret at old/none: write it there, or correct the reference"
        )
    );
    let (kind, message) = world.refused(&vault, "vault://old/app/db?version=1").await;
    assert_eq!(kind, ErrorKind::Misconfigured);
    assert_eq!(message, "vault (ADDRESS): `?version=` needs an engine of type kv, version 2, and old/app/db is none");
}

#[tokio::test]
async fn any_other_path_is_read_as_the_api_has_it() {
    let world = World::new().await;
    let vault = world.vault("");
    world.bao.api("POST", "cubbyhole/mine", json!({"k": "v"})).await;
    assert_eq!(vault.value("vault://cubbyhole/mine").await, json!({"k": "v"}));
    assert_eq!(vault.value("vault://auth/token/lookup-self").await["path"], json!("auth/token/create"));
    assert_eq!(vault.version("vault://cubbyhole/mine").await.unwrap(), Observed::Unversioned);
}

#[tokio::test]
async fn a_lease_keeps_its_version_until_two_thirds_of_it_have_passed() {
    let world = World::new().await;
    let vault = world.vault("");
    let body =
        r#"{"request_id":"01234567-89ab","lease_id":"database/creds/r/x","lease_duration":3,"data":{"username":"u"}}"#;
    // The engine is real, its answer is not: a lease needs a database behind it.
    world.bao.mount("dyn", "ssh", "").await;
    world.proxy.fail("/v1/dyn/creds/r", 1, Fault::body(body));
    let secret = vault.secret("vault://dyn/creds/r").await;
    assert_eq!(secret.version.label(), "lease-01234567");
    assert_eq!(version_of(vault.version("vault://dyn/creds/r").await), secret.version);
    let started = tokio::time::Instant::now();
    eventually("it is to be read again", async || {
        vault.version("vault://dyn/creds/r").await.unwrap() == Observed::Unversioned
    })
    .await;
    assert!(started.elapsed().as_secs_f32() > 1.0 && started.elapsed().as_secs_f32() < 3.0);
}

#[tokio::test]
async fn an_engine_mounted_anew_with_another_version_is_seen() {
    let world = World::new().await;
    world.bao.mount("kv", "kv", "1").await;
    world.bao.api("POST", "kv/a", json!({"n": 1})).await;
    let vault = world.vault("");
    assert_eq!(vault.value("vault://kv/a").await, json!({"n": 1}));
    world.bao.api("DELETE", "sys/mounts/kv", Value::Null).await;
    world.bao.mount("kv", "kv", "2").await;
    world.bao.put("kv", "a", json!({"n": 2})).await;
    assert!(vault.read(&id("vault://kv/a")).await.is_err(), "the first read finds out");
    assert_eq!(vault.value("vault://kv/a").await, json!({"n": 2}));
}

#[tokio::test]
async fn a_namespace_is_a_world_of_its_own() {
    let world = World::new().await;
    world.bao.namespace("team").await;
    world.bao.mount_in("team", "kv", "kv", "2").await;
    let with = [("X-Vault-Namespace", "team")];
    let (status, _) = world.bao.send("POST", "kv/data/a", json!({"data": {"n": 1}}), &with).await;
    assert!(status.is_success());
    assert_eq!(world.vault("namespace = 'team'").value("vault://kv/a").await, json!({"n": 1}));
    assert_eq!(world.refused(&world.vault(""), "vault://kv/a").await.0, ErrorKind::Forbidden);
    let (kind, message) = world.refused(&world.vault("namespace = 'none'"), "vault://kv/a").await;
    assert_eq!(
        (kind, &*message),
        (ErrorKind::Misconfigured, "vault (ADDRESS): 404 there is no namespace `none`: check `namespace`")
    );
}
