//! How a host proves who it is: managed identities, federated tokens, certificates, a developer's token.

use crate::{
    support::{
        azure::{
            directory::{TENANT, now},
            entra, identity,
            vault::AUDIENCE,
        },
        bao::unique,
        server::Reply,
    },
    world::{Instance, World, id},
};
use dso::provider::ErrorKind;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const DB: &str = "azure://corp/db";

async fn world() -> World {
    let world = World::new().await;
    world.vault.put("db", "x");
    world
}

/// Reads again and again for a while; every read must succeed.
async fn under_load(azure: &Instance, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for text in futures_util::future::join_all((0..4).map(|_| azure.text(DB))).await {
            assert_eq!(text, "x");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_machine_proves_itself_by_its_own_identity_or_by_one_that_is_assigned_to_it() {
    let world = world().await;
    for (setting, parameter) in [
        (String::new(), None),
        (format!("auth.client_id = '{}'", identity::CLIENT), Some(("client_id", identity::CLIENT))),
        (format!("auth.object_id = '{}'", identity::OBJECT), Some(("object_id", identity::OBJECT))),
        (format!("auth.identity_id = '{}'", identity::RESOURCE), Some(("msi_res_id", identity::RESOURCE))),
    ] {
        let azure = world.azure(&setting);
        assert_eq!((azure.text(DB).await, azure.text(DB).await), ("x".into(), "x".into()));
        let asked = world.machine.asked().pop().unwrap();
        assert_eq!(asked["resource"], AUDIENCE);
        match parameter {
            Some((name, value)) => assert_eq!((asked.len(), asked[name].as_str()), (3, value)),
            None => assert_eq!(asked.len(), 2),
        }
    }
    assert_eq!((world.machine.asked().len(), world.machine.refused()), (4, vec![]), "one token for each");
    let none = world.azure("auth.client_id = 'another'");
    let (kind, told) = world.refused(&none, DB).await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    let end = ": 400 no token: assign a managed identity to this machine (of several, name one by `auth.client_id`, `auth.object_id` or `auth.identity_id`)";
    assert!(told.starts_with("azure (corp.vault.test): the instance metadata service at http://127.0.0.1:"), "{told}");
    assert!(told.ends_with(end), "{told}");
}

#[tokio::test]
async fn app_service_gives_a_token_to_whoever_knows_its_header() {
    let world = world().await;
    let header = world.guard(&format!("header-{}", unique()));
    let service = identity::Identity::app_service(&world.directory, &header).await;
    let endpoint = format!("auth.identity_endpoint = '{}/msi/token'\n", service.address());
    world.write("header", &format!("{header}\n"));
    for (more, parameter) in [
        (format!("auth.identity_header = '{header}'"), None),
        ("auth.identity_header_file = '/etc/dso/header'".to_owned(), None),
        (format!("auth.identity_header = '{header}'\nauth.object_id = '{}'", identity::OBJECT), Some("principal_id")),
        (format!("auth.identity_header = '{header}'\nauth.identity_id = '{}'", identity::RESOURCE), Some("mi_res_id")),
    ] {
        assert_eq!(world.plain(&format!("{endpoint}{more}")).text(DB).await, "x");
        let asked = service.asked().pop().unwrap();
        assert!(parameter.is_none_or(|name| asked.contains_key(name)), "{asked:?}");
    }
    let wrong = world.plain(&format!("{endpoint}auth.identity_header = 'wrong'"));
    let (kind, told) = world.refused(&wrong, DB).await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert!(
        told.ends_with("401 it does not take the identity header: is it the one of this start (IDENTITY_HEADER)?"),
        "{told}"
    );
    assert_eq!(service.refused(), ["a wrong identity header"]);
}

#[tokio::test]
async fn a_federated_token_is_exchanged_and_its_file_is_read_for_each_exchange() {
    let world = world().await;
    let entra = world.entra().await;
    let settings = format!(
        "authority_host = '{}'\nauth.tenant_id = '{TENANT}'\nauth.client_id = '{}'\nauth.token_file = '/etc/dso/token'",
        entra.address(),
        entra::CLIENT
    );
    let azure = world.plain(&settings);
    let told = "azure (corp.vault.test): no federated token: cannot read /etc/dso/token: No such file or directory (os error 2)";
    assert_eq!(world.refused(&azure, DB).await, (ErrorKind::Misconfigured, told.into()));
    world.directory.last(Duration::from_secs(3));
    let first = world.guard(&entra.federated(entra::SUBJECT));
    world.write("token", &first);
    let azure = world.plain(&settings);
    assert_eq!(azure.text(DB).await, "x");
    let second = world.guard(&entra.federated(entra::SUBJECT));
    world.write("token", &format!("{second}\n"));
    under_load(&azure, Duration::from_secs(4)).await;
    assert_eq!(entra.assertions()[..2], [first, second]);
    assert_eq!(entra.refused(), Vec::<String>::new());
    world.write("token", &world.guard(&entra.federated("another")));
    let (kind, told) = world.refused(&world.plain(&settings), DB).await;
    let expected = "azure (corp.vault.test): Entra ID gives the host no token: AADSTS700213: no federated credential of the identity fits the token: check its issuer, subject and audience";
    assert_eq!((kind, told.as_str()), (ErrorKind::Unauthenticated, expected));
}

#[tokio::test]
async fn a_certificate_signs_an_assertion_that_entra_verifies() {
    let world = world().await;
    let entra = world.entra().await;
    let (pem, public) = world.certificates.client();
    entra.trust(&pem, &public);
    world.write("client.pem", &pem);
    let settings = |certificate: &str| {
        format!(
            "authority_host = '{}/'\nauth.tenant_id = '{TENANT}'\nauth.client_id = '{}'\nauth.certificate_file = '{certificate}'",
            entra.address(),
            entra::CLIENT
        )
    };
    assert_eq!(world.plain(&settings("/etc/dso/client.pem")).text(DB).await, "x");
    entra.assertions().iter().for_each(|assertion| drop(world.guard(assertion)));
    let (key, certificate) = pem.split_at(pem.find("-----BEGIN CERTIFICATE").unwrap());
    world.guard(key.lines().nth(3).unwrap());
    world.write("cert.pem", certificate);
    world.write("key.pem", key);
    let two = settings("/etc/dso/cert.pem") + "\nauth.key_file = '/etc/dso/key.pem'";
    assert_eq!(world.plain(&two).text(DB).await, "x");
    assert_eq!(entra.refused(), Vec::<String>::new());
    let (other, _) = world.certificates.client();
    world.write("other.pem", &other);
    world.write("pfx", "\u{30}\u{0}");
    for (settings, kind, end) in [
        (
            settings("/etc/dso/other.pem"),
            ErrorKind::Unauthenticated,
            "AADSTS700027: the certificate is not one of the application's: upload it there, or correct `auth.certificate_file`",
        ),
        (
            settings("/etc/dso/cert.pem"),
            ErrorKind::Misconfigured,
            "/etc/dso/cert.pem holds no unencrypted RSA private key in PEM, which Entra ID asks for",
        ),
        (
            settings("/etc/dso/pfx"),
            ErrorKind::Misconfigured,
            "/etc/dso/pfx is no PEM file: write a PKCS#12 file anew as one (openssl pkcs12 -in FILE -nodes -out /etc/dso/pfx)",
        ),
    ] {
        let (found, told) = world.refused(&world.plain(&settings), DB).await;
        assert_eq!(found, kind, "{told}");
        assert!(told.ends_with(end), "{told}");
    }
}

#[tokio::test]
async fn a_developers_token_is_what_the_azure_cli_printed_until_it_ends() {
    let world = world().await;
    let azure = || world.plain("auth.method = 'cli'");
    let print = |life: i64| {
        let (token, _) = world.directory.issue(AUDIENCE);
        let printed = json!({"accessToken": token, "expiresOn": "2026-01-01 00:00:00.000000",
            "expires_on": now() as i64 + life, "subscription": "s", "tenant": TENANT, "tokenType": "Bearer"});
        world.write("azure-token.json", &printed.to_string());
    };
    assert!(
        world
            .refused(&azure(), DB)
            .await
            .1
            .contains("no token of the Azure CLI: cannot read /etc/dso/azure-token.json")
    );
    print(3600);
    assert_eq!(azure().text(DB).await, "x");
    print(-1);
    let (kind, told) = world.refused(&azure(), DB).await;
    let expected = "azure (corp.vault.test): the token in /etc/dso/azure-token.json has ended: write it anew: az account get-access-token --resource https://vault.azure.net > /etc/dso/azure-token.json";
    assert_eq!((kind, told.as_str()), (ErrorKind::Unauthenticated, expected));
    world.write("azure-token.json", "eyJ0.x.y");
    assert!(world.refused(&azure(), DB).await.1.contains("is not what the Azure CLI (2.54 or newer) prints as JSON"));
}

#[tokio::test]
async fn tokens_of_three_seconds_serve_without_a_failed_read_and_none_is_shown_after_its_end() {
    let world = world().await;
    world.directory.last(Duration::from_secs(3));
    let azure = world.azure("");
    under_load(&azure, Duration::from_secs(8)).await;
    let loads = world.machine.asked().len();
    assert!((3..=9).contains(&loads), "{loads} tokens");
    let refused = world.vault.refused();
    assert!(
        refused.len() <= 4 && refused.iter().all(|why| why == "no token"),
        "but for the first challenges: {refused:?}"
    );
}

#[tokio::test]
async fn a_token_that_a_vault_takes_no_more_is_replaced_at_once_and_one_that_it_never_takes_is_told() {
    let world = world().await;
    let azure = world.azure("");
    assert_eq!(azure.text(DB).await, "x");
    sleep(Duration::from_millis(1100)).await;
    world.directory.revoke_all();
    assert_eq!(azure.text(DB).await, "x");
    assert_eq!(world.machine.asked().len(), 2);
    let foreign = json!({"accessToken": "foreign-token", "expires_on": now() + 60});
    world.write("azure-token.json", &foreign.to_string());
    let told = "azure (corp.vault.test): 401 the vault does not take the host's token: is the identity of the vault's own tenant (directory)?";
    assert_eq!(world.refused(&world.plain("auth.method = 'cli'"), DB).await, (ErrorKind::Unauthenticated, told.into()));
}

#[tokio::test]
async fn an_identity_that_cannot_be_had_now_is_asked_for_later() {
    let world = world().await;
    for (status, kind) in [(429, ErrorKind::Throttled), (500, ErrorKind::Unavailable), (410, ErrorKind::Unavailable)] {
        world.machine.fail(Reply::new(status, "").header("retry-after", "9"));
        let error = world.azure("").read(&id(DB)).await.unwrap_err();
        assert_eq!((error.kind(), error.delay()), (kind, Some(Duration::from_secs(9))), "{error}");
    }
    let entra = world.entra().await;
    world.write("token", &world.guard(&entra.federated(entra::SUBJECT)));
    let settings = format!(
        "authority_host = '{}'\nauth.tenant_id = '{TENANT}'\nauth.client_id = '{}'\nauth.token_file = '/etc/dso/token'",
        entra.address(),
        entra::CLIENT
    );
    for (status, kind) in [(429, ErrorKind::Throttled), (503, ErrorKind::Unavailable)] {
        entra.fail(Reply::new(status, "<html>").header("retry-after", "9"));
        let error = world.plain(&settings).read(&id(DB)).await.unwrap_err();
        assert_eq!((error.kind(), error.delay()), (kind, Some(Duration::from_secs(9))), "{error}");
    }
    let nowhere = world.plain("auth.metadata_endpoint = 'http://127.0.0.1:1'");
    let (kind, told) = world.refused(&nowhere, DB).await;
    assert_eq!(kind, ErrorKind::Unreachable);
    assert!(told.contains("cannot connect: does this host run in Azure?"), "{told}");
}
