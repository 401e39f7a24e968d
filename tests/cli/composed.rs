//! `docker dso check` of Compose files that Compose refuses or warns of: what it says may quote a value.

use super::{Host, Ran};
use std::{fs, os::unix::fs::PermissionsExt};

const COMPOSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/world/docker/cli-plugins/docker-compose");
const CANARY: &str = "hunter2canary";

/// Checks a project with the real Compose.
fn check(file: &str, variables: &str) -> Ran {
    let host = Host::new();
    let folder = host.dir.path().join("app");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("compose.yaml"), file).unwrap();
    fs::write(folder.join(".env"), variables).unwrap();
    let docker = host.dir.path().join("docker");
    // With that variable Compose would take itself for a plugin of Docker.
    fs::write(
        &docker,
        format!("#!/bin/sh\nunset DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND\nshift\nexec {COMPOSE} \"$@\"\n"),
    )
    .unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = host.command(&["check", folder.join("compose.yaml").to_str().unwrap()]);
    command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").env_remove("DOCKER_CONTEXT");
    command.env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", docker);
    command.output().unwrap().into()
}

#[test]
fn what_compose_says_of_a_file_that_it_refuses_is_not_passed_on() {
    let of =
        |password: &str| format!("services:\n  web:\n    image: x\n    environment:\n      PASSWORD: {password}\n");
    for (file, variables) in
        [(of(&format!("{CANARY}${{x!y}}")), String::new()), (of("x"), format!("PASSWORD '{CANARY}\n{CANARY}=\"\n"))]
    {
        let ran = check(&file, &variables);
        assert!(!ran.err.contains(CANARY) && ran.out.is_empty(), "{}", ran.err);
        let told = "Error: `docker compose config` refuses the file: run it yourself; its message may show a value";
        assert_eq!((ran.code, ran.err.trim_end()), (Some(1), told));
    }
}

#[test]
fn what_compose_warns_of_is_not_passed_on() {
    let ran = check(&format!("services:\n  web:\n    image: x\n    command: pass${CANARY}\n"), "");
    assert!(!ran.err.contains(CANARY), "{}", ran.err);
    assert!(ran.err.starts_with("Note: `docker compose config` has warnings"), "{}", ran.err);
}
