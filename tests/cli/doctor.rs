//! `docker dso doctor`: what it finds without an engine; the rest is in the engine's tests.

use super::{Host, Ran, mode};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

fn examine(host: &Host, more: &[&str]) -> Ran {
    let mut command = host.command(&[&["doctor"], more].concat());
    command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").env_remove("DOCKER_CONTEXT");
    command.output().unwrap().into()
}

/// Level and message of what is found of a check and a file.
fn found(host: &Host, check: &str, file: &str) -> Vec<(String, String, String)> {
    let ran = examine(host, &["--format", "json"]);
    let lines = String::from_utf8(ran.out).unwrap();
    let findings = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mine =
        findings.filter(|finding| finding["Check"] == check && finding["Subject"].as_str().unwrap().ends_with(file));
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    mine.map(|finding| (text(&finding, "Level"), text(&finding, "Message"), text(&finding, "Advice"))).collect()
}

#[track_caller]
fn is_told(host: &Host, check: &str, file: &str, level: &str, message: &str, advice: &str) {
    let found = found(host, check, file);
    let told = found.iter().any(|(of, text, what)| of == level && text.contains(message) && what.contains(advice));
    assert!(told, "{check} {file}: {level} {message:?} {advice:?} is not in {found:#?}");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_host_in_order_and_no_engine() {
    let host = Host::new();
    is_told(&host, "files", "/dso", "warning", "is not there", "docker dso init");
    host.ok("init --yes", b"");
    host.ok("secret set a", b"1");
    let ran = examine(&host, &["-q", "--format", "{{.Level}} {{.Check}}: {{.Message}}"]);
    let out = String::from_utf8(ran.out).unwrap();
    let errors: Vec<_> = out.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(errors.len(), 1, "{out}");
    assert!(errors[0].starts_with("error engine: no engine answers at unix:///nonexistent/docker.sock"), "{out}");
    assert!(ran.code == Some(1) && ran.err.starts_with("Error: 1 error and "), "{}", ran.err);
    is_told(&host, "store", "local.age", "ok", "opens, and holds 1 secrets", "");
}

#[test]
fn files_that_others_may_read_or_change() {
    let host = Host::new();
    host.ok("init --yes", b"");
    host.ok("secret set a", b"1");
    fs::write(
        host.file("dso.toml"),
        "[provider.vault]\ntype = 'vault'\naddress = 'https://v'\nauth.method = 'approle'\nauth.role_id_file = '/etc/dso/role'\n\
         auth.secret_id_file = '/etc/dso/secret-id'\n[provider.v2]\ntype = 'vault'\naddress = 'https://v'\n\
         auth.token_file = '/etc/dso/none'\n",
    )
    .unwrap();
    fs::write(host.file("role"), "r").unwrap();
    fs::write(host.file("secret-id"), "canary").unwrap();
    chmod(&host.file("secret-id"), 0o644);
    chmod(&host.file("dso.toml"), 0o666);
    chmod(&host.file("identity"), 0o640);
    chmod(&host.config_dir(), 0o777);
    is_told(&host, "files", "/dso", "error", "other users may change it (mode 0777)", "chmod go-w");
    is_told(&host, "files", "dso.toml", "error", "other users may change it (mode 0666)", "chmod go-w");
    is_told(
        &host,
        "files",
        "secret-id",
        "error",
        "[provider.vault] `secret_id_file` names it, and other users may read it",
        "chmod 600",
    );
    is_told(
        &host,
        "files",
        "/none",
        "error",
        "[provider.v2] `token_file` names it: No such file",
        "put the file there",
    );
    is_told(&host, "store", "local.age", "error", "is open to other users (mode 0640)", "do as it says");
    assert_eq!(found(&host, "files", "/role"), [], "a role's id is no secret");
    let told = String::from_utf8(examine(&host, &[]).out).unwrap();
    assert!(!told.contains("canary") && !told.contains('\x1b'), "{told}");
    assert_eq!(mode(&host.config_dir()), 0o777, "nothing is changed");
}

#[test]
fn settings_and_a_store_that_are_broken() {
    let host = Host::new();
    host.ok("init --yes", b"");
    host.ok("secret set a", b"1");
    fs::write(host.file("dso.toml"), "refesh = '1s'\n").unwrap();
    is_told(&host, "settings", "dso.toml", "error", "unknown key `refesh`: did you mean `refresh`?", "mend the file");
    fs::write(host.file("dso.toml"), "refresh = 'canary\n").unwrap();
    is_told(&host, "settings", "dso.toml", "error", "(line 1)", "mend the file");
    fs::write(host.file("dso.toml"), "").unwrap();
    fs::write(host.file("local.age"), "garbage").unwrap();
    is_told(&host, "store", "local.age", "error", "is damaged or cut short", "do as it says");
    fs::remove_file(host.file("local.age")).unwrap();
    is_told(&host, "store", "local.age", "ok", "there is no local store", "");
    assert_eq!(examine(&host, &["--format", "{{.Nothing}}"]).code, Some(2));
}
