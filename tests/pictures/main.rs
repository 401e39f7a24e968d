//! `make pictures`: what `docker dso` shows in a real terminal program, as PNG under docs/pictures. The engine is one of its own, where
//! names can be those of an example, and the Makefile gives it an `/etc` of its own, so that `/etc/dso` is the example's too.

#[path = "../support/mod.rs"]
mod support;

mod xterm;

use std::{
    fs,
    path::{Path, PathBuf},
};
use support::{
    BUSYBOX, SOON, engine::Engine, local::LocalSecrets, own_engine::OwnEngine, plugin::Plugin, root, wait_for,
};
use xterm::Screen;

const SCRIPT: &str = "trap : HUP; while :; do sleep 0.05; done";

fn main() {
    let engine = OwnEngine::start();
    engine.load_images();
    let (stage, config) = (Plugin::on(&engine), Path::new("/etc/dso"));
    assert!(config.is_dir(), "run `make pictures`");
    fs::write(config.join("dso.toml"), "[rotation]\nsettle = '1s'\n").expect("dso.toml");
    let store = LocalSecrets::in_dir(config);
    store.set("app#password", "first");
    store.set("app#user", "app");
    store.set("tls#key.pem", "key");

    engine.docker(&["plugin", "create", "dso:latest", stage.staged().to_str().expect("UTF-8")]);
    let sockets = engine.socket();
    let folder = sockets.parent().expect("a folder").display().to_string();
    for (setting, value) in [("config.source", config.display().to_string()), ("engine.source", folder)] {
        engine.docker(&["plugin", "set", "dso", &format!("{setting}={value}")]);
    }
    engine.docker(&["plugin", "enable", "dso"]);
    volume(&engine, "app-secrets", &["from=local://app", "mode=0400", "refresh=0"]);
    volume(&engine, "tls", &["file.tls/key.pem=local://tls#key.pem"]);
    volume(&engine, "billing", &["from=local://billing"]);
    for (name, volume, action) in
        [("web", "app-secrets", "signal:HUP"), ("worker", "app-secrets", "restart"), ("proxy", "tls", "signal:HUP")]
    {
        let label = format!("dso.on-rotate={action}");
        let mount = format!("type=volume,src={volume},dst=/run/secrets");
        let words = [
            "run",
            "--detach",
            "--network=none",
            "--stop-timeout=0",
            "--name",
            name,
            "--label",
            &label,
            "--mount",
            &mount,
        ];
        engine.docker(&[&words[..], &[BUSYBOX, "sh", "-c", SCRIPT]].concat());
    }
    let users = || engine.json(&["volume", "inspect", "app-secrets"], ".Status.containers");
    wait_for("the containers to be seen", SOON, || users().as_array().is_some_and(|users| users.len() == 2));
    let _ = engine.try_docker(&[
        "run",
        "--rm",
        "--network=none",
        "--mount",
        "type=volume,src=billing,dst=/s",
        BUSYBOX,
        "true",
    ]);

    store.set("app#password", "second");
    let _ = engine.try_docker(&["dso", "refresh", "--wait", "app-secrets"]);
    store.set("app#password", "third");
    let screen = Screen::start();
    for (name, words) in [
        ("refresh", &["dso", "refresh", "--wait", "app-secrets"][..]),
        ("ls", &["dso", "ls"]),
        ("inspect", &["dso", "inspect", "app-secrets"]),
    ] {
        screen.picture(&engine.command(), words, &picture(name));
    }
    // With the volume that cannot be mounted there is an error, and the doctor says so by its exit code too.
    engine.docker(&["volume", "rm", "billing"]);
    screen.picture(&engine.command(), &["dso", "doctor"], &picture("doctor"));

    engine.docker(&["rm", "--force", "web", "worker", "proxy"]);
    engine.docker(&["plugin", "disable", "--force", "dso"]);
}

fn volume(engine: &Engine, name: &str, options: &[&str]) {
    let options = options.iter().flat_map(|option| ["--opt", option]);
    let words: Vec<_> = ["volume", "create", "--driver", "dso"].into_iter().chain(options).chain([name]).collect();
    engine.docker(&words);
}

fn picture(name: &str) -> PathBuf {
    root().join("docs/pictures").join(format!("{name}.png"))
}
