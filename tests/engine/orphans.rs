//! What was out of reach after `docker plugin disable -f`, an upgrade or a restart of the engine is taken back from the
//! containers that have it, and none of them is restarted.

use crate::support::{
    BUSYBOX, PATIENCE,
    engine::{Engine, outcome},
    local::LocalSecrets,
    own_engine::OwnEngine,
    plugin::Plugin,
    reader::Reader,
    registry::Registry,
    root, wait_for,
};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;
use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

const FILES: usize = 4;
const CONTAINERS: usize = 20;
const VOLUMES: usize = 5;

/// A plugin, its store, and containers that read without a pause.
struct Fleet {
    plugin: Plugin,
    store: LocalSecrets,
    readers: Vec<Reader>,
}

/// What must stay as it is: when each container was started, and how often the engine restarted it.
type Lives = Vec<(Value, Value, Value)>;

impl Fleet {
    /// Four containers on each of five volumes: as root and not, writable and read-only.
    fn start(plugin: Plugin, engine: &Engine, containers: usize) -> Self {
        let store = LocalSecrets::in_dir(&plugin.config_dir());
        store.set_all("set", FILES, "first");
        let readers = (0..containers).map(|number| {
            let volume = plugin.named(&format!("v{}", number % VOLUMES));
            let mount = plugin.mount(&volume, "/s", &["from=local://set", "refresh=1s"]);
            let mount = if (number / VOLUMES).is_multiple_of(2) { mount } else { format!("{mount},readonly") };
            let user = if number / VOLUMES / 2 == 0 { "0" } else { "1000:1000" };
            Reader::start(engine, &mount, FILES, &["--user", user])
        });
        let readers = readers.collect();
        let fleet = Self { plugin, store, readers };
        fleet.wait_for("first");
        fleet
    }

    fn volume(&self, number: usize) -> String {
        self.plugin.named(&format!("v{number}"))
    }

    fn volumes(&self) -> impl Iterator<Item = String> {
        (0..VOLUMES.min(self.readers.len())).map(|number| self.volume(number))
    }

    fn rotate(&self, text: &str) {
        self.store.set_all("set", FILES, text);
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        for reader in &self.readers {
            reader.wait_for(text);
        }
    }

    fn lives(&self, engine: &Engine) -> Lives {
        let of = |reader: &Reader| {
            let field = |name: &str| engine.json(&["inspect", &reader.container], name);
            (field(".State.StartedAt"), field(".State.Pid"), field(".RestartCount"))
        };
        self.readers.iter().map(of).collect()
    }

    /// Every volume is current, with as many mounts as before, and each container follows the next rotation.
    #[track_caller]
    fn is_taken_back(&self, engine: &Engine, before: &Lives, last: &str) {
        let mounts = Value::from(self.readers.len() / VOLUMES.min(self.readers.len()));
        for volume in self.volumes() {
            // The plugin may be started once more by an engine that has just begun.
            wait_for(&format!("{volume} to be current"), PATIENCE, || {
                let status = engine.json(&["volume", "inspect", &volume], ".Status");
                status["state"] == "current" && status["error"].is_null() && status["mounts"] == mounts
            });
        }
        self.rotate(last);
        for reader in &self.readers {
            let said = reader.wait_for(last);
            assert_eq!((said.torn, said.failed), (0, 0), "{said:?}");
        }
        assert_eq!(&self.lives(engine), before);
    }

    /// Rotates for as long as `work` takes, and until `work` is done.
    fn while_rotating<T>(&self, work: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    self.rotate(&format!("round {round}"));
                    let from = self.readers[0].last().map_or(0, |said| said.reads);
                    // At the pace of a reader, which reads also while there is no plugin.
                    wait_for("a reader to read", PATIENCE, || {
                        done.load(Ordering::Relaxed) || self.readers[0].last().is_some_and(|said| said.reads > from)
                    });
                }
            });
            let result = work();
            done.store(true, Ordering::Relaxed);
            result
        })
    }
}

#[test]
fn twenty_containers_are_taken_back_after_the_plugin_was_switched_off_by_force_while_their_secrets_rotate() {
    let engine = Engine::system();
    let fleet = Fleet::start(Plugin::on(&engine).start(), &engine, CONTAINERS);
    let before = fleet.lives(&engine);
    for round in 1..=2 {
        fleet.while_rotating(|| {
            fleet.plugin.disable();
            fleet.readers[0].goes_on();
            fleet.plugin.enable();
        });
        fleet.is_taken_back(&engine, &before, &format!("after {round}"));
    }
    // A further container has the same files, not others of its own.
    let mount = fleet.plugin.mount(&fleet.volume(0), "/s", &["from=local://set", "refresh=1s"]);
    let device = |id: &str| {
        let pid = engine.json(&["inspect", id], ".State.Pid");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/s")).unwrap().to_owned();
        line.split(' ').nth(2).unwrap().to_owned()
    };
    let joined = Reader::start(&engine, &mount, FILES, &[]);
    joined.wait_for("after 2");
    assert_eq!(device(&joined.container), device(&fleet.readers[0].container));
    assert_eq!(fleet.plugin.status(&fleet.volume(0))["mounts"], 5);
}

#[test]
fn twenty_containers_are_taken_back_after_an_upgrade_from_a_registry_while_their_secrets_rotate() {
    let (engine, registry) = (Engine::system(), Registry::start());
    let newer = Plugin::on(&engine);
    let remote = registry.name("team/dso:2");
    outcome(Command::new(root().join("plugin/push.sh")).arg(&remote).arg(newer.staged()).output().unwrap()).unwrap();
    let fleet = Fleet::start(Plugin::on(&engine).start(), &engine, CONTAINERS);
    let before = fleet.lives(&engine);
    let name = fleet.plugin.driver();
    fleet.while_rotating(|| {
        fleet.plugin.disable();
        engine.docker(&["plugin", "upgrade", "--grant-all-permissions", "--skip-remote-check", &name, &remote]);
        // The engine shows the settings that the older version had, and starts the newer one with its defaults.
        fleet.plugin.set(&format!("config.source={}", fleet.plugin.config_dir().display()));
        fleet.plugin.enable();
    });
    assert_eq!(engine.json(&["plugin", "inspect", &name], ".PluginReference"), remote.as_str());
    fleet.is_taken_back(&engine, &before, "after the upgrade");
}

/// With live-restore, containers outlive their engine, and so does the plugin, if it is not ended meanwhile. What the plugin
/// has mounted stays too (seen on 20.10 and 28.5), unless somebody unmounts it: then it is taken back.
#[test]
fn containers_that_outlive_their_engine_are_current_again_when_it_is_back() {
    let mut own = OwnEngine::with(&["--live-restore"]);
    own.load_images();
    let fleet = Fleet::start(Plugin::on(&own).start(), &own, VOLUMES);
    let before = fleet.lives(&own);
    let rounds =
        [(true, true, true), (false, true, true), (true, false, true), (false, false, true), (true, false, false)];
    for (round, (graceful, plugin_lives, mounts_stay)) in rounds.into_iter().enumerate() {
        if graceful {
            own.stop();
        } else {
            own.kill();
        }
        // While there is no engine.
        fleet.rotate(&format!("round {round}"));
        if !plugin_lives {
            let pid = fleet.plugin.pid();
            kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
            wait_for("the plugin's end", PATIENCE, || fleet.plugin.try_pid() != Some(pid));
        }
        if !mounts_stay {
            for volume in fleet.volumes() {
                unmount(fleet.plugin.shown(&volume), UnmountFlags::DETACH).unwrap();
            }
        }
        own.resume();
        let last = format!("after {round}");
        fleet.is_taken_back(&own, &before, &last);
        // A further container has the same.
        let mount = fleet.plugin.mount(&fleet.volume(0), "/s", &["from=local://set", "refresh=1s"]);
        let joined = Reader::start(&own, &mount, FILES, &[]);
        joined.wait_for(&last);
    }
}

/// From engine 26 on, one may mount a part of a volume. It is resolved once and never changes; there is no way from it to the whole.
#[test]
fn a_volume_is_taken_back_from_a_container_with_several_places_and_one_with_a_part_says_what_to_do() {
    let engine = Engine::system();
    let plugin = Plugin::on(&engine).start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    store.set("key", "first");
    let options = ["file.tls/key=local://key", "refresh=1s"];
    let mount = |volume: &str, dst: &str| plugin.mount(&plugin.named(volume), dst, &options);
    let start = |mounts: &[&str]| {
        let mounts: Vec<_> = mounts.iter().flat_map(|mount| ["--mount", *mount]).collect();
        let start = ["run", "--detach", "--network=none", "--stop-timeout=0", "--user=1000"];
        engine.docker(&[&start[..], &mounts, &[BUSYBOX, "sleep", "1000"]].concat())
    };
    let read = |container: &str, file: &str| engine.try_docker(&["exec", container, "cat", file]);
    let several = start(&[&mount("whole", "/s"), &format!("{},readonly", mount("whole", "/t"))]);
    let part = start(&[&format!("{},volume-subpath=tls", mount("part", "/s"))]);
    let is_part = read(&part, "/s/key").is_ok();
    let version = engine.json(&["version"], ".Server.Version");
    let major: u32 = version.as_str().and_then(|text| text.split('.').next()?.parse().ok()).unwrap();
    assert_eq!(is_part, major >= 26, "{version}");
    plugin.disable();
    plugin.enable();
    store.set("key", "second");
    wait_for("the new value at both places", PATIENCE, || {
        ["/s/tls/key", "/t/tls/key"].iter().all(|file| read(&several, file).unwrap() == "second")
    });
    assert_eq!(plugin.status(&plugin.named("whole"))["mounts"], 2);
    let status = plugin.status(&plugin.named("part"));
    if is_part {
        assert_eq!((status["state"].as_str(), read(&part, "/s/key").unwrap().as_str()), (Some("orphaned"), "first"));
        assert!(status["error"].as_str().unwrap().ends_with("restart the containers"), "{status}");
    } else {
        wait_for("the new value in the whole volume", PATIENCE, || read(&part, "/s/tls/key").unwrap() == "second");
    }
}

/// Two plugins of one host, each with a volume of the same name: neither takes what is the other's.
#[test]
fn a_plugin_takes_back_its_own_volumes_and_not_those_of_another() {
    let (system, own) = (Engine::system(), OwnEngine::start());
    own.load_images();
    let plugins = [Plugin::on(&system).start(), Plugin::on(&own).start()];
    let volume = plugins[0].named("volume");
    let stores = plugins.each_ref().map(|plugin| LocalSecrets::in_dir(&plugin.config_dir()));
    let readers: Vec<_> = [(&plugins[0], &stores[0], "ours"), (&plugins[1], &stores[1], "theirs")]
        .map(|(plugin, store, text)| {
            store.set_all("set", FILES, text);
            let mount = plugin.mount(&volume, "/s", &["from=local://set", "refresh=1s"]);
            let reader = Reader::start(plugin.engine(), &mount, FILES, &[]);
            reader.wait_for(text);
            reader
        })
        .into();
    plugins.iter().for_each(Plugin::disable);
    // The newest of all is the other's, and the only one that is left when ours has gone.
    stores[0].set_all("set", FILES, "ours, later");
    plugins[0].enable();
    readers[0].wait_for("ours, later");
    plugins[0].disable();
    system.docker(&["kill", &readers[0].container]);
    plugins[0].enable();
    assert_eq!(plugins[0].status(&volume)["state"], "orphaned");
    readers[1].goes_on();
    assert_eq!(readers[1].last().unwrap().text, "theirs");
    stores[1].set_all("set", FILES, "theirs, later");
    plugins[1].enable();
    readers[1].wait_for("theirs, later");
    assert_eq!(readers[1].last().unwrap().failed, 0);
}
