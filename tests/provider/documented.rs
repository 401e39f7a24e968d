//! The examples of docs/providers.md, as they stand there: the commands are run, and the settings log in.

use crate::{
    reviewer::Kubernetes,
    signer::{Authority, Signer},
    support::bao::{Bao, binary},
    world::World,
};
use dso::provider::ErrorKind;
use serde_json::json;
use std::{fs, path::Path, process::Command};

/// A section of the page: its shell commands and its settings.
struct Example {
    commands: String,
    settings: String,
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md")).unwrap()
}

fn block(section: &str, language: &str) -> String {
    let (_, rest) =
        section.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("no {language} in {section}"));
    rest.split_once("```").unwrap().0.to_owned()
}

fn example(method: &str) -> Example {
    let page = page();
    let (_, rest) = page.split_once(&format!("### `auth.method = \"{method}\"`\n")).expect(method);
    let section = rest.split("\n### ").next().unwrap();
    Example { commands: block(section, "sh"), settings: block(section, "toml") }
}

/// The policy that the page says is all that dso needs.
fn policy() -> String {
    let page = page();
    block(page.split_once("### What the policy needs").unwrap().1, "hcl")
}

/// Runs commands as an administrator does, in a folder with these files; `/etc/dso` is the world's.
fn administer(world: &World, commands: &str, files: &[(&str, String)]) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    fs::write(dir.path().join("dso.hcl"), policy()).unwrap();
    std::os::unix::fs::symlink(binary(), dir.path().join("vault")).unwrap();
    let commands = commands.replace("/etc/dso/", &format!("{}/", world.etc().display()));
    let mut command = Command::new("sh");
    command.args(["-euc", &commands]).current_dir(dir.path()).env("HOME", dir.path());
    command.env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()));
    command.env("BAO_ADDR", &world.bao.address).env("BAO_TOKEN", &world.bao.root).env("BAO_SKIP_VERIFY", "true");
    let done = command.output().unwrap();
    assert!(done.status.success(), "{commands}\n{}", String::from_utf8_lossy(&done.stderr));
}

async fn world(bao: Bao) -> World {
    let world = World::with(bao).await;
    world.remove("vault-token");
    world.bao.put("secret", "app/db", json!({"n": 1})).await;
    world.bao.put("secret", "other", json!({"n": 1})).await;
    world
}

/// That the settings log in, may read what the policy lets them, and nothing else.
async fn logs_in(world: &World, address: &str, settings: &str) {
    let vault = world.vault_at(address, settings);
    assert_eq!(vault.value("vault://secret/app/db").await, json!({"n": 1}));
    vault.version("vault://secret/app/db").await.unwrap();
    assert!(vault.read(&crate::world::id("vault://secret/other")).await.is_err());
}

#[tokio::test]
async fn the_example_of_approle() {
    let (world, example) = (world(Bao::start().await).await, example("approle"));
    administer(&world, &example.commands, &[]);
    world.guard(fs::read_to_string(world.etc().join("secret-id")).unwrap().trim());
    logs_in(&world, world.proxy.address(), &example.settings).await;
}

#[tokio::test]
async fn the_example_of_jwt() {
    let (world, example, signer) = (world(Bao::start().await).await, example("jwt"), Signer::new());
    administer(&world, &example.commands, &[("issuer.pem", signer.public_key())]);
    world.write("jwt", &world.guard(&signer.token(json!({"sub": "host-1", "aud": "vault"}), 60)));
    logs_in(&world, world.proxy.address(), &example.settings).await;
    world.write("jwt", &world.guard(&signer.token(json!({"sub": "host-2", "aud": "vault"}), 60)));
    let other = world.vault(&example.settings);
    assert!(other.read(&crate::world::id("vault://secret/app/db")).await.is_err(), "another host's token");
}

#[tokio::test]
async fn the_example_of_cert() {
    let (world, example, authority) = (world(Bao::start_tls().await).await, example("cert"), Authority::new());
    administer(&world, &example.commands, &[("hosts-ca.pem", authority.certificate())]);
    world.write("ca.pem", &fs::read_to_string(world.bao.ca_file()).unwrap());
    let (certificate, key) = authority.issue("host-1");
    world.write("cert.pem", &certificate);
    world.write("key.pem", &key);
    logs_in(&world, &world.bao.address, &format!("ca_file = '/etc/dso/ca.pem'\n{}", example.settings)).await;
}

#[tokio::test]
async fn the_example_of_kubernetes() {
    let (world, example, cluster) = (world(Bao::start().await).await, example("kubernetes"), Kubernetes::start().await);
    assert!(example.commands.contains("https://kubernetes.example:6443"));
    let commands = example.commands.replace("https://kubernetes.example:6443", &cluster.address);
    administer(&world, &commands, &[("kubernetes-ca.pem", Authority::new().certificate())]);
    let refused = async |token: String| {
        world.write("kubernetes-token", &world.guard(&token));
        let (kind, message) = world.refused(&world.vault(&example.settings), "vault://secret/app/db").await;
        assert_eq!(kind, ErrorKind::Unauthenticated, "{message}");
    };
    refused(cluster.token("another", "vault")).await;
    refused(cluster.token("dso", "another")).await;
    refused(Kubernetes::start().await.token("dso", "vault")).await;
    world.write("kubernetes-token", &world.guard(&cluster.token("dso", "vault")));
    logs_in(&world, world.proxy.address(), &example.settings).await;
}
