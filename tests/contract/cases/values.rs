//! What is read is what was written.

use crate::world::{PATIENT, World, json_of};
use dso::provider::ErrorKind;
use serde_json::json;

pub async fn a_secret_is_read_with_its_fields_and_its_version(world: &impl World) {
    let (canary, provider) = (world.canary(), world.instance(PATIENT));
    let fields = json!({"user": "app", "password": canary, "n": 123456789012345u64, "nested": {"port": 5432, "hosts": ["a", null]}});
    world.put("app", &fields).await;
    let secret = world.read(&*provider, "app").await;
    assert_eq!(json_of(&secret), fields);
    for (field, expected) in
        [("password", canary.as_str()), ("nested", r#"{"port":5432,"hosts":["a",null]}"#), ("/nested/port", "5432")]
    {
        let value = secret.value.field(&field.parse().unwrap()).unwrap();
        let (found, expected) = (String::from_utf8(value.expose().to_vec()).unwrap(), expected.to_owned());
        // An object's keys have no order.
        assert!(
            found == expected
                || serde_json::from_str::<serde_json::Value>(&found).unwrap()
                    == expected.parse::<serde_json::Value>().unwrap()
        );
    }
    assert!(!secret.version.label().is_empty());
    assert_eq!(world.version(&*provider, "app").await, secret.version);
}

pub async fn what_is_binary_is_true_to_the_byte(world: &impl World) {
    let provider = world.instance(PATIENT);
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(b"\r\n\0");
    let expected = world.put_binary("binary", &bytes).await;
    assert!(world.read(&*provider, "binary").await.value.expose() == expected);
}

pub async fn sixty_four_kib_are_read_whole<W: World>(world: &W) {
    let (canary, provider) = (world.canary(), world.instance(PATIENT));
    let text = |filler: usize| json!({"large": format!("{canary}é\u{1}\"\\/\n\u{10ffff}{}", "x".repeat(filler))});
    let around = text(0).to_string().len();
    let limit = W::LARGEST;
    let fields = text(limit - around);
    assert_eq!(fields.to_string().len(), limit);
    world.put("large", &fields).await;
    assert!(json_of(&world.read(&*provider, "large").await) == fields);
    let bytes: Vec<u8> = (0..=255).cycle().take(limit * 3 / 4).collect();
    let expected = world.put_binary("large-binary", &bytes).await;
    assert!(world.read(&*provider, "large-binary").await.value.expose() == expected);
}

pub async fn an_empty_field_is_an_empty_value_and_an_empty_secret_is_what_the_provider_says(world: &impl World) {
    let provider = world.instance(PATIENT);
    world.put("app", &json!({"empty": ""})).await;
    let secret = world.read(&*provider, "app").await;
    assert!(secret.value.field(&"empty".parse().unwrap()).unwrap().is_empty());
    match world.put_empty("nothing").await {
        Ok(expected) => {
            let secret = world.read(&*provider, "nothing").await;
            assert_eq!(secret.value.expose(), expected);
            assert_eq!(world.version(&*provider, "nothing").await, secret.version);
        }
        Err(kind) => {
            let error = world.refused(&*provider, "nothing").await;
            assert_eq!(error.kind(), kind, "{error}");
            let error = provider.versions(&[world.id("nothing")]).await.remove(0).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}

pub async fn names_may_be_as_odd_as_the_provider_lets_them<W: World>(world: &W) {
    let provider = world.instance(PATIENT);
    for (n, name) in W::NAMES.iter().enumerate() {
        world.put(name, &json!({"größe": format!("ключ {n}")})).await;
        let secret = world.read(&*provider, name).await;
        let field = secret.value.field(&"größe".parse().unwrap()).unwrap();
        assert_eq!(field.expose(), format!("ключ {n}").as_bytes(), "{name}");
        assert_eq!(world.version(&*provider, name).await, secret.version, "{name}");
    }
    let all: Vec<_> = W::NAMES.iter().map(|name| world.id(name)).collect();
    for id in &all {
        let batch: Vec<_> = all.iter().filter(|other| provider.batch(other) == provider.batch(id)).cloned().collect();
        assert!(provider.versions(&batch).await.iter().all(Result::is_ok), "as one of its batch: {id}");
    }
    assert!(provider.read_many(&all).await.iter().all(Result::is_ok));
    if !W::UNICODE {
        let error = world.refused(&*provider, "größe").await;
        assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Misconfigured), "{error}");
        assert!(provider.versions(&[world.id("größe")]).await.remove(0).is_err());
    }
}

pub async fn many_are_read_in_the_order_of_the_question_and_one_fault_is_its_own(world: &impl World) {
    let provider = world.instance(PATIENT);
    let mut names: Vec<_> = (0..25).map(|n| format!("s{n}")).collect();
    for name in &names {
        world.put(name, &json!({"name": name})).await;
    }
    names.swap(3, 22);
    names.insert(7, "none".into());
    let ids: Vec<_> = names.iter().map(|name| world.id(name)).collect();
    let found = provider.read_many(&ids).await;
    assert_eq!(found.len(), names.len());
    for (name, found) in names.iter().zip(found) {
        match found {
            Ok(secret) => assert_eq!(json_of(&secret), json!({"name": name})),
            Err(error) => assert_eq!((name.as_str(), error.kind()), ("none", ErrorKind::NotFound), "{error}"),
        }
    }
    let alone = world.read(&*provider, "s22").await;
    assert_eq!(provider.read_many(&ids[3..5]).await.remove(0).unwrap().version, alone.version);
}
