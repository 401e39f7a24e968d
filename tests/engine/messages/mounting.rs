//! What cannot be read or shown is told when the volume is mounted, and while it is.

use super::assert_all;
use crate::{
    support::{
        SOON,
        bao::{Bao, eventually},
        wait_for,
    },
    vault::world::{World, instance},
};
use serde_json::{Value, json};

fn role(name: &str, more: &str) -> String {
    let login = "auth.method = 'approle'\nauth.secret_id_file = '/etc/dso/secret-id'";
    instance(name, "PROXY", &format!("{login}\n{more}"))
}

/// An address where nobody listens.
const NOBODY: &str = "http://127.0.0.1:1";

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_fails_says_which_file_which_reference_the_answer_and_what_to_do() {
    let (sealed, tls) = (Bao::start().await, Bao::start_tls().await);
    let ca = std::fs::read(tls.ca_file()).unwrap();
    let other_ca = Bao::start_tls().await;
    // A name that no resolver takes: none is asked, so that the machine's does not matter.
    let nameless = format!("http://{}", "x".repeat(64));
    let others = [
        instance("down", NOBODY, ""),
        instance("nameless", &nameless, ""),
        instance("sealed", &sealed.address, "auth.token_file = '/etc/dso/sealed-token'"),
        instance("revoked", "PROXY", "auth.token_file = '/etc/dso/revoked-token'"),
        instance("expired", "PROXY", "auth.token_file = '/etc/dso/expired-token'"),
        instance("no-token", "PROXY", "auth.token_file = '/etc/dso/none'"),
        instance("limited", "PROXY", "auth.token_file = '/etc/dso/limited-token'"),
        instance("tls", &tls.address, "auth.token_file = '/etc/dso/tls-token'"),
        instance("tls-ca", &tls.address, "ca_file = '/etc/dso/ca.pem'\nauth.token_file = '/etc/dso/tls-token'"),
        instance("tls-other", &tls.address, "ca_file = '/etc/dso/other.pem'\nauth.token_file = '/etc/dso/tls-token'"),
        instance("tls-none", &tls.address, "ca_file = '/etc/dso/no.pem'\nauth.token_file = '/etc/dso/tls-token'"),
        role("role", "auth.role_id = 'nobody'"),
        role("no-method", "auth.role_id = 'nobody'\nauth.mount = 'ci'"),
    ];
    let world = World::with(&others.concat(), |plugin| {
        let plugin = plugin.config("ca.pem", &ca).config("other.pem", std::fs::read(other_ca.ca_file()).unwrap());
        plugin.config("sealed-token", &sealed.root).config("tls-token", &tls.root)
    })
    .await;
    let (bao, canary) = (&world.bao, world.canary());
    world.varies(&sealed.address, "SEALED");
    world.varies(&tls.address, "TLS");
    world.varies(&nameless, "NAMELESS");
    bao.put("secret", "app", json!({"password": canary, "user": "app"})).await;
    bao.put("secret", "text", json!({"a/b": canary})).await;
    bao.put("secret", "gone", json!({"a": canary})).await;
    bao.api("PUT", "secret/destroy/gone", json!({"versions": [1]})).await;
    tls.put("secret", "app", json!({"password": canary})).await;
    bao.policy("limited", r#"path "secret/metadata/*" { capabilities = ["read"] }"#).await;
    world.write("limited-token", world.guard(&bao.token(&["limited"], json!({})).await));
    let revoked = world.guard(&bao.token(&["root"], json!({})).await);
    world.write("revoked-token", &revoked);
    bao.revoke(&revoked).await;
    let expired = world.guard(&bao.token(&["root"], json!({"ttl": "1s"})).await);
    world.write("expired-token", &expired);
    eventually("the token has expired", async || {
        let with = [("X-Vault-Token", expired.as_str())];
        bao.send("GET", "auth/token/lookup-self", Value::Null, &with).await.0 == 403
    })
    .await;
    bao.approle("approle", "dso", json!({})).await;
    world.write("secret-id", world.canary());
    sealed.seal().await;

    let mut n = 0;
    let mut refused = |options: &[&str]| {
        n += 1;
        let volume = format!("v{n}");
        world.volume(&volume, options);
        let told = world.no_container(&volume).replace(&format!("volume `{volume}`"), "volume `v`");
        let shown = world.error_when(&volume, "failed");
        assert_eq!(format!("dso: {shown}").replace(&format!("volume `{volume}`"), "volume `v`"), told);
        told
    };
    assert_all([
        (
            refused(&["from=vault://secret/ap"]),
            "dso: volume `v`: option `from`: `vault://secret/ap`: vault (PROXY): 404 there is no secret at secret/ap: write it there, or correct the reference",
        ),
        (
            refused(&["file.a=vault://secret/data/app#user"]),
            "dso: volume `v`: option `file.a`: `vault://secret/data/app`: vault (PROXY): 404 there is no secret at secret/data/app: did you mean `secret/app`, without `data/`?",
        ),
        (
            refused(&["file.a=vault://secrets/app#user"]),
            "dso: volume `v`: option `file.a`: `vault://secrets/app`: vault (PROXY): 403 permission denied for secrets/app: no secrets engine is mounted there, or the token's policies grant nothing under it",
        ),
        (
            refused(&["file.a=vault://secret/gone#a"]),
            "dso: volume `v`: option `file.a`: `vault://secret/gone`: vault (PROXY): 404 version 1 of secret/gone was destroyed: write a new version",
        ),
        (
            refused(&["file.a=vault://secret/app?version=7#user"]),
            "dso: volume `v`: option `file.a`: `vault://secret/app?version=7`: vault (PROXY): 404 there is no version 7 of secret/app: correct `?version=`",
        ),
        (
            refused(&["file.tls/pin=vault://secret/app#pasword"]),
            "dso: volume `v`: option `file.tls/pin`: `vault://secret/app#pasword`: the secret has no field `pasword`; it has `password`, `user`",
        ),
        (
            refused(&["file.a=vault://secret/app#/password/0"]),
            "dso: volume `v`: option `file.a`: `vault://secret/app#/password/0`: the JSON Pointer `/password/0` leads to nothing",
        ),
        (
            refused(&["from=vault://secret/text"]),
            "dso: volume `v`: option `from`: `vault://secret/text`: the field `a/b` cannot be a file name: it has a `/`; name each field by `file.<path>` in place of `from`",
        ),
        (
            refused(&["from=vault://secret/app#user"]),
            "dso: volume `v`: option `from`: `vault://secret/app#user`: the secret is not a JSON object, so it has no fields; mount its whole value by `file.<path>`",
        ),
        (
            refused(&["from=vault://secret/app", "file.user=vault://secret/text"]),
            "dso: volume `v`: two sources for `user`: a field of option `from`, `vault://secret/app`, and option `file.user`",
        ),
        (
            refused(&["from=vault://secret/app", "mode.pasword=0400"]),
            "dso: volume `v`: an option gives `pasword` a mode or owner, but the volume has no such file: did you mean `password`?",
        ),
        (
            refused(&["file.a=limited://secret/app#user"]),
            r#"dso: volume `v`: option `file.a`: `limited://secret/app`: limited (PROXY): 403 permission denied for secret/data/app: the token's policy needs capability "read" on that path"#,
        ),
        (
            refused(&["file.a=revoked://secret/app#user"]),
            "dso: volume `v`: option `file.a`: `revoked://secret/app`: revoked (PROXY): 403 the token in /etc/dso/revoked-token was refused: it has expired, was revoked, or may not read auth/token/lookup-self; put a new one there",
        ),
        (
            refused(&["file.a=expired://secret/app#user"]),
            "dso: volume `v`: option `file.a`: `expired://secret/app`: expired (PROXY): 403 the token in /etc/dso/expired-token was refused: it has expired, was revoked, or may not read auth/token/lookup-self; put a new one there",
        ),
        (
            refused(&["file.a=no-token://secret/app#user"]),
            "dso: volume `v`: option `file.a`: `no-token://secret/app`: no-token (PROXY): no token: cannot read /etc/dso/none: No such file or directory (os error 2); put one there, or name its file by `auth.token_file`",
        ),
        (
            refused(&["file.a=role://secret/app#user"]),
            "dso: volume `v`: option `file.a`: `role://secret/app`: role (PROXY): 400 the AppRole login at auth/approle was refused: the RoleID is wrong, or the SecretID of /etc/dso/secret-id is wrong, used up or expired; put a new one there",
        ),
        (
            refused(&["file.a=no-method://secret/app#user"]),
            "dso: volume `v`: option `file.a`: `no-method://secret/app`: no-method (PROXY): 403 the AppRole login at auth/ci was refused: there is no AppRole method there, or the role does not accept this host's address",
        ),
        (
            refused(&["file.a=sealed://secret/app#user"]),
            "dso: volume `v`: option `file.a`: `sealed://secret/app`: sealed (SEALED): 503 Vault is sealed: unseal it",
        ),
        (
            refused(&["file.a=down://secret/app#user"]),
            "dso: volume `v`: option `file.a`: `down://secret/app`: down (http://127.0.0.1:1): connection refused: is the server up, and the port right?",
        ),
        (
            refused(&["file.a=nameless://secret/app#user"]),
            "dso: volume `v`: option `file.a`: `nameless://secret/app`: nameless (NAMELESS): its host name cannot be resolved: check `address` and the host's DNS",
        ),
        (
            refused(&["file.a=tls://secret/app#password"]),
            "dso: volume `v`: option `file.a`: `tls://secret/app`: tls (TLS): the server's certificate is not trusted: set `ca_file` to the PEM file of the CA that issued it",
        ),
        (
            refused(&["file.a=tls-other://secret/app#password"]),
            "dso: volume `v`: option `file.a`: `tls-other://secret/app`: tls-other (TLS): the server's certificate is not trusted: set `ca_file` to the PEM file of the CA that issued it",
        ),
        (
            refused(&["file.a=tls-none://secret/app#password"]),
            "dso: volume `v`: option `file.a`: `tls-none://secret/app`: tls-none (TLS): the CA certificates in /etc/dso/no.pem cannot be used: No such file or directory (os error 2): check `ca_file`",
        ),
        (
            refused(&[
                "file.a=down://secret/app#user",
                "from=vault://secret/ap",
                "template.env={{ secret('down://secret/app#user') }}",
            ]),
            "dso: volume `v`: options `file.a`, `template.env`: `down://secret/app`: down (http://127.0.0.1:1): connection refused: is the server up, and the port right?; option `from`: `vault://secret/ap`: vault (PROXY): 404 there is no secret at secret/ap: write it there, or correct the reference",
        ),
        (
            refused(&["file.a=local://app#user"]),
            "dso: volume `v`: option `file.a`: `local://app`: there is no local store at `/etc/dso/local.age` yet: make it on the host with `docker dso secret set NAME`",
        ),
    ]);
    world.volume("trusted", &["from=tls-ca://secret/app"]);
    assert_eq!(world.run("trusted", &["cat", "/secrets/password"]), canary);
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_or_cannot_be_rendered_is_told_before_anything_is_mounted() {
    // Not by way of the proxy, which is slow with so much.
    let world = World::with(&instance("direct", "BAO", ""), |plugin| plugin).await;
    let canary = world.canary();
    let large = canary.repeat((13 << 20) / canary.len() + 1);
    world.bao.put("secret", "large", json!({"pem": large})).await;
    world.bao.put("secret", "app", json!({"password": canary, "medium": canary.repeat(200)})).await;
    world.dso(&["set", "binary"], &[b"\xff\x00", canary.as_bytes()].concat());
    let mut n = 0;
    let mut refused = |options: &[&str]| {
        n += 1;
        let volume = format!("v{n}");
        world.volume(&volume, options);
        world.no_container(&volume).replace(&format!("volume `{volume}`"), "volume `v`")
    };
    let files = ["1", "2", "3", "4", "5"].map(|name| format!("file.{name}=direct://secret/large#pem"));
    let all: Vec<_> = files.iter().map(String::as_str).chain(["size=64m"]).collect();
    assert_all([
        (
            refused(&all),
            "dso: volume `v`: the files need 65.1 MiB, and option `size` allows 64 MiB: no volume may have more than 64m, so divide the files among several volumes",
        ),
        (
            refused(&[&files[0]]),
            "dso: volume `v`: the files need 13.1 MiB, and option `size` allows 1 MiB: set `size` to 14m or more (at most 64m)",
        ),
        (
            refused(&["from=vault://secret/app", "size=4k"]),
            "dso: volume `v`: the files need 16 KiB, and option `size` allows 4 KiB: set `size` to 16k or more (at most 64m)",
        ),
        (
            refused(&["template.env=A={{ secret('local://binary') }}"]),
            "dso: volume `v`: option `template.env`: `local://binary`: the value is binary, and a template is text: give it a file of its own by `file.<path>`",
        ),
        (
            refused(&["template.env=A=1\nB={{ secret('vault://secret/app#password')|int }}"]),
            "dso: volume `v`: option `template.env`: the template fails in line 2: invalid operation (the detail may quote a secret, and is not shown)",
        ),
        (
            refused(&["template.env={{ secret('vault://secret/app#pin') }}"]),
            "dso: volume `v`: option `template.env`: `vault://secret/app#pin`: the secret has no field `pin`; it has `medium`, `password`",
        ),
        (
            refused(&["from=local://binary"]),
            "dso: volume `v`: option `from`: `local://binary`: the secret is not a JSON object, so it has no fields; mount its whole value by `file.<path>`",
        ),
        (
            refused(&["template.env={% for x in range(9999) %}{% for y in range(9999) %}{% endfor %}{% endfor %}"]),
            "dso: volume `v`: option `template.env`: the template takes more than 1000000 steps, and was stopped in line 1: is there a loop without an end?",
        ),
        (
            refused(&["file.a=local://binry"]),
            "dso: volume `v`: option `file.a`: `local://binry`: the local store has no secret `binry`: did you mean `binary`?",
        ),
    ]);
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_goes_while_it_is_mounted_makes_the_volume_stale_and_its_return_current() {
    let world = World::start().await;
    let canary = world.canary();
    world.bao.put("secret", "app", json!({"password": canary})).await;
    world.dso(&["set", "pin"], canary.as_bytes());
    world.volume("v", &["from=vault://secret/app", "file.pin=local://pin"]);
    world.keep("v");
    assert_eq!(world.status_when("v", "current")["error"], Value::Null);

    world.bao.api("DELETE", "secret/data/app", Value::Null).await;
    let told = world.error_when("v", "stale");
    let (start, end) = told.split_once("deleted at 20").unwrap_or((&told, "no time"));
    assert_all([
        (start.to_owned(), "`vault://secret/app`: vault (PROXY): version 1 of secret/app was "),
        (end.split_once("Z").map_or(end, |(_, end)| end).to_owned(), ": write a new version, or undelete it"),
    ]);
    world.dso(&["rm", "pin"], b"");
    wait_for("the second fault", SOON, || world.error_when("v", "stale").contains("local://"));
    let told = world.error_when("v", "stale");
    let local = told.split("; ").next().unwrap_or_default();
    assert_all([(
        local.to_owned(),
        "`local://pin`: the local store has no secret `pin`: set it with `docker dso secret set pin`",
    )]);
    assert_eq!((world.read("v", "password"), world.read("v", "pin")), (canary.clone(), canary.clone()));

    world.bao.api("PUT", "secret/undelete/app", json!({"versions": [1]})).await;
    world.dso(&["set", "pin"], canary.as_bytes());
    let status = world.status_when("v", "current");
    assert_eq!((&status["error"], &status["versions"]["password"]), (&Value::Null, &json!("1")));
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_seals_a_token_that_ends_and_a_role_that_is_lost_show_on_mounted_volumes() {
    let world =
        World::with(&instance("other", "PROXY", "auth.token_file = '/etc/dso/other-token'"), |plugin| plugin).await;
    let token = world.guard(&world.bao.token(&["root"], json!({})).await);
    world.write("other-token", &token);
    let canary = world.canary();
    world.bao.put("secret", "app", json!({"password": canary})).await;
    world.volume("v", &["from=other://secret/app"]);
    world.keep("v");
    world.status_when("v", "current");

    world.bao.revoke(&token).await;
    let revoked = world.error_when("v", "stale");
    world.write("other-token", world.guard(&world.bao.token(&["root"], json!({})).await));
    world.status_when("v", "current");
    world.bao.seal().await;
    let sealed = world.error_when("v", "stale");
    assert_all([
        (
            revoked,
            "`other://secret/app`: other (PROXY): 403 the token in /etc/dso/other-token was refused: it has expired, was revoked, or may not read auth/token/lookup-self; put a new one there",
        ),
        (sealed, "`other://secret/app`: other (PROXY): 503 Vault is sealed: unseal it"),
    ]);
    assert_eq!(world.read("v", "password"), canary);
    world.nothing_leaked();
}
