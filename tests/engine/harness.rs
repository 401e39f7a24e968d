//! That the tests' own support does what it says, above all that it leaves nothing behind.

use crate::support::{
    BUSYBOX, MARK, SCRATCH, SOON, cleanup::Scope, compose::Compose, engine::Engine, own_engine::OwnEngine,
    plugin::Plugin, registry::Registry, root, wait_for,
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

#[test]
fn a_plugin_answers_and_can_be_killed_disabled_and_enabled() {
    let engine = Engine::system();
    let plugin = Plugin::on(&engine).set("DSO_REFRESH=1s").config("a/b", "c").start();
    assert!(plugin.call("/VolumeDriver.Capabilities", &serde_json::json!({})).1["Capabilities"].is_object());
    assert!(plugin.propagated().is_dir() && plugin.rootfs().is_dir());
    let seen = format!("/proc/{}/root/etc/dso/a/b", plugin.pid());
    assert_eq!(fs::read_to_string(seen).unwrap(), "c");
    let environment = fs::read_to_string(format!("/proc/{}/environ", plugin.pid())).unwrap();
    assert!(environment.contains("DSO_REFRESH=1s\0"), "{environment}");

    plugin.kill();
    plugin.disable();
    wait_for("the process to end", SOON, || plugin.try_pid().is_none());
    plugin.enable();
    assert!(plugin.try_pid().is_some());
}

#[test]
fn a_plugins_lines_are_found_in_the_engines_log() {
    let plugin = Plugin::on(&Engine::system()).set("DSO_LOG=info").start();
    wait_for("a line of the plugin", SOON, || !plugin.log().is_empty());
}

#[test]
fn whatever_uses_a_plugin_goes_with_it() {
    let engine = Engine::system();
    let container = {
        let plugin = Plugin::on(&engine).start();
        engine.docker(&["volume", "create", &plugin.named("plain")]);
        engine.docker(&["run", "--detach", "--name", &plugin.named("reader"), SCRATCH, "wait"])
    };
    assert!(engine.docker_fails(&["container", "inspect", &container]).contains("No such container"));
    let names = [
        engine.docker(&["plugin", "ls", "--format", "{{.Name}}"]),
        engine.docker(&["volume", "ls", "--format", "{{.Name}}"]),
    ];
    let ours = format!("dso-test-{}-", std::process::id());
    assert!(names.iter().all(|names| !names.contains(&ours)) || under_cargo_test(), "{names:?}");
    assert!(!root().join("target/world/run").join(&ours).exists());
}

/// All tests in one process, so that others of the same number run beside this one.
fn under_cargo_test() -> bool {
    std::env::var_os("NEXTEST").is_none()
}

#[test]
fn the_engine_under_test_is_found_by_its_socket_with_its_folders_and_its_log() {
    let engine = Engine::system();
    let plugin = Plugin::on(&engine).start();
    assert!(engine.exec_root.join("containerd").exists() && plugin.rootfs().join("dso").exists());
    assert!(engine.log().contains(plugin.id()), "the engine's log names the plugin that it has started");
    let wanted = std::env::var("DSO_TEST_ENGINE").unwrap_or_default();
    let versions = [&engine, &OwnEngine::start()].map(|engine| engine.json(&["version"], ".Server.Version"));
    assert_eq!(versions[0], versions[1]);
    assert!(versions[0].as_str().unwrap().starts_with(&wanted), "{} is not {wanted}", versions[0]);
}

#[test]
fn a_server_ends_with_its_scope() {
    let scope = Scope::new();
    let mut server = Command::new("sleep").arg("1000").env(MARK, &scope.name).spawn().unwrap();
    drop(scope);
    assert!(!server.wait().unwrap().success(), "ended by a signal");
}

#[test]
fn compose_is_the_real_one() {
    let engine = Engine::system();
    let file = format!("services:\n  app:\n    image: {BUSYBOX}\n    command: [sleep, '1000']\n    init: true\n");
    let compose = Compose::new(&engine, &file);
    compose.run(&["up", "--detach"]);
    compose.run(&["up", "--detach"]);
    assert_eq!(compose.run(&["exec", "--no-TTY", "app", "echo", "hello"]), "hello");
    let container = format!("{}-app-1", compose.project());
    assert_eq!(engine.json(&["inspect", &container], ".State.Running"), true);
    drop(compose);
    engine.docker_fails(&["container", "inspect", &container]);
}

#[test]
fn an_engine_of_the_tests_own_runs_images_restarts_and_leaves_nothing() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (run, folder, child);
    {
        let mut own = OwnEngine::start();
        own.load_images();
        own.docker(&[
            "run",
            "--detach",
            "--network=none",
            "--restart=always",
            "--stop-timeout=0",
            "--name=app",
            SCRATCH,
            "wait",
        ]);
        own.restart();
        wait_for("the container to be restored", SOON, || own.json(&["inspect", "app"], ".State.Running") == true);
        own.kill();
        own.resume();
        wait_for("the container to be restored", SOON, || own.json(&["inspect", "app"], ".State.Running") == true);
        child = own.json(&["inspect", "app"], ".State.Pid");
        let plugin = Plugin::on(&own).start();
        assert!(plugin.call("/VolumeDriver.Capabilities", &serde_json::json!({})).1["Capabilities"].is_object());
        assert!(plugin.socket().exists() && plugin.pid() > 0);
        own.kill();
        own.resume();
        (run, folder) = (own.exec_root.clone(), own.data_root.clone());
        assert!(mounts().contains(folder.to_str().unwrap()));
    }
    assert!(!run.exists() && !folder.exists());
    assert!(!mounts().contains(folder.to_str().unwrap()), "{}", mounts());
    let command = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
    assert!(!command.contains("probe"), "the container's process has ended");
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap().stdout;
    let name = run.file_name().unwrap().to_str().unwrap();
    assert!(!String::from_utf8(namespaces).unwrap().lines().any(|line| line.split(' ').next() == Some(name)));
}

#[test]
fn the_registry_is_reached_from_the_host_and_from_an_engines_namespace() {
    let (registry, own) = (Registry::start(), OwnEngine::start());
    let name = registry.name("dso-test-image:latest");
    let mut stream = TcpStream::connect(("127.0.0.1", registry.port)).unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");

    own.load_images();
    own.docker(&["tag", BUSYBOX, &name]);
    own.docker_fails(&["push", &name]);
    own.forward(registry.port);
    own.docker(&["push", &name]);
}
