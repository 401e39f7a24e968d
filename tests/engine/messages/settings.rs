//! Faults of dso.toml: the plugin starts, volumes go on existing, and whoever needs what is broken is told.

use super::assert_all;
use crate::vault::world::{World, instance};
use serde_json::json;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_dso_toml_leaves_volumes_in_place_and_is_told_by_the_mount() {
    let world = World::start().await;
    let canary = world.canary();
    world.bao.put("secret", "app", json!({"password": canary})).await;
    world.dso(&["set", "pin"], canary.as_bytes());
    world.volume("remote", &["from=vault://secret/app"]);
    world.volume("local", &["file.pin=local://pin"]);
    // A secret of its own: the mounts that fail must not be what tells of it.
    world.bao.put("secret", "own", json!({"password": canary})).await;
    world.volume("mounted", &["from=vault://secret/own"]);
    let whole = fs::read_to_string(world.plugin.config_dir().join("dso.toml")).unwrap();
    world.keep("mounted");

    world.write("dso.toml", format!("{whole}\nauth.token_file = \"{canary}\n"));
    world.plugin.kill();
    let listed = world.plugin.engine().docker(&["volume", "ls", "--format", "{{.Name}}"]);
    for volume in ["remote", "local", "mounted"] {
        assert!(listed.lines().any(|name| name == world.plugin.named(volume)), "{volume} in {listed}");
    }
    assert_eq!(world.status("remote")["state"], "idle");
    assert_all([
        (
            world.no_container("remote"),
            r#"dso: volume `remote`: option `from`: `vault://secret/app`: /etc/dso/dso.toml: invalid basic string, expected `"` (line 6): mend the file"#,
        ),
        (
            world.no_container("local"),
            r#"dso: volume `local`: option `file.pin`: `local://pin`: /etc/dso/dso.toml: invalid basic string, expected `"` (line 6): mend the file"#,
        ),
        (
            world.no_volume("new", &["from=vault://secret/app"]),
            r#"dso: volume `new`: option `from`: `vault://secret/app`: /etc/dso/dso.toml: invalid basic string, expected `"` (line 6): mend the file"#,
        ),
        (
            world.error_when("mounted", "stale"),
            r#"`vault://secret/own`: /etc/dso/dso.toml: invalid basic string, expected `"` (line 6): mend the file"#,
        ),
    ]);
    assert_eq!(world.read("mounted", "password"), canary);

    world.write("dso.toml", &whole);
    world.plugin.kill();
    assert_eq!(world.run("local", &["cat", "/secrets/pin"]), canary);
    assert_eq!(world.run("remote", &["cat", "/secrets/password"]), canary);
    world.status_when("mounted", "current");
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_fault_is_told_to_those_who_need_it_and_the_others_go_on() {
    let faulty = [
        "[provider.corp]\ntype = 'vualt'\n".to_owned(),
        "[provider.none]\naddress = 'https://vault.example'\n".to_owned(),
        instance(
            "eu",
            "https://user:CANARY@vault.example",
            "adress = 'x'\nauth.method = 'userpass'\nauth.token = 'CANARY'",
        ),
        instance("elsewhere", "vault.example:8200", "ca_file = '/root/ca.pem'"),
    ];
    let canary = format!("canary-{}", crate::support::bao::unique());
    let world = World::with(&faulty.concat().replace("CANARY", &canary), |plugin| plugin).await;
    world.guard(&canary);
    world.bao.put("secret", "app", json!({"password": world.canary()})).await;
    let refused = |reference: &str| world.no_volume("v", &[&format!("from={reference}")]);
    assert_all([
        (
            refused("corp://secret/app"),
            "dso: volume `v`: option `from`: `corp://secret/app`: provider `corp` is left out: [provider.corp]: unknown type `vualt`: did you mean `vault`?; mend /etc/dso/dso.toml",
        ),
        (
            refused("none://secret/app"),
            "dso: volume `v`: option `from`: `none://secret/app`: provider `none` is left out: [provider.none]: `type` must be one of aws, azure, local, vault; mend /etc/dso/dso.toml",
        ),
        (
            refused("eu://secret/app"),
            "dso: volume `v`: option `from`: `eu://secret/app`: provider `eu` is left out: [provider.eu]: `auth.token` would carry a credential, and dso takes none in its settings: put the token into a file and name it by `auth.token_file`; [provider.eu]: `address` must not carry a user name or a password; [provider.eu]: `auth.method` names an unknown method `userpass`: known are `token-file`, `approle`, `jwt`, `kubernetes`, `cert`, `aws`, `azure`, `gcp`; [provider.eu]: unknown key `adress`: did you mean `address`?; mend /etc/dso/dso.toml",
        ),
        (
            refused("elsewhere://secret/app"),
            "dso: volume `v`: option `from`: `elsewhere://secret/app`: provider `elsewhere` is left out: [provider.elsewhere]: `address` must start with `https://` or `http://` and name a host; [provider.elsewhere]: `ca_file` cannot be used: `/root/ca.pem` is not under /etc/dso, which is all that dso sees of the host; mend /etc/dso/dso.toml",
        ),
        (
            refused("copr://secret/app"),
            "dso: volume `v`: option `from`: `copr://secret/app`: unknown provider `copr`: did you mean `corp`?",
        ),
    ]);
    world.volume("v", &["from=vault://secret/app"]);
    world.run("v", &["test", "-s", "/secrets/password"]);
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_vault_a_reference_to_one_says_how_to_set_it_up() {
    let world = World::start().await;
    world.plugin.disable();
    world.write("dso.toml", "");
    world.plugin.enable();
    assert_all([(
        world.no_volume("v", &["from=vault://secret/app"]),
        "dso: volume `v`: option `from`: `vault://secret/app`: provider `vault` is not set up: write [provider.vault] in /etc/dso/dso.toml, or disable the plugin and set VAULT_ADDR with `docker plugin set`",
    )]);
    world.nothing_leaked();
}
