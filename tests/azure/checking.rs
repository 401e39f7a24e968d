//! Version checks: how many calls they make, that they read no value, and what they fall back to.

use crate::{
    support::{
        azure::{
            directory::now,
            vault::{Call, Fault},
        },
        instance::version_of,
    },
    world::{Instance, World, id},
};
use dso::{
    provider::{ErrorKind, Observed},
    secret::SecretId,
};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};

/// Secrets that are in use: each was read once.
async fn in_use(world: &World, azure: &Instance, count: usize) -> Vec<Arc<SecretId>> {
    for n in 0..count {
        world.vault.put(&format!("s{n}"), "x");
    }
    let ids: Vec<_> = (0..count).map(|n| id(&format!("azure://corp/s{n}"))).collect();
    for id in &ids {
        azure.read(id).await.unwrap();
    }
    world.vault.forget();
    ids
}

fn counts(world: &World) -> [usize; 3] {
    ["list", "versions", "get"].map(|action| world.vault.count(action))
}

#[tokio::test]
async fn secrets_of_a_vault_are_one_list_a_lone_one_is_one_list_of_its_versions_and_no_value_is_read() {
    let world = World::new().await;
    let azure = world.azure("");
    let ids = in_use(&world, &azure, 60).await;
    let batches: BTreeSet<_> = ids.iter().map(|id| azure.batch(id)).collect();
    assert!(batches.len() == 1 && batches.first().unwrap().is_some(), "one batch: {batches:?}");
    assert_ne!(azure.batch(&id("azure://other/s0")), azure.batch(&ids[0]), "of one vault");
    let versions: Vec<_> = azure.versions(&ids).await.into_iter().map(version_of).collect();
    assert_eq!(counts(&world), [3, 0, 0], "25 on a page");
    assert_eq!(version_of(azure.version("azure://corp/s7").await), versions[7]);
    assert_eq!(counts(&world), [3, 1, 0]);
    let pages: Vec<_> = world.vault.calls().into_iter().map(|Call { page, .. }| page).collect();
    assert_eq!(pages, [0, 1, 2, 0]);
}

#[tokio::test]
async fn a_change_that_the_list_shows_is_one_more_call_and_then_is_known() {
    let world = World::new().await;
    let azure = world.azure("");
    let ids = in_use(&world, &azure, 10).await;
    let second = world.vault.put("s3", "y");
    let versions: Vec<_> = azure.versions(&ids).await.into_iter().map(version_of).collect();
    assert_eq!((versions[3].label(), counts(&world)), (second.as_str(), [1, 1, 0]));
    azure.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!(counts(&world), [2, 1, 0], "it is known");
    world.vault.change("s4", json!({"updated": now() - 10}));
    let versions: Vec<_> = azure.versions(&ids).await.into_iter().map(version_of).collect();
    assert_eq!(counts(&world), [3, 2, 0], "what changed beside the value is looked at once");
    assert_eq!(versions[4], azure.secret("azure://corp/s4").await.version);
    world.vault.delete("s5");
    let found = azure.versions(&ids).await;
    assert_eq!(found[5].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_version_of_this_very_second_is_looked_at_again_since_another_may_hide_behind_it() {
    let world = World::new().await;
    let azure = world.azure("");
    let mut ids = in_use(&world, &azure, 2).await;
    let made = now();
    let set = |value: &str| world.vault.set("corp", "fresh", json!({"value": value}), made, json!({}));
    let first = set("1");
    ids.push(id("azure://corp/fresh"));
    assert_eq!(azure.secret("azure://corp/fresh").await.version.label(), first);
    let second = set("2");
    // Two versions of one second: which is the last one tells the read alone.
    assert_eq!(azure.versions(&ids).await.remove(2).unwrap(), Observed::Unversioned);
    assert_eq!(azure.secret("azure://corp/fresh").await.version.label(), second);
    assert_eq!(azure.text("azure://corp/fresh").await, "2");
}

#[tokio::test]
async fn where_the_policy_forbids_lists_a_secret_is_unversioned_and_that_is_remembered() {
    let world = World::new().await;
    let azure = world.azure("");
    let ids = in_use(&world, &azure, 4).await;
    world.vault.forbid("list");
    azure.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!((counts(&world), azure.batch(&ids[0])), ([1, 4, 0], None));
    world.vault.forbid("versions");
    for _ in 0..2 {
        assert!(azure.versions(&ids).await.into_iter().all(|found| found.unwrap() == Observed::Unversioned));
    }
    assert_eq!(counts(&world), [1, 8, 0], "both refusals are known");
    assert_eq!(azure.text("azure://corp/s0").await, "x", "and reading is allowed");
}

#[tokio::test]
async fn a_vault_with_more_pages_than_secrets_in_use_is_not_listed_again() {
    let world = World::new().await;
    for n in 0..80 {
        world.vault.put(&format!("a{n:02}"), "x");
    }
    let azure = world.azure("");
    let ids = in_use(&world, &azure, 2).await;
    azure.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!((counts(&world), azure.batch(&ids[0])), ([2, 2, 0], None));
}

#[tokio::test]
async fn a_list_that_takes_too_long_is_left_for_a_while_and_each_secret_is_asked_for_by_itself() {
    let world = World::new().await;
    let azure = world.azure("timeout = '1s'");
    let ids = in_use(&world, &azure, 4).await;
    world.vault.fail("list", usize::MAX, Fault::Hang);
    azure.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!((counts(&world), azure.batch(&ids[0])), ([1, 4, 0], None));
    azure.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!(counts(&world), [1, 8, 0], "it is not waited for again");
}

#[tokio::test]
async fn a_vault_of_very_many_pages_is_not_listed_to_its_end() {
    let world = World::new().await;
    let azure = world.azure("");
    let ids = in_use(&world, &azure, 30).await;
    world.vault.begin_lists_with_empty_pages(40);
    azure.versions(&ids).await.into_iter().for_each(drop);
    assert_eq!((world.vault.count("list"), azure.batch(&ids[0])), (20, None));
}

#[tokio::test]
async fn versions_behind_empty_pages_are_no_reason_to_say_that_there_is_no_such_secret() {
    let world = World::new().await;
    let azure = world.azure("");
    let ids = in_use(&world, &azure, 1).await;
    world.vault.begin_lists_with_empty_pages(2);
    version_of(azure.versions(&ids).await.remove(0));
    world.vault.begin_lists_with_empty_pages(4);
    assert_eq!(azure.versions(&ids).await.remove(0).unwrap(), Observed::Unversioned);
    assert_eq!(azure.text("azure://corp/s0").await, "x");
}

#[tokio::test]
async fn a_secret_with_ten_thousand_versions_is_read_instead() {
    let world = World::new().await;
    let azure = world.azure("");
    let mut last = String::new();
    for n in 0..10_000 {
        last = world.vault.set("corp", "old", json!({"value": n.to_string()}), now() - 20_000 + n, json!({}));
    }
    let many = id("azure://corp/old");
    assert_eq!(azure.version("azure://corp/old").await.unwrap(), Observed::Unversioned);
    assert_eq!(counts(&world), [0, 4, 0], "four pages, and there are more");
    assert_eq!(azure.version("azure://corp/old").await.unwrap(), Observed::Unversioned);
    assert_eq!(counts(&world), [1, 4, 0], "that is remembered, and the vault's list knows no version");
    assert_eq!(azure.read(&many).await.unwrap().version.label(), last);
    assert_eq!(version_of(azure.version("azure://corp/old").await).label(), last);
    assert_eq!(counts(&world), [2, 4, 1], "but whether it has changed");
    // With others of its vault it is in the list, and needs no more.
    let mut ids = in_use(&world, &azure, 3).await;
    ids.push(many);
    assert_eq!(version_of(azure.versions(&ids).await.remove(3)).label(), last);
    assert_eq!(counts(&world), [1, 0, 0]);
}

#[tokio::test]
async fn a_hundred_versions_are_told_apart_in_whatever_order_they_come() {
    let world = World::new().await;
    let azure = world.azure("");
    let mut last = String::new();
    for _ in 0..100 {
        last = world.vault.put("db", "x");
    }
    assert_eq!(version_of(azure.version("azure://corp/db").await).label(), last);
    assert_eq!(counts(&world), [0, 4, 0]);
}

#[tokio::test]
async fn with_list_off_each_is_asked_for_by_itself() {
    let world = World::new().await;
    let azure = world.azure("list = false");
    let ids = in_use(&world, &azure, 3).await;
    assert_eq!(azure.batch(&ids[0]), None);
    azure.versions(&ids).await.into_iter().for_each(|found| drop(version_of(found)));
    assert_eq!(counts(&world), [0, 3, 0]);
}

#[tokio::test]
async fn a_list_that_goes_on_at_another_host_gets_no_token_there() {
    let world = World::new().await;
    let azure = world.azure("");
    let ids = in_use(&world, &azure, 30).await;
    let elsewhere = format!("evil.{}", world.vault.suffix());
    world.vault.continue_lists_at(&elsewhere);
    for found in azure.versions(&ids).await {
        let error = found.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let told = "azure (corp.vault.test): corp.vault.test refers to another host: nothing was sent there";
        assert_eq!(world.message(&error), told);
    }
    assert!(world.vault.calls().iter().all(|call| call.host == "corp"), "{:?}", world.vault.calls());
    assert_eq!(world.vault.refused(), Vec::<String>::new(), "not even without a token");
}
