//! What `docker dso doctor` is told of Azure.

use crate::{
    support::{
        azure::{
            directory::{TENANT, now},
            entra::{CLIENT, SUBJECT},
            identity,
            vault::{Fault, error, forbidden},
        },
        server::Reply,
    },
    world::{Instance, World},
};
use dso::findings::Level;
use serde_json::json;
use std::time::Duration;

const DB: &str = "azure://corp/db";

/// Of each finding the level, what was looked at, the message without ports, and whether it has advice.
async fn told(world: &World, azure: &Instance) -> Vec<(Level, String, String, bool)> {
    let findings = azure.examine().await.into_iter();
    let told = findings.map(|finding| {
        let message = world.hidden(&format!("{} {}", finding.message, finding.advice));
        let (message, advice) = (message.trim_end_matches(&finding.advice).trim().to_owned(), finding.advice);
        (finding.level, finding.check, message, !advice.is_empty())
    });
    told.collect()
}

#[tokio::test]
async fn who_the_host_is_how_long_and_what_it_may_do_in_each_vault_in_use() {
    let world = World::new().await;
    world.vault.put("db", &world.canary());
    let azure = world.azure("");
    let before = told(&world, &azure).await;
    assert_eq!(before.len(), 1, "no vault is in use: {before:?}");
    assert_eq!(world.vault.calls(), [], "and none is asked");
    azure.secret(DB).await;
    world.vault.forget();
    let now = told(&world, &azure).await;
    let (level, check, message, advice) = now[0].clone();
    assert_eq!((level, check.as_str(), advice), (Level::Ok, "identity", false));
    let (who, life) = message.split_once("; its token: ").unwrap();
    assert_eq!(who, "the managed identity of this machine");
    assert!(life.contains("s old, ends in 59m "), "{life}");
    let rest: Vec<_> =
        now[1..].iter().map(|(level, check, message, _)| (*level, check.as_str(), message.as_str())).collect();
    let expected = [
        (Level::Ok, "provider", "corp.vault.test answers"),
        (Level::Ok, "policy", "db of corp.vault.test may be read"),
        (Level::Ok, "policy", "the secrets of corp.vault.test may be listed"),
    ];
    assert_eq!(rest, expected);
    assert_eq!((world.vault.values(), world.machine.asked().len()), (0, 1), "no value, and the token that there is");
    let plain = world.azure("list = false");
    plain.secret(DB).await;
    assert_eq!(told(&world, &plain).await.len(), 3, "what is not wanted is not asked for");
}

#[tokio::test]
async fn each_identity_is_named_as_it_was_configured() {
    let world = World::new().await;
    let entra = world.entra().await;
    world.write("federated", &world.guard(&entra.federated(SUBJECT)));
    let (pem, public) = world.certificates.client();
    world.write("client.pem", &pem);
    entra.trust(&pem, &public);
    let application =
        format!("authority_host = '{}'\nauth.tenant_id = '{TENANT}'\nauth.client_id = '{CLIENT}'\n", entra.address());
    let (token, ends) = world.directory.issue("https://vault.test");
    world.write("azure-token.json", &json!({"accessToken": token, "expires_on": ends}).to_string());
    let machine = format!("auth.client_id = '{}'", identity::CLIENT);
    for (azure, level, who) in [
        (world.azure(&machine), Level::Ok, format!("the managed identity {} of this machine", identity::CLIENT)),
        (
            world.plain(&format!("{application}auth.token_file = '/etc/dso/federated'")),
            Level::Ok,
            format!("the application {CLIENT} of the tenant {TENANT}, by a federated token"),
        ),
        (
            world.plain(&format!("{application}auth.certificate_file = '/etc/dso/client.pem'")),
            Level::Ok,
            format!("the application {CLIENT} of the tenant {TENANT}, by a certificate"),
        ),
        // An hour at most: it is a person who must renew it.
        (
            world.plain("auth.method = 'cli'"),
            Level::Warning,
            "the Azure CLI's user, by /etc/dso/azure-token.json".to_owned(),
        ),
    ] {
        let told = told(&world, &azure).await;
        let (found, check, message, advice) = &told[0];
        assert_eq!((*found, check.as_str(), *advice), (level, "identity", level != Level::Ok), "{told:?}");
        assert!(message.starts_with(&format!("{who}; its token: 0s old, ends in ")), "{message}");
    }
    assert!(ends > now());
}

#[tokio::test]
async fn what_is_wrong_is_an_error_with_its_advice_and_is_told_once() {
    let world = World::new().await;
    world.vault.put("db", &world.canary());
    let nobody = world.plain("auth.metadata_endpoint = 'http://127.0.0.1:1'");
    let found = told(&world, &nobody).await;
    assert!(
        found[0].0 == Level::Error && found[0].2.contains("does this host run in Azure?") && found[0].3,
        "{found:?}"
    );
    assert_eq!(found.len(), 1);
    for (action, reply, expected) in [
        (
            "get",
            forbidden("ForbiddenByRbac"),
            &[(Level::Ok, "provider"), (Level::Error, "policy"), (Level::Ok, "policy")][..],
        ),
        (
            "list",
            forbidden("ForbiddenByRbac"),
            &[(Level::Ok, "provider"), (Level::Ok, "policy"), (Level::Warning, "policy")],
        ),
        ("get", error(503, "Unavailable", None, "canary"), &[(Level::Error, "provider")]),
        ("list", Reply::new(503, ""), &[(Level::Ok, "provider"), (Level::Ok, "policy"), (Level::Error, "provider")]),
    ] {
        let azure = world.azure("");
        azure.secret(DB).await;
        world.vault.fail(action, 1, Fault::Answer(reply));
        let found = told(&world, &azure).await;
        let levels: Vec<_> = found[1..].iter().map(|(level, check, ..)| (*level, check.as_str())).collect();
        assert_eq!(levels, expected, "{found:?}");
        assert!(found.iter().all(|(level, _, _, advice)| *advice == (*level != Level::Ok)), "{found:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_renewed_is_told_before_it_ends() {
    let world = World::new().await;
    world.vault.put("db", "x");
    // Renewed a second after it was given, and good for five.
    world.directory.last(Duration::from_secs(2));
    let azure = world.azure("");
    azure.secret(DB).await;
    world.directory.last(Duration::from_secs(3600));
    for _ in 0..20 {
        world.machine.fail(Reply::new(503, ""));
    }
    let warned = async || told(&world, &azure).await.remove(0).2.contains(", and no new one is given: ");
    crate::support::bao::eventually("a renewal that failed", warned).await;
}
