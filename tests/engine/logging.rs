//! The plugin's log, as it comes to the engine's.

use crate::support::{SOON, engine::Engine, local::LocalSecrets, plugin::Plugin, wait_for};
use serde_json::{Value, json};

/// The engine's own lines of the plugin: their level, and what the plugin wrote.
fn lines(plugin: &Plugin) -> Vec<(String, String)> {
    let log = plugin.engine().log();
    let ours = log.lines().filter(|line| line.contains(&format!("plugin={}", plugin.id())));
    let parts = ours.filter_map(|line| {
        let level = line.split_once(" level=")?.1.split(' ').next()?;
        let quoted = line.split_once(" msg=")?.1.rsplit_once(" plugin=")?.0;
        Some((level.to_owned(), serde_json::from_str(quoted).unwrap_or_else(|_| quoted.to_owned())))
    });
    parts.collect()
}

/// A mount that succeeds, and one that fails.
fn mount_two(plugin: &Plugin) {
    LocalSecrets::in_dir(&plugin.config_dir()).set("app", "x");
    for (volume, reference) in [("good", "local://app"), ("bad", "local://none")] {
        let name = plugin.named(volume);
        plugin.call("/VolumeDriver.Create", &json!({"Name": name, "Opts": {"file.x": reference}}));
        plugin.call("/VolumeDriver.Mount", &json!({"Name": name, "ID": "m"}));
    }
    plugin.call("/VolumeDriver.Unmount", &json!({"Name": plugin.named("good"), "ID": "m"}));
}

#[test]
fn levels_hold_by_module_json_is_json_and_errors_alone_are_errors_of_the_engine() {
    let settings = Plugin::on(&Engine::system()).set("DSO_LOG_FORMAT=json").set("DSO_LOG=warn,dso::app=info");
    let plugin = settings.start();
    mount_two(&plugin);
    wait_for("the mount that failed", SOON, || lines(&plugin).iter().any(|(_, line)| line.contains("mount failed")));
    let mut seen = Vec::new();
    for (level, line) in lines(&plugin) {
        let Ok(record) = serde_json::from_str::<Value>(line.trim_end()) else { panic!("no JSON: {line}") };
        let own = record["level"].as_str().unwrap().to_owned();
        assert_eq!(level, if own == "ERROR" { "error" } else { "info" }, "{line}");
        let target = record["target"].as_str().unwrap().to_owned();
        assert!(own != "INFO" || target.starts_with("dso::app"), "{line}");
        seen.push((own, record["message"].as_str().unwrap().to_owned()));
    }
    let has = |level: &str, message: &str| seen.contains(&(level.to_owned(), message.to_owned()));
    assert!(has("INFO", "ready") && has("ERROR", "mount failed"), "{seen:?}");
}

#[test]
fn a_setting_that_cannot_be_used_is_told_and_the_default_holds() {
    for (setting, said) in [
        ("DSO_LOG=info,dso::driver=loud", "write it as `info` or `info,dso::driver=debug`"),
        ("DSO_LOG_FORMAT=xml", "DSO_LOG_FORMAT is `xml`: it must be `text` or `json`"),
    ] {
        let plugin = Plugin::on(&Engine::system()).set(setting).start();
        mount_two(&plugin);
        wait_for("both mounts in the log", SOON, || {
            let lines = lines(&plugin);
            let has = |level: &str, part: &str| lines.iter().any(|(of, line)| of == level && line.contains(part));
            has("error", said) && has("info", "dso::driver::mount: mounted") && has("error", "mount failed")
        });
    }
}
