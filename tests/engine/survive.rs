//! What containers notice when the plugin dies, is switched off, or its engine does: nothing.

use crate::support::{
    SCRATCH, SOON,
    engine::{Engine, outcome},
    local::LocalSecrets,
    own_engine::OwnEngine,
    plugin::Plugin,
    proxy::Fault,
    reader::Reader,
    vault::VaultServer,
    wait_for,
};
use rustix::{
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    os::fd::AsFd,
    process::Stdio,
    thread,
    time::Duration,
};

const FILES: usize = 10;
/// Of the message that a person gets.
const OUT_OF_SIGHT: &str = "the engine does not see what this plugin mounts";
const PATIENCE: Duration = Duration::from_secs(60);

/// A plugin, its store and a volume of ten files, with what every test here asks of them.
struct Stage {
    plugin: Plugin,
    store: LocalSecrets,
    volume: String,
}

impl Stage {
    fn on(engine: &Engine) -> Self {
        let plugin = Plugin::on(engine).start();
        let store = LocalSecrets::in_dir(&plugin.config_dir());
        store.set_all("set", FILES, "first");
        Self { volume: plugin.named("volume"), plugin, store }
    }

    fn mount(&self) -> String {
        self.plugin.mount(&self.volume, "/s", &["from=local://set"])
    }

    fn rotate(&self, text: &str) {
        self.store.set_all("set", FILES, text);
    }

    /// What a further container, which ends at once, reads.
    fn read(&self) -> String {
        let words = ["run", "--rm", "--network=none", "--mount", &self.mount(), SCRATCH, "cat", "/s/f0"];
        self.plugin.engine().docker(&words)
    }

    /// `docker cp` on a running container: Docker mounts the volume once more, with the container's own mount ID.
    fn copy_from(&self, container: &str) -> String {
        let file = self.plugin.folder().join("copied");
        let (from, to) = (format!("{container}:/s/..data/f0"), file.to_str().unwrap());
        self.plugin.engine().docker(&["cp", &from, to]);
        fs::read_to_string(&file).unwrap()
    }

    /// State and number of mounts, as `docker volume inspect` has them, with `List` held against it.
    #[track_caller]
    fn ledger(&self) -> (Value, Value) {
        let (status, listed) = self.plugin.call("/VolumeDriver.List", &json!({}));
        let names: Vec<_> = listed["Volumes"].as_array().unwrap().iter().map(|volume| &volume["Name"]).collect();
        assert_eq!((status, names), (200, vec![&Value::from(self.volume.as_str())]));
        let status = self.plugin.status(&self.volume);
        (status["state"].clone(), status["mounts"].clone())
    }

    /// Removes everything in the order in which a person does, with no force.
    fn end(self) {
        let engine = self.plugin.engine();
        assert_eq!(self.ledger(), ("idle".into(), 0.into()));
        assert!(!self.plugin.shown(&self.volume).exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.volume), "{mounts}");
        engine.docker(&["volume", "rm", &self.volume]);
        engine.docker(&["plugin", "disable", &self.plugin.driver()]);
        engine.docker(&["plugin", "rm", &self.plugin.driver()]);
    }
}

fn wait_for_all(readers: &[Reader], text: &str) {
    for reader in readers {
        reader.wait_for(text);
    }
}

#[test]
fn a_plugin_that_is_killed_again_and_again_fails_no_read_and_goes_on_rotating() {
    let stage = Stage::on(&Engine::system());
    let engine = stage.plugin.engine();
    let readers = ["0", "1000:1000"].map(|user| Reader::start(engine, &stage.mount(), FILES, &["--user", user]));
    wait_for_all(&readers, "first");
    for round in 1..=6 {
        let text = format!("round {round}");
        stage.rotate(&text);
        // Every other time while it rotates.
        if round % 2 == 0 {
            wait_for_all(&readers, &text);
        }
        stage.plugin.kill();
        wait_for_all(&readers, &text);
        assert_eq!(stage.ledger(), ("current".into(), 2.into()), "round {round}");
        assert_eq!(stage.copy_from(&readers[0].container), text);
        assert_eq!(stage.read(), text);
        assert_eq!(stage.ledger(), ("current".into(), 2.into()), "round {round}");
    }
    stage.rotate("last");
    for reader in readers {
        let said = reader.wait_for("last");
        assert_eq!((said.torn, said.lost, said.failed), (0, 0, 0), "{said:?}");
        assert_eq!(said.generations, 8, "{said:?}");
    }
    stage.end();
}

/// A start finds what its predecessor showed, and publishes nothing that did not change.
#[test]
fn a_plugin_that_starts_again_rotates_nothing() {
    let stage = Stage::on(&Engine::system());
    let reader = Reader::start(stage.plugin.engine(), &stage.mount(), FILES, &[]);
    reader.wait_for("first");
    let before = stage.plugin.status(&stage.volume);
    stage.plugin.kill();
    wait_for("the first check of the new process", SOON, || stage.plugin.status(&stage.volume)["checked"].is_string());
    let after = stage.plugin.status(&stage.volume);
    for field in ["state", "generation", "rotated", "versions", "mounts", "error"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    drop(reader);
    stage.end();
}

#[test]
fn a_plugin_that_dies_in_the_middle_of_a_mount_leaves_no_mount_behind() {
    let server = VaultServer::start();
    server.put("app", json!({"password": "value"}));
    let plugin = Plugin::on(&Engine::system())
        .config("dso.toml", server.settings())
        .config("vault-token", &server.bao.root)
        .start();
    let (engine, volume) = (plugin.engine(), plugin.named("volume"));
    let mount = plugin.mount(&volume, "/s", &["from=vault://secret/app"]);
    let words = ["run", "--rm", "--network=none", "--mount", &mount, SCRATCH, "cat", "/s/password"];
    server.proxy.fail("secret/data/app", 1, Fault::Hang);
    let mut run = engine.command();
    let run = run.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the mount to wait for the server", SOON, || server.proxy.count("GET", "secret/data/app") == 1);
    plugin.kill();
    // The engine repeats the call without its body, and so the person repeats the command.
    let said = outcome(run.wait_with_output().unwrap()).unwrap_err();
    assert!(said.contains("dso: the request is empty"), "{said}");
    assert_eq!(plugin.status(&volume)["mounts"], 0);
    assert!(!plugin.shown(&volume).exists());
    assert_eq!(engine.docker(&words), "value");
    assert_eq!(plugin.status(&volume)["mounts"], 0);
    engine.docker(&["volume", "rm", &volume]);
    engine.docker(&["plugin", "disable", &plugin.driver()]);
}

#[test]
fn containers_go_on_reading_while_the_plugin_is_switched_off_by_force_and_on_again() {
    let stage = Stage::on(&Engine::system());
    let engine = stage.plugin.engine();
    let old = Reader::start(engine, &stage.mount(), FILES, &[]);
    old.wait_for("first");
    stage.plugin.disable();
    old.goes_on();
    assert!(
        engine.docker_fails(&["run", "--rm", "--mount", &stage.mount(), SCRATCH, "cat", "/s/f0"]).contains("plugin")
    );
    stage.plugin.enable();
    assert_eq!(stage.ledger(), ("current".into(), 1.into()));

    // The old one follows again, and a new one has the same files.
    stage.rotate("second");
    old.wait_for("second");
    assert_eq!(stage.read(), "second");
    let new = Reader::start(engine, &stage.mount(), FILES, &[]);
    new.wait_for("second");
    assert_eq!(stage.ledger(), ("current".into(), 2.into()));
    stage.rotate("third");
    for reader in [&old, &new] {
        let said = reader.wait_for("third");
        assert_eq!((said.torn, said.lost, said.failed), (0, 0, 0), "{said:?}");
    }
    assert_eq!(stage.copy_from(&old.container), "third");
    assert_eq!(stage.ledger(), ("current".into(), 2.into()));
    drop((old, new));
    stage.end();
}

/// What the engine sometimes does when it starts after a crash: it unmounts the folder of the plugin that it has just
/// started again. What the plugin mounts then is not seen on the host, and a container would find an empty directory.
#[test]
fn the_plugins_folder_is_mounted_again_where_the_engine_has_unmounted_it() {
    let stage = Stage::on(&Engine::system());
    let (engine, folder) = (stage.plugin.engine(), stage.plugin.propagated());
    let unmounted = || {
        cut_off(&stage.plugin);
        unmount(&folder, UnmountFlags::DETACH).unwrap();
    };
    unmounted();
    assert_eq!(stage.read(), "first");
    // With a container that has the volume: the next one joins it.
    let old = Reader::start(engine, &stage.mount(), FILES, &[]);
    old.wait_for("first");
    unmounted();
    let new = Reader::start(engine, &stage.mount(), FILES, &[]);
    stage.rotate("second");
    wait_for_all(&[old, new], "second");
    stage.plugin.disable();
    stage.plugin.enable();
    assert_eq!(stage.read(), "second");
    stage.end();
}

/// Where that cannot be done, since something else is mounted there.
#[test]
fn a_container_is_refused_when_the_plugins_mounts_do_not_reach_the_engine() {
    let stage = Stage::on(&Engine::system());
    assert_eq!(stage.read(), "first");
    cut_off(&stage.plugin);
    let mount = stage.mount();
    let said = stage.plugin.engine().docker_fails(&[
        "run",
        "--rm",
        "--network=none",
        "--mount",
        &mount,
        SCRATCH,
        "cat",
        "/s/f0",
    ]);
    assert!(said.contains(OUT_OF_SIGHT), "{said}");
    assert_eq!(stage.ledger(), ("failed".into(), 0.into()));
    // As the message says.
    stage.plugin.disable();
    stage.plugin.enable();
    assert_eq!(stage.read(), "first");
    stage.end();
}

/// Leaves the plugin's folder as the engine's unmount does: shared, but with nobody.
fn cut_off(plugin: &Plugin) {
    let namespace = File::open(format!("/proc/{}/ns/mnt", plugin.pid())).unwrap();
    // Only this thread enters it, for which it must have its own working directory.
    let entered = thread::spawn(move || {
        #[expect(unsafe_code, reason = "sharing less with other threads touches no memory")]
        // SAFETY: file descriptors stay shared; the working directory and the root become this thread's own.
        unsafe { unshare_unsafe(UnshareFlags::FS) }.unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount)).unwrap();
        for propagation in [MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED] {
            mount_change("/data", propagation).unwrap();
        }
    });
    entered.join().unwrap();
}

/// Waits until the engine has brought the container back, and helps as dso's message says, if it was refused.
fn restored(own: &OwnEngine, stage: &Stage, reader: &Reader) {
    let running = || own.json(&["inspect", &reader.container], ".State.Running") == true;
    wait_for("the container to be restored", PATIENCE, || running() || stage.plugin.log().contains(OUT_OF_SIGHT));
    if !running() {
        eprintln!("the engine unmounted the plugin's folder");
        stage.plugin.disable();
        stage.plugin.enable();
        own.docker(&["start", &reader.container]);
    }
}

#[test]
fn an_engine_that_restarts_brings_its_containers_back_with_their_values_and_an_exact_ledger() {
    let mut own = OwnEngine::start();
    own.load_images();
    let stage = Stage::on(&own);
    let reader = Reader::start(&own, &stage.mount(), FILES, &["--restart=always"]);
    reader.wait_for("first");
    for (round, graceful) in [(1, true), (2, false), (3, false), (4, true)] {
        let text = format!("round {round}");
        if graceful {
            own.stop();
        } else {
            own.kill();
        }
        // While there is no engine.
        stage.rotate(&text);
        own.resume();
        restored(&own, &stage, &reader);
        // The container before may have read the text too: it lived on for as long as there was no engine.
        reader.wait_for(&text);
        let said = reader.goes_on();
        assert_eq!((said.text.as_str(), said.torn, said.lost, said.failed), (text.as_str(), 0, 0, 0), "{said:?}");
        wait_for("a mount", PATIENCE, || stage.ledger() == ("current".into(), 1.into()));
        assert_eq!(stage.copy_from(&reader.container), text);
        assert_eq!(stage.ledger(), ("current".into(), 1.into()), "round {round}");
        let live = format!("{text}, live");
        stage.rotate(&live);
        reader.wait_for(&live);
    }
    drop(reader);
    stage.end();
}
