//! The plugin is killed at every call that a rollout makes to the engine, before the engine hears of it and after it did it.

use crate::support::{
    BUSYBOX, SOON,
    bao::unique,
    door::{Door, When},
    engine::Engine,
    local::LocalSecrets,
    plugin::Plugin,
    unique as name, until, wait_for,
};
use serde_json::Value;
use std::{cell::RefCell, path::PathBuf, time::Duration};

const PATIENCE: Duration = Duration::from_secs(90);
/// Two containers must not write to one volume: with this a replacement is made in place.
const ALONE: [&str; 2] = ["--network=none", "--volume=/anonymous"];
const TOML: &str = "[rotation]\nsettle = '500ms'\nrestart_budget = 1000\n";

struct Walk {
    door: Door,
    plugin: Plugin,
    store: LocalSecrets,
    volume: String,
    container: String,
    folder: PathBuf,
}

impl Walk {
    /// A container that tells in /tmp/seen what it has noticed, behind a plugin that reaches the engine through a door.
    fn start(action: &str, words: &[&str]) -> Self {
        let engine = Engine::system();
        let folder = PathBuf::from("/run").join(name());
        let door = Door::before(&engine.socket(), &folder);
        let source = format!("engine.source={}", folder.display());
        let plugin = Plugin::on(&engine).set(&source).config("dso.toml", TOML).start();
        let store = LocalSecrets::in_dir(&plugin.config_dir());
        store.set("app#password", "first");
        let (volume, container) = (plugin.named("v"), plugin.named("c"));
        let mount = plugin.mount(&volume, "/secrets", &["file.password=local://app#password"]);
        let label = format!("dso.on-rotate={action}");
        let script = "note() { cat /secrets/password > /tmp/seen; ! grep -q ^bad /tmp/seen || exit 1; }; note; trap note HUP; \
                      while :; do sleep 0.05; done";
        let run = ["run", "--detach", "--stop-timeout=0", "--name", &container, "--label", &label, "--mount", &mount];
        engine.docker(&[&run[..], words, &[BUSYBOX, "sh", "-c", script]].concat());
        let walk = Self { door, plugin, store, volume, container, folder };
        wait_for("the container to be seen", SOON, || walk.status()["containers"].is_array());
        walk
    }

    fn status(&self) -> Value {
        self.plugin.status(&self.volume)
    }

    fn rotate(&self, prefix: &str) -> String {
        let value = format!("{prefix}{}", unique());
        self.store.set("app#password", &value);
        value
    }

    /// Waits until the container has noticed `value` and the rollout has been verified; then the end state is looked at.
    #[track_caller]
    fn ends_well(&self, value: &str, at: &str) {
        let engine = self.plugin.engine();
        let seen = || engine.try_docker(&["exec", &self.container, "cat", "/tmp/seen"]).unwrap_or_default();
        wait_for(&format!("the container to notice the new value ({at})"), PATIENCE, || seen() == value);
        let status = until(&format!("the rollout to end well ({at})"), PATIENCE, || {
            let status = self.status();
            let to = status["last_rotation"]["to"] == status["generation"];
            (to && status["last_rotation"]["result"] == "verified").then_some(status)
        });
        assert_eq!(status["state"], "current", "{at}: {status}");
        self.is_one(at);
    }

    /// Waits until what the container cannot live with was taken back, as if it had never been.
    #[track_caller]
    fn ends_as_before(&self, value: &str, at: &str) {
        let engine = self.plugin.engine();
        let status = until(&format!("the value to be taken back ({at})"), PATIENCE, || {
            let status = self.status();
            (status["last_rotation"]["result"] == "rolled back").then_some(status)
        });
        assert_eq!(status["state"], "stale", "{at}: {status}");
        let read = |file: &str| engine.try_docker(&["exec", &self.container, "cat", file]).unwrap_or_default();
        wait_for(&format!("the old value ({at})"), PATIENCE, || {
            read("/secrets/password") == value && read("/tmp/seen") == value
        });
        self.is_one(at);
    }

    #[track_caller]
    fn is_one(&self, at: &str) {
        let engine = self.plugin.engine();
        let all = ["ps", "--all", "--filter", &format!("name={}", self.container), "--format", "{{.Names}}"];
        assert_eq!(engine.docker(&all), self.container, "{at}: one container, of that name");
        let running = engine.json(&["inspect", &self.container], ".State");
        assert_eq!((&running["Running"], &running["Restarting"]), (&true.into(), &false.into()), "{at}: {running}");
    }

    fn anonymous(&self) -> String {
        let format = "{{range .Mounts}}{{if eq .Destination \"/anonymous\"}}{{.Name}}{{end}}{{end}}";
        self.plugin.engine().docker(&["inspect", "--format", format, &self.container])
    }

    /// Kills the plugin at each call in turn, while it tells the container of a good value. Returns the calls.
    #[track_caller]
    fn every_step(&self) -> Vec<String> {
        let anonymous = self.anonymous();
        self.every_step_of("", |value, at| {
            self.ends_well(value, at);
            assert_eq!(self.anonymous(), anonymous, "{at}: the anonymous volume");
        })
    }

    /// The same with a value that ends the container.
    #[track_caller]
    fn every_step_of_a_failure(&self) -> Vec<String> {
        let (anonymous, good) = (self.anonymous(), RefCell::new(String::from("first")));
        self.every_step_of("bad", |_, at| {
            self.ends_as_before(&good.borrow(), at);
            assert_eq!(self.anonymous(), anonymous, "{at}: the anonymous volume");
            self.door.open();
            let next = self.rotate("");
            self.ends_well(&next, &format!("the next good value, after: {at}"));
            good.replace(next);
        })
    }

    fn every_step_of(&self, prefix: &str, ends: impl Fn(&str, &str)) -> Vec<String> {
        self.door.hold(usize::MAX, When::Before);
        let value = self.rotate(prefix);
        let result = if prefix.is_empty() { "verified" } else { "rolled back" };
        let calls = until("the rollout to end", PATIENCE, || {
            (self.status()["last_rotation"]["result"] == result).then(|| self.door.calls())
        });
        ends(&value, "nothing killed");
        println!("calls of a rollout: {calls:#?}");
        for (number, call) in calls.iter().enumerate() {
            for when in [When::Before, When::After] {
                let at = format!("killed {when:?} call {number}, {call}");
                self.door.hold(number, when);
                let value = self.rotate(prefix);
                wait_for(&format!("the call ({at})"), PATIENCE, || self.door.is_holding());
                self.plugin.kill();
                ends(&value, &at);
            }
        }
        calls
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A signal is no call to the engine, but what is asked of it before and after is: the plugin is killed there.
#[test]
fn a_plugin_killed_at_any_step_of_a_signal_ends_as_one_that_was_not() {
    let walk = Walk::start("signal", &ALONE);
    let mut held = 0;
    for number in 0..8 {
        for when in [When::Before, When::After] {
            let at = format!("killed {when:?} request {number}");
            walk.door.hold_any(number, when);
            let value = walk.rotate("");
            let seen = || walk.plugin.engine().try_docker(&["exec", &walk.container, "cat", "/tmp/seen"]);
            let verified = || walk.status()["last_rotation"]["to"] == walk.status()["generation"];
            let ended = || seen().is_ok_and(|seen| seen == value) && verified();
            wait_for(&format!("the request, or the end ({at})"), PATIENCE, || walk.door.is_holding() || ended());
            if walk.door.is_holding() {
                held += 1;
                walk.plugin.kill();
            }
            walk.door.open();
            walk.ends_well(&value, &at);
        }
    }
    assert!(held >= 8, "only {held} requests were held");
}

#[test]
fn a_plugin_killed_at_any_step_of_a_command_ends_as_one_that_was_not() {
    let command = "exec:sh -c 'cat /secrets/password > /tmp/seen'";
    assert_eq!(Walk::start(command, &ALONE).every_step().len(), 2);
}

#[test]
fn a_plugin_killed_at_any_step_of_a_restart_ends_as_one_that_was_not() {
    assert_eq!(Walk::start("restart", &ALONE).every_step().len(), 1);
}

#[test]
fn a_plugin_killed_at_any_step_of_a_replacement_in_place_ends_as_one_that_was_not() {
    let walk = Walk::start("rolling", &ALONE);
    assert!(!walk.anonymous().is_empty());
    assert!(walk.every_step().len() >= 5);
}

#[test]
fn a_plugin_killed_at_any_step_of_a_replacement_beside_the_old_one_ends_as_one_that_was_not() {
    let network = Network::create();
    let walk = Walk::start("rolling", &["--network", &network.0, "--network-alias=app"]);
    let calls = walk.every_step();
    assert!(calls.iter().any(|call| call.contains("/networks/")), "{calls:#?}");
    let networks = walk.plugin.engine().json(&["inspect", &walk.container], ".NetworkSettings.Networks");
    let aliases = networks[&network.0]["Aliases"].as_array().cloned().unwrap_or_default();
    assert!(aliases.contains(&"app".into()), "{networks}");
}

#[test]
fn a_plugin_killed_at_any_step_of_a_restart_that_fails_ends_as_before_it() {
    assert_eq!(Walk::start("restart", &ALONE).every_step_of_a_failure().len(), 2);
}

#[test]
fn a_plugin_killed_at_any_step_of_a_replacement_that_fails_ends_as_before_it() {
    assert!(Walk::start("rolling", &ALONE).every_step_of_a_failure().len() >= 5);
}

/// A network of the test's own, removed after its containers.
struct Network(String);

impl Network {
    fn create() -> Self {
        let network = Self(name());
        Engine::system().docker(&["network", "create", &network.0]);
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Engine::system().try_docker(&["network", "rm", &self.0]);
    }
}
