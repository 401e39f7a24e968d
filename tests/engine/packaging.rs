//! What is shipped: the plugin's configuration, its root file system, the ways to install it.

use crate::support::{
    cleanup::Scope,
    engine::{Engine, outcome},
    own_engine::OwnEngine,
    plugin::{Plugin, built_rootfs},
    registry::Registry,
    root,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, io::Write, process::Command, process::Stdio};

#[test]
fn every_privilege_that_the_plugin_asks_for_has_its_reason_on_the_security_page_and_no_other() {
    let asked = privileges(&serde_json::from_str(&read("config.json")).unwrap());
    let page = read("docs/security.md");
    let (_, section) = page.split_once("\n## Privileges\n").expect("a section Privileges");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let explained: BTreeSet<String> = rows.map(|(privilege, _)| privilege.to_owned()).collect();
    assert_eq!(asked, explained);
}

/// As the engine's prompt names them: kind and value.
fn privileges(config: &Value) -> BTreeSet<String> {
    let mut asked = BTreeSet::new();
    asked.insert(format!("network: {}", config["network"]["type"].as_str().unwrap()));
    if config["pidhost"] == true {
        asked.insert("host pid namespace: true".into());
    }
    for mount in config["mounts"].as_array().unwrap() {
        asked.insert(format!("mount: {}", mount["source"].as_str().unwrap()));
    }
    for capability in config["linux"]["capabilities"].as_array().unwrap() {
        asked.insert(format!("capabilities: {}", capability.as_str().unwrap()));
    }
    asked
}

#[test]
fn the_root_file_system_holds_the_binary_its_libraries_and_no_more() {
    let rootfs = built_rootfs().join("rootfs");
    let listed =
        outcome(Command::new("find").args([".", "-type", "f"]).current_dir(&rootfs).output().unwrap()).unwrap();
    let is_library = |name: &str| name.contains("/lib") && name.contains(".so");
    let others: BTreeSet<&str> = listed.lines().filter(|name| !is_library(name)).collect();
    let expected = ["./dso", "./etc/dso-build", "./etc/group", "./etc/hosts", "./etc/nsswitch.conf", "./etc/passwd"];
    assert_eq!(others, BTreeSet::from_iter(expected.into_iter().chain(["./etc/resolv.conf"])));
    // It runs with nothing but what is in there.
    let inside = Command::new("chroot").arg(&rootfs).args(["/dso", "--version"]).output().unwrap();
    assert_eq!(outcome(inside).unwrap(), format!("dso {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_root_file_system_over_its_limit_is_refused() {
    let scope = Scope::new();
    let target = scope.folder.join("staged");
    let mut script = Command::new(root().join("plugin/rootfs.sh"));
    script.arg(env!("CARGO_BIN_EXE_dso")).arg(&target).env("ROOTFS_LIMIT", "1000000");
    let said = outcome(script.output().unwrap()).unwrap_err();
    assert!(said.contains("over the limit of 1000000"), "{said}");
    assert!(!target.exists());
}

#[test]
fn the_plugins_mounts_are_read_only_and_none_of_its_own_reach_the_host() {
    let plugin = Plugin::on(&Engine::system()).start();
    let (pid, id) = (plugin.pid(), plugin.id());
    let inside = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    for point in ["/etc/dso", "/host/etc", "/host/run"] {
        let line = inside.lines().find(|line| line.split(' ').nth(4) == Some(point)).unwrap();
        let (options, tags) = (line.split(' ').nth(5).unwrap(), line.split(" - ").next().unwrap());
        assert!(options.split(',').any(|option| option == "ro"), "{line}");
        assert!(!tags.contains("shared:"), "would reach the host: {line}");
    }
    let outside = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours: Vec<&str> =
        outside.lines().filter_map(|line| line.split(' ').nth(4)).filter(|at| at.contains(id)).collect();
    assert_eq!(ours, [plugin.propagated().to_str().unwrap()]);
}

#[test]
fn make_plugin_replaces_an_older_one_unless_it_is_in_use() {
    let engine = Engine::system();
    let plugin = Plugin::on(&engine).create();
    let older = plugin.id().to_owned();
    let install = || {
        let mut script = Command::new(root().join("plugin/install.sh"));
        script.arg(plugin.driver()).arg(plugin.folder().join("plugin"));
        outcome(script.output().unwrap())
    };
    let printed = install().unwrap();
    assert!(printed.ends_with(&format!("plugin: {} is enabled", plugin.driver())), "{printed}");
    let newer = engine.docker(&["plugin", "inspect", "--format", "{{.ID}} {{.Enabled}}", &plugin.driver()]);
    assert!(newer.ends_with(" true") && !newer.starts_with(&older), "{newer}");

    let volume = plugin.named("volume");
    engine.docker(&["volume", "create", "--driver", &plugin.driver(), "--opt", "file.a=local://a/b", &volume]);
    let said = install().unwrap_err();
    assert!(said.ends_with(&format!("Remove what uses it first, volumes:\n  {volume}")), "{said}");
    assert_eq!(engine.docker(&["plugin", "inspect", "--format", "{{.ID}} {{.Enabled}}", &plugin.driver()]), newer);
    engine.docker(&["volume", "rm", &volume]);
    install().unwrap();
}

#[test]
fn a_host_that_has_never_seen_dso_installs_it_from_a_registry_and_is_told_every_privilege() {
    let (system, registry, own) = (Engine::system(), Registry::start(), OwnEngine::start());
    own.forward(registry.port);
    let name = registry.name("team/dso:1");
    let preparation = Plugin::on(&system);
    let push = Command::new(root().join("plugin/push.sh")).arg(&name).arg(preparation.staged()).output().unwrap();
    outcome(push).unwrap();
    system.docker_fails(&["plugin", "inspect", &name]);

    let mut asks = own.command();
    let asks = asks.args(["plugin", "install", &name]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    asks.stdin.as_ref().unwrap().write_all(b"n\n").unwrap();
    let asked = String::from_utf8(asks.wait_with_output().unwrap().stdout).unwrap();
    let lines = asked.lines().filter_map(|line| line.trim_start().strip_prefix("- "));
    let each = lines.flat_map(|line| {
        let (kind, values) = line.split_once(": [").unwrap_or((line, ""));
        values.trim_end_matches(']').split(' ').map(|value| format!("{kind}: {value}")).collect::<Vec<_>>()
    });
    let config = serde_json::from_str(&read("config.json")).unwrap();
    assert_eq!(each.collect::<BTreeSet<_>>(), privileges(&config), "{asked}");
    own.docker_fails(&["plugin", "inspect", &name]);

    own.docker(&["plugin", "install", "--grant-all-permissions", &name]);
    assert_eq!(own.docker(&["plugin", "ls", "--format", "{{.Name}} {{.Enabled}}"]), format!("{name} true"));
}

#[test]
fn the_dockerfile_builds_with_no_base_image() {
    let engine = Engine::system();
    let preparation = Plugin::on(&engine);
    let staged = preparation.staged();
    let image = format!("{}:latest", crate::support::unique());
    let mut build = engine.command();
    build.args(["build", "--build-arg", "ROOTFS=rootfs", "--tag", &image, "--file"]);
    build.arg(root().join("Dockerfile")).arg(&staged).env("DOCKER_BUILDKIT", "0");
    outcome(build.output().unwrap()).unwrap();
    assert_eq!(engine.json(&["image", "inspect", &image], ".Config.Entrypoint"), serde_json::json!(["/dso"]));
    engine.docker(&["rmi", &image]);
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
