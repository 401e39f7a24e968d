//! What a container finds in its volume, and what it finds later.

use super::world::{EachStr, World, instance};
use crate::support::{SOON, wait_for};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_source_is_served_by_either_login_in_one_volume() {
    let login =
        "auth.method = 'approle'\nauth.role_id_file = '/etc/dso/role-id'\nauth.secret_id_file = '/etc/dso/secret-id'";
    let world = World::with(&instance("role", "PROXY", login), |plugin| plugin).await;
    let bao = &world.bao;
    bao.mount("team/old", "kv", "1").await;
    bao.api("PUT", "team/old/app/db", json!({"url": "db:5432"})).await;
    let nested =
        json!({"user": "app", "pass": world.canary(), "tls": {"chain": ["root", {"pem": "PEM\n"}]}, "n": 1.50});
    bao.put("secret", "app/eu/db", nested.clone()).await;
    bao.policy(
        "dso",
        r#"path "secret/data/app/*" { capabilities = ["read"] } path "team/old/app/*" { capabilities = ["read"] }"#,
    )
    .await;
    let role = bao.approle("approle", "dso", json!({"token_policies": "dso", "token_ttl": "1h"})).await;
    world.write("role-id", &role.role_id);
    world.write("secret-id", world.guard(&role.secret_id));
    world.dso(&["set", "key"], b"\x00\xff\x7f\n");

    world.volume("all", &[
        "from=vault://team/old/app/db",
        "file.db/pass=role://secret/app/eu/db#pass",
        "file.db/tls/leaf.pem=role://secret/app/eu/db#/tls/chain/1/pem",
        "file.db/chain=vault://secret/app/eu/db#/tls/chain",
        "file.key.bin=local://key",
        "template.app.env=URL=[[ secret('vault://team/old/app/db#url') ]]\nUSER={{[[ secret('role://secret/app/eu/db#user') ]]}}\n",
        "delimiters=[[ ]]",
        "mode.db/pass=0400",
        "uid.db/pass=1000",
    ]);
    let shown = world.run("all", &["sh", "-c", "cd /secrets; find . -type f -follow | grep -v '/[.][.]' | sort | while read f; do echo $f; od -An -c $f | tr -d ' \n'; echo; done"]);
    let expected = [
        "./app.env",
        "URL=db:5432\\nUSER={{app}}\\n",
        "./db/chain",
        r#"["root",{"pem":"PEM\n"}]"#,
        "./db/pass",
        nested["pass"].as_str().unwrap(),
        "./db/tls/leaf.pem",
        "PEM\\n",
        "./key.bin",
        "\\0377177\\n",
        "./url",
        "db:5432",
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    assert_eq!(
        world.run("all", &["stat", "-L", "-c", "%a %u %g", "/secrets/db/pass", "/secrets/url"]),
        "400 1000 0\n444 0 0"
    );
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_rotated_at_the_server_is_what_the_next_container_gets_at_once() {
    let world = World::start().await;
    world.volume("v", &["from=vault://secret/app"]);
    for n in 0..4 {
        let value = format!("{n}-{}", world.canary());
        world.bao.put("secret", "app", json!({"password": value})).await;
        assert_eq!(world.run("v", &["cat", "/secrets/password"]), value);
    }
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_files_stay_and_the_last_known_value_serves_new_containers_for_max_stale() {
    let world = World::start().await;
    let (old, new) = (world.canary(), world.canary());
    world.bao.put("secret", "app", json!({"password": old})).await;
    world.volume("mounted", &["from=vault://secret/app"]);
    world.volume("patient", &["from=vault://secret/app", "max-stale=1h"]);
    world.volume("strict", &["from=vault://secret/app", "max-stale=1s"]);
    world.volume("unread", &["from=vault://secret/never"]);
    world.keep("mounted");
    let status = world.status_when("mounted", "current");
    assert_eq!((&status["versions"]["password"], &status["generation"]), (&json!("1"), &json!(1)));

    world.proxy.fail("/v1/", usize::MAX, crate::support::proxy::Fault::Close);
    world.bao.put("secret", "app", json!({"password": new})).await;
    let told = "`vault://secret/app`: vault (PROXY): the connection broke before the whole answer was there";
    assert_eq!(world.error_when("mounted", "stale"), told);
    assert_eq!(world.read("mounted", "password"), old);
    assert_eq!(world.run("mounted", &["cat", "/secrets/password"]), old, "a mounted volume takes further containers");
    assert_eq!(world.run("patient", &["cat", "/secrets/password"]), old);
    wait_for("max-stale to pass", SOON, || {
        world.plugin.engine().try_docker(&world.running("strict", &["true"]).each_str()).is_err()
    });
    assert_eq!(world.no_container("strict"), format!("dso: volume `strict`: option `from`: {told}"));
    assert_eq!(
        world.no_container("unread"),
        format!("dso: volume `unread`: option `from`: {}", told.replace("app", "never"))
    );

    world.proxy.heal();
    world.wait_for_file("mounted", "password", &new);
    let status = world.status_when("mounted", "current");
    assert_eq!((&status["versions"]["password"], &status["error"]), (&json!("2"), &Value::Null));
    assert_eq!(world.run("strict", &["cat", "/secrets/password"]), new);
    world.nothing_leaked();
}
