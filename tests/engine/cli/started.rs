//! docs/getting-started.md, as a newcomer follows it.

use super::world::Desk;
use crate::support::{BUSYBOX, SOON, compose::Compose, wait_for};
use std::{io::Write, process::Stdio};

const PAGE: &str = include_str!("../../../docs/getting-started.md");

/// A command with something on its stdin.
#[track_caller]
fn given(desk: &Desk, words: &[&str], input: &str) -> String {
    let config = desk.plugin.config_dir();
    let mut command = desk.command(&[&["--config-dir", config.to_str().unwrap()][..], words].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ran = desk.ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out
}

#[test]
fn five_minutes_on_one_host() {
    let desk = Desk::start("");
    std::fs::remove_file(desk.plugin.config_dir().join("dso.toml")).unwrap();
    assert!(given(&desk, &["init", "--yes"], "").starts_with("Done. Next: docker dso secret set app/db#password"));
    let (first, second) = (desk.plugin.named("canary-1"), desk.plugin.named("canary-2"));
    given(&desk, &["secret", "set", "app/db#password"], &first);
    let blocks: Vec<&str> = PAGE.split("```yaml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    let file = blocks[0].replace("driver: dso", &format!("driver: {}", desk.plugin.driver())).replace(
        "postgres:16",
        &format!("{BUSYBOX}\n    command: sleep 1000\n    stop_grace_period: 0s\n    network_mode: none"),
    );
    let compose = Compose::new(desk.engine(), &file);
    compose.run(&["up", "--detach"]);
    let container = format!("{}-db-1", compose.project());
    let read = || desk.engine().docker(&["exec", &container, "cat", "/run/secrets/password"]);
    assert_eq!(read(), first);
    let volume = format!("{}_db-secrets", compose.project());
    assert!(desk.engine().docker(&["dso", "--plugin", &desk.plugin.driver(), "ls", "-q"]).contains(&volume));
    given(&desk, &["secret", "set", "app/db#password"], &second);
    wait_for("the rotation", SOON, || read() == second);
    let inspected = desk.engine().docker(&["inspect", &container]);
    assert!(!inspected.contains("canary"), "a value is in the container's configuration");
}
