//! `docker dso doctor` and `init` with a real plugin: faults are planted, and each must be found with what to do.

use super::world::Desk;
use crate::support::{BUSYBOX, SOON, wait_for};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};

/// What `doctor` finds, as it is.
fn findings(desk: &Desk) -> Vec<Value> {
    let config = desk.plugin.config_dir();
    let words = ["--config-dir", config.to_str().unwrap(), "doctor", "--format", "json"];
    let output = desk.command(&words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let findings: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let errors = findings.iter().filter(|finding| finding["Level"] == "error").count();
    assert_eq!(output.status.code(), Some(if errors > 0 { 1 } else { 0 }), "{text}");
    findings
}

#[track_caller]
fn has(findings: &[Value], level: &str, check: &str, message: &str, advice: &str) {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let told = findings.iter().any(|finding| {
        text(finding, "Level") == level
            && text(finding, "Check") == check
            && (text(finding, "Subject") + ": " + &text(finding, "Message")).contains(message)
            && text(finding, "Advice").contains(advice)
    });
    assert!(told, "{level} {check} {message:?} {advice:?} is not in {findings:#?}");
}

fn wrong(findings: &[Value]) -> Vec<&Value> {
    // This machine's swap is no fault of the plugin's.
    findings.iter().filter(|finding| finding["Level"] != "ok" && finding["Check"] != "swap").collect()
}

#[test]
fn a_plugin_in_order_has_nothing_wrong() {
    let desk = Desk::start("");
    fs::set_permissions(desk.plugin.config_dir(), fs::Permissions::from_mode(0o700)).unwrap();
    desk.store.set("app", "canary");
    desk.create("v", &["file.x=local://app"]);
    desk.run("c", &desk.plugin.named("v"), &[]);
    let heard = |found: &[Value]| !found.iter().any(|finding| finding["Check"] == "engine" && finding["Level"] != "ok");
    wait_for("the engine to be heard", SOON, || heard(&findings(&desk)));
    let found = findings(&desk);
    assert!(wrong(&found).is_empty(), "{:#?}", wrong(&found));
    for (check, message) in [
        ("engine", "Docker "),
        ("engine", "the engine answers, and its events are followed"),
        ("plugin", "as this command"),
        ("plugin", "reads its settings from"),
        ("plugin", "finds the engine in /run"),
        ("privileges", "all that it needs"),
        ("memory", "locked"),
        ("kernel", "volumes are"),
        ("settings", "in use as it is"),
        ("provider", "the store opens, and holds 1 secrets"),
        ("policy", "local://app: version 1"),
        ("volume", "1 volumes, and nothing is wrong"),
        ("ledger", "1 mounts, as counted"),
    ] {
        has(&found, "ok", check, message, "");
    }
    assert!(!format!("{found:?}").contains("canary"));
    let config = desk.plugin.config_dir();
    let table = desk.prints(&["--config-dir", config.to_str().unwrap(), "doctor"]);
    assert!(table.starts_with("ok | files | ") && table.contains('\n') && !table.contains('\x1b'), "{table}");
}

#[test]
fn planted_faults_are_found_with_what_to_do() {
    let desk = Desk::start("[provider.gone]\ntype = 'local'\nstore = '/etc/dso/local.age'\n");
    let (config, volume) = (desk.plugin.config_dir(), |name: &str| desk.plugin.named(name));
    desk.store.set("app", "canary");
    desk.store.set("passing", "canary");
    desk.create("stale", &["file.x=local://passing", "refresh=1s"]);
    desk.create("label", &["file.x=local://app"]);
    desk.create("failed", &["file.x=local://nothing"]);
    desk.create("reference", &["file.x=gone://app"]);
    desk.run("a", &volume("stale"), &[]);
    desk.run("b", &volume("label"), &["--label", "dso.on-rotate=reboot"]);
    let mount = desk.plugin.mount(&volume("failed"), "/s", &[]);
    desk.engine().try_docker(&["run", "--rm", "--mount", &mount, BUSYBOX, "true"]).unwrap_err();
    fs::write(
        config.join("dso.toml"),
        "[provider.vault]\ntype = 'vault'\naddress = 'http://127.0.0.1:9'\nauth.token_file = '/etc/dso/token'\n",
    )
    .unwrap();
    fs::write(config.join("token"), "canary").unwrap();
    fs::set_permissions(config.join("token"), fs::Permissions::from_mode(0o644)).unwrap();
    wait_for("the file to be in use", SOON, || {
        findings(&desk).iter().any(|finding| finding["Subject"] == "provider vault")
    });
    let removed =
        dso::provider::local::LocalStore::open("local", toml::Table::new(), &dso::host::HostFiles::on_host(&config));
    removed.unwrap().remove(&["passing"]).unwrap()[0].as_ref().unwrap();
    wait_for("it to be stale", SOON, || desk.plugin.status(&volume("stale"))["state"] == "stale");
    let found = findings(&desk);
    for (level, check, message, advice) in [
        ("warning", "volume", "-stale: stale: ", "docker dso inspect"),
        ("error", "policy", "the local store has no secret `nothing`", "write the secret, or mend the reference"),
        ("error", "volume", "-failed: the last mount failed: ", "docker dso inspect"),
        ("error", "label", "-b: ", "make the container anew"),
        ("error", "reference", "unknown provider `gone`", "mend /etc/dso/dso.toml"),
        ("error", "provider", "connection refused", "bring the server back"),
        ("error", "files", "`token_file` names it, and other users may read it", "chmod 600"),
    ] {
        has(&found, level, check, message, advice);
    }
    assert!(!format!("{found:?}").contains("canary"));
    fs::set_permissions(config.join("identity"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(config.join("dso.toml"), "refesh = '1s'\n").unwrap();
    wait_for("the fault to be known", SOON, || {
        findings(&desk).iter().any(|finding| finding["Message"].as_str().unwrap().starts_with("not in use: "))
    });
    let found = findings(&desk);
    has(&found, "error", "settings", "not in use: /etc/dso/dso.toml: unknown key `refesh`", "mend the file");
    has(&found, "error", "store", "is open to other users (mode 0644)", "do as it says");
}

#[test]
fn mounts_of_the_plugin_that_lead_nowhere_and_init_that_mends_them() {
    let desk = Desk::start("");
    let (name, config) = (desk.plugin.driver(), desk.plugin.config_dir());
    let elsewhere = desk.plugin.folder().join("elsewhere");
    let dso = |words: &[&str]| {
        let folder = elsewhere.to_str().unwrap();
        desk.command(&[&["--config-dir", folder][..], words].concat()).output().unwrap()
    };
    desk.plugin.disable();
    desk.plugin.set("engine.source=/var/tmp");
    let found = findings(&desk);
    has(&found, "error", "plugin", "is disabled", "docker plugin enable ");
    has(&found, "error", "plugin", "comes from /var/tmp, where no engine answers", "engine.source=/run");
    desk.plugin.enable();
    wait_for("the plugin to miss the engine", SOON, || {
        findings(&desk).iter().any(|finding| finding["Message"].as_str().unwrap().contains("cannot follow the engine"))
    });
    has(&findings(&desk), "error", "engine", "events: the plugin cannot follow the engine", "engine.source");
    let shown = format!("reads its settings from {}", config.display());
    let text = String::from_utf8(dso(&["doctor", "--format", "json"]).stdout).unwrap();
    assert!(text.contains(&shown) && text.contains("config.source="), "{text}");

    let refused = dso(&["init"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    let short = name.trim_end_matches(":latest");
    let commands =
        format!("docker plugin disable {short} && docker plugin set {short} config.source={}", elsewhere.display());
    assert!(refused.status.code() == Some(1) && said.contains(&commands) && !elsewhere.exists(), "{said}");
    let done = dso(&["init", "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let inspected = desk.engine().json(&["plugin", "inspect", &name], ".");
    let mounts = inspected["Settings"]["Mounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["Name"] == "config").unwrap();
    assert_eq!((mount["Source"].as_str(), &inspected["Enabled"]), (elsewhere.to_str(), &Value::Bool(true)));
    let again = String::from_utf8(dso(&["init"]).stdout).unwrap();
    assert!(again.starts_with("Nothing to do"), "{again}");
}
