//! What is read is what was written, and what may not be used is not.

use crate::{
    support::{azure::directory::now, instance::version_of},
    world::{World, id},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use dso::provider::ErrorKind;
use serde_json::json;

#[tokio::test]
async fn a_text_is_read_with_its_version_by_the_vaults_name_or_its_host_and_a_field_by_its_name() {
    let world = World::new().await;
    let canary = world.canary();
    let version = world.vault.put("db", &json!({"user": "app", "password": canary}).to_string());
    let azure = world.azure("");
    let secret = azure.secret("azure://corp/db").await;
    assert_eq!(secret.value.field(&"password".parse().unwrap()).unwrap().expose(), canary.as_bytes());
    assert_eq!(secret.version.label(), version);
    assert_eq!(version_of(azure.version("azure://corp/db").await), secret.version);
    let host = format!("azure://Corp.{}/DB", world.vault.suffix());
    assert_eq!(azure.secret(&host).await.version, secret.version);
    assert_eq!((world.vault.count("get"), world.vault.count("versions")), (2, 1));
    assert_eq!(world.vault.refused(), ["no token"], "one challenge for all calls of a vault");
}

#[tokio::test]
async fn a_certificate_is_read_by_its_secret_as_the_pem_or_the_bytes_that_it_is() {
    let world = World::new().await;
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", world.canary());
    let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
    let set = |name, value: &str, kind: &str| {
        world.vault.set(
            "corp",
            name,
            json!({"value": value, "contentType": kind, "managed": true}),
            now() - 60,
            json!({}),
        );
    };
    set("pem", &pem, "application/x-pem-file");
    set("pfx", &STANDARD.encode(&bytes), "application/x-pkcs12");
    set("odd", "no base64!", "application/x-pkcs12");
    set("text", &STANDARD.encode(&bytes), "text/plain");
    let azure = world.azure("");
    assert_eq!(azure.text("azure://corp/pem").await, pem);
    assert_eq!(azure.secret("azure://corp/pfx").await.value.expose(), bytes);
    assert_eq!(azure.text("azure://corp/text").await, STANDARD.encode(&bytes), "only what is said to be one");
    let told = "azure (corp.vault.test): the content type of odd is application/x-pkcs12, and its value is no Base64: correct one of them";
    assert_eq!(world.refused(&azure, "azure://corp/odd").await, (ErrorKind::Malformed, told.into()));
}

#[tokio::test]
async fn large_empty_and_odd_values_are_true_to_the_byte() {
    let world = World::new().await;
    let large = world.canary() + &"é\u{1}\"\\/\n\t\u{10ffff}".repeat(1800);
    assert!(large.len() > 20_000);
    world.vault.put("large", &large);
    world.vault.put("empty", "");
    let azure = world.azure("");
    assert_eq!(azure.text("azure://corp/large").await, large);
    assert!(azure.secret("azure://corp/empty").await.value.is_empty());
}

#[tokio::test]
async fn a_rotation_arrives_and_a_pinned_version_stays() {
    let world = World::new().await;
    let (old, new) = (world.canary(), world.canary());
    let first = world.vault.put("db", &old);
    let azure = world.azure("");
    assert_eq!(azure.secret("azure://corp/db").await.version.label(), first);
    let second = world.vault.put("db", &new);
    assert_eq!(version_of(azure.version("azure://corp/db").await).label(), second);
    assert_eq!(azure.text("azure://corp/db").await, new);
    let pinned = format!("azure://corp/db?version={first}");
    assert_eq!((azure.text(&pinned).await, version_of(azure.version(&pinned).await).label()), (old, first.as_str()));
    assert_eq!(azure.batch(&id(&pinned)), None);
}

#[tokio::test]
async fn what_is_disabled_expired_or_not_valid_yet_is_not_used_whether_it_is_read_or_checked() {
    let world = World::new().await;
    for (name, attributes) in [
        ("off", json!({"enabled": false})),
        ("old", json!({"exp": 1_700_000_000})),
        ("new", json!({"nbf": 4_102_444_800_u64})),
        ("good", json!({"nbf": now() - 100, "exp": now() + 100})),
    ] {
        world.vault.set("corp", name, json!({"value": "x"}), now() - 60, attributes);
    }
    let azure = world.azure("");
    assert_eq!(azure.text("azure://corp/good").await, "x");
    for (name, told) in [
        ("off", "off is disabled: enable it, or set a new version"),
        ("old", "old has expired at 2023-11-14T22:13:20Z: set a new version, or a later expiration date"),
        ("new", "new is not valid before 2100-01-01T00:00:00Z (its activation date)"),
    ] {
        let expected = (ErrorKind::Forbidden, format!("azure (corp.vault.test): {told}"));
        let reference = format!("azure://corp/{name}");
        assert_eq!(world.refused(&azure, &reference).await, expected);
        let error = azure.version(&reference).await.unwrap_err();
        assert_eq!((error.kind(), world.message(&error)), expected, "checked alone");
        let many = azure.versions(&[id("azure://corp/good"), id(&reference)]).await;
        assert!(many[0].is_ok());
        assert_eq!(world.message(many[1].as_ref().unwrap_err()), expected.1, "checked with others");
    }
    assert!(world.vault.count("list") >= 3);
}

#[tokio::test]
async fn what_is_missing_says_so_whether_it_is_read_or_checked() {
    let world = World::new().await;
    world.vault.put("db", "x");
    let azure = world.azure("");
    let version = "0".repeat(32);
    let none =
        "there is no secret none in this vault: create it, recover it if it was deleted, or correct the reference";
    let pinned = format!("there is no db of version {version}: correct `?version=` or the name");
    for (reference, told) in
        [("azure://corp/none".to_owned(), none), (format!("azure://corp/db?version={version}"), pinned.as_str())]
    {
        let expected = (ErrorKind::NotFound, format!("azure (corp.vault.test): {told}"));
        assert_eq!(world.refused(&azure, &reference).await, expected);
        let error = azure.version(&reference).await.unwrap_err();
        assert_eq!((error.kind(), world.message(&error)), expected);
    }
    let many = azure.versions(&["azure://corp/db", "azure://corp/none"].map(id)).await;
    assert!(many[0].is_ok() && many[1].is_err(), "each by itself: {many:?}");
}
