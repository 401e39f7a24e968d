//! What `docker dso doctor` is told of a server.

use crate::world::World;
use dso::findings::{Finding, Level};
use serde_json::json;

const METADATA: &str = "path \"secret/data/*\" { capabilities = [\"read\"] }";

async fn of(world: &World, check: &str) -> Finding {
    let vault = world.vault("");
    let findings = vault.examine().await;
    let shown = format!("{findings:?}");
    world.hides(&shown);
    findings.into_iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("no {check} in {shown}"))
}

#[track_caller]
fn is(finding: &Finding, level: Level, message: &str, advice: &str) {
    let right = finding.level == level && finding.message.contains(message) && finding.advice.contains(advice);
    assert!(right, "{finding:?}");
}

#[tokio::test]
async fn who_dso_is_and_how_long() {
    let world = World::new().await;
    is(&of(&world, "provider").await, Level::Ok, "the server answers", "");
    is(&of(&world, "clock").await, Level::Ok, "this host's clock is the server's", "");
    is(
        &of(&world, "identity").await,
        Level::Warning,
        "logged in by token-file as `token`",
        "a root token may do everything",
    );
    world.log_in_with(METADATA).await;
    let finding = of(&world, "identity").await;
    is(&finding, Level::Ok, "with the policies default, p; the token: ", "");
    assert!(finding.message.contains(" old, ends in "), "{finding:?}");
    let ending = world.guard(&world.bao.token(&["p"], json!({"ttl": "10m", "renewable": false})).await);
    world.write("vault-token", &ending);
    is(&of(&world, "identity").await, Level::Warning, "ends in ", "put a new token into the file before it ends");
    let mute = world.guard(&world.bao.token(&["p"], json!({"no_default_policy": true})).await);
    world.write("vault-token", &mute);
    is(&of(&world, "identity").await, Level::Error, "", "");
    world.write("vault-token", &world.canary());
    is(&of(&world, "identity").await, Level::Error, "", "look at what the login in dso.toml names");
}

#[tokio::test]
async fn a_server_that_is_sealed_or_gone() {
    let world = World::new().await;
    world.bao.seal().await;
    is(&of(&world, "provider").await, Level::Error, "the server is sealed", "unseal it");
    let vault = world.vault_at("http://127.0.0.1:9", "");
    let findings = vault.examine().await;
    is(&findings[0], Level::Error, "connection refused", "bring the server back");
    assert_eq!(findings.len(), 1, "one thing is wrong, and is told once");
}
