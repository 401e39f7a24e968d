//! Which engine is asked, and by whom.

use super::world::Desk;
use crate::support::{cleanup::Scope, door::Door, engine::Engine, root, world};
use std::{
    fs,
    io::{self, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// An engine's socket on a port of loopback, until the test's process ends.
fn port(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let copy = |mut from: Box<dyn io::Read + Send>, mut to: Box<dyn Write + Send>, end: Box<dyn Fn() + Send>| {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            end();
        });
    };
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = UnixStream::connect(&socket) else { continue };
            let near = |_| -> TcpStream { near.try_clone().unwrap() };
            let far = |_| far.try_clone().unwrap();
            let (end_far, end_near) = (far(()), near(()));
            copy(Box::new(near(())), Box::new(far(())), Box::new(move || drop(end_far.shutdown(Shutdown::Write))));
            copy(Box::new(far(())), Box::new(near(())), Box::new(move || drop(end_near.shutdown(Shutdown::Write))));
        }
    });
    port
}

/// For a socket's path, which must be short; others may go there.
fn short_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("dso-test-").tempdir_in("/run").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A `DOCKER_CONFIG` of the test's own, for contexts.
fn config(folder: &Path) -> PathBuf {
    let config = folder.join("docker");
    fs::create_dir_all(config.join("cli-plugins")).unwrap();
    for plugin in ["docker-dso", "docker-compose"] {
        std::os::unix::fs::symlink(world("docker/cli-plugins").join(plugin), config.join("cli-plugins").join(plugin))
            .unwrap();
    }
    config
}

#[test]
fn docker_lists_the_command_and_completes_it() {
    let engine = Engine::system();
    assert!(engine.docker(&["--help"]).lines().any(|line| line.trim_start().starts_with("dso*")));
    for words in [&["help", "dso"][..], &["dso", "help"], &["dso", "--help"]] {
        assert!(engine.docker(words).contains("Usage: docker dso [OPTIONS] <COMMAND>"), "{words:?}");
    }
    let plugins = engine.json(&["info"], ".ClientInfo.Plugins");
    let dso = plugins.as_array().unwrap().iter().find(|plugin| plugin["Name"] == "dso").unwrap();
    assert_eq!(dso["Version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(dso["ShortDescription"], "Secrets for containers, in RAM only");
    let offered = engine.docker(&["__complete", "dso", "insp"]);
    assert_eq!(offered, "inspect\tShow all that is known of volumes\n:4");
}

#[test]
fn volumes_are_completed() {
    let desk = Desk::start("");
    desk.create("some", &["from=local://app"]);
    let begun = desk.plugin.named("so");
    let offered = desk.engine().docker(&["__complete", "dso", "inspect", &begun]);
    assert_eq!(desk.normal(&offered), "T-some\n:4");
}

#[test]
fn the_engine_is_the_one_that_docker_would_ask() {
    let desk = Desk::start("");
    let volume = desk.create("v", &["from=local://app"]);
    let engine = desk.engine();
    let scope = Scope::new();
    let folder = short_folder();
    let door = Door::before(&engine.socket(), folder.path());
    door.hold_any(usize::MAX, crate::support::door::When::Before);
    let other = format!("unix://{}/docker.sock", folder.path().display());
    let (tcp, config) = (format!("tcp://127.0.0.1:{}", port(engine.socket())), config(&scope.folder));
    for (name, host) in [("near", &other), ("far", &tcp)] {
        let create = ["context", "create", name, "--docker", &format!("host={host}")];
        assert!(engine.command().env("DOCKER_CONFIG", &config).args(create).output().unwrap().status.success());
    }
    let driver = desk.plugin.driver();
    let ls = ["dso", "--plugin", &driver, "ls", "--quiet"];
    let seen = |options: &[&str], env: &[(&str, &str)]| {
        let before = door.calls().len();
        let mut command = engine.command();
        command.env("DOCKER_CONFIG", &config).env_remove("DOCKER_HOST").envs(env.iter().copied());
        let output = command.args(options).args(ls).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            volume,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        door.calls().len() > before
    };
    assert!(seen(&[], &[("DOCKER_HOST", &other)]));
    assert!(seen(&["--host", &other], &[("DOCKER_HOST", "unix:///nowhere.sock")]));
    assert!(seen(&["--context", "near"], &[]));
    assert!(seen(&["--context", "near"], &[("DOCKER_HOST", &tcp)]));
    assert!(seen(&[], &[("DOCKER_CONTEXT", "near")]));
    // Through Docker's own connection, and not by the door.
    assert!(!seen(&["-H", &tcp], &[]));
    assert!(!seen(&["--context=far"], &[]));
    assert!(!seen(&[], &[("DOCKER_HOST", &tcp)]));
    assert!(
        engine
            .command()
            .env("DOCKER_CONFIG", &config)
            .args(["context", "use", "near"])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert!(seen(&[], &[]));
}

/// Someone of the group that may use the engine: here a group of the test's own socket.
#[test]
fn who_may_use_docker_may_look_and_only_root_may_act() {
    const USER: u32 = 65534;
    let desk = Desk::start("");
    let volume = desk.create("v", &["from=local://app"]);
    let folder = short_folder();
    let _door = Door::before(&desk.engine().socket(), folder.path());
    let socket = folder.path().join("docker.sock");
    std::os::unix::fs::chown(&socket, Some(0), Some(USER)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
    // Where others may go: the work tree may be anybody's.
    let bin = tempfile::tempdir().unwrap();
    fs::set_permissions(bin.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = bin.path().join("docker-dso");
    fs::copy(root().join("target/debug/docker-dso"), &binary).unwrap();
    let run = |group: u32, words: &[&str]| {
        let mut command = Command::new(&binary);
        command.env("DOCKER_HOST", format!("unix://{}", socket.display())).args(["--plugin", &desk.plugin.driver()]);
        command.args(words).uid(USER).gid(group);
        desk.ran(command.output().unwrap())
    };
    assert_eq!(run(USER, &["ls", "-q"]).out, "T-v");
    assert_eq!(run(USER, &["inspect", "-f", "{{.State}}", &volume]).out, "idle");
    let ran = run(USER, &["version"]);
    assert!(ran.code == Some(0) && ran.out.contains("Version:  unknown: only root"), "{ran:?}");
    let acting = "Error: this asks the plugin at its own socket, which is root's: run it as root on the engine's host (`sudo docker dso …`)";
    for words in [&["refresh", &volume][..], &["events"], &["check", "-o", "from=local://app"]] {
        let ran = run(USER, words);
        assert_eq!((ran.code, &*ran.err), (Some(1), acting), "{words:?}");
    }
    assert_ne!(fs::metadata(&socket).unwrap().gid(), 1);
    let ran = run(1, &["ls"]);
    let fault = format!(
        "Error: you may not use the engine at unix://{}: use `sudo`, or let an administrator add you to its group (`docker`)",
        socket.display()
    );
    assert_eq!((ran.code, ran.err), (Some(1), desk.normal(&fault)));
}
