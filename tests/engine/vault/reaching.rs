//! How the plugin finds a server, and whom it trusts.

use super::world::{World, instance};
use crate::support::{bao::Bao, engine::outcome};
use serde_json::json;
use std::{fs, process::Command};

/// The plugin's own root has empty files of these names: a name that resolves there is one of the host's.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_resolved_as_on_the_host() {
    let world = World::start().await;
    let canary = world.canary();
    world.bao.put("secret", "app", json!({"password": canary})).await;
    let address = world.proxy.address().replace("127.0.0.1", "localhost");
    world.plugin.disable();
    world.write("dso.toml", "");
    world.plugin.set(&format!("VAULT_ADDR={address}"));
    world.plugin.enable();
    for file in ["/etc/hosts", "/etc/resolv.conf"] {
        let inside = fs::read_to_string(format!("/proc/{}/root{file}", world.plugin.pid())).unwrap();
        assert_eq!(inside, fs::read_to_string(file).unwrap(), "{file}");
    }
    assert_eq!(fs::read_to_string(world.plugin.rootfs().join("etc/hosts")).unwrap(), "", "the plugin brings no names");
    world.volume("v", &["from=vault://secret/app"]);
    assert_eq!(world.run("v", &["cat", "/secrets/password"]), canary);
    assert!(world.proxy.count("GET", "/v1/secret/data/app") >= 1);
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ca_file_the_hosts_certificates_are_trusted_and_no_other() {
    let tls = Bao::start_tls().await;
    let (by_file, by_host) =
        (instance("file", &tls.address, "ca_file = '/etc/dso/ca.pem'"), instance("host", &tls.address, ""));
    let ca = fs::read(tls.ca_file()).unwrap();
    let world = World::with(&[by_file, by_host].concat(), |plugin| {
        plugin.config("ca.pem", &ca).config("etc/ssl/certs/ca-certificates.crt", &ca)
    })
    .await;
    world.varies(&tls.address, "TLS");
    world.write("vault-token", world.guard(&tls.root));
    let canary = world.canary();
    tls.put("secret", "app", json!({"password": canary})).await;
    world.volume("file", &["from=file://secret/app"]);
    world.volume("host", &["from=host://secret/app"]);
    assert_eq!(world.run("file", &["cat", "/secrets/password"]), canary);
    assert_eq!(
        world.no_container("host"),
        "dso: volume `host`: option `from`: `host://secret/app`: host (TLS): the server's certificate is not trusted: set `ca_file` to the PEM file of the CA that issued it"
    );
    // In the plugin's own mount namespace, /host/etc becomes a host's that has this CA in its bundle.
    let pid = world.plugin.pid().to_string();
    let words = ["--namespace", &pid, "--bind", "/etc/dso/etc", "/host/etc"];
    outcome(Command::new("mount").args(words).output().unwrap()).unwrap();
    assert_eq!(world.run("host", &["cat", "/secrets/password"]), canary);
    world.nothing_leaked();
}
