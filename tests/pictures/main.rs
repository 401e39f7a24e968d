//! `make pictures`: what `docker dso` shows on a terminal, as SVG under docs/pictures.
//!
//! Every line is what the real command wrote to a real terminal, of a real engine of its own, where names can be those of an
//! example. Only the frame is made here.

#[path = "../support/mod.rs"]
mod support;

mod screen;

use std::{fs, process::Command};
use support::{
    BUSYBOX, SOON, engine::Engine, local::LocalSecrets, own_engine::OwnEngine, plugin::Plugin, root, terminal::Session,
    wait_for,
};

const SCRIPT: &str = "trap : HUP; while :; do sleep 0.05; done";

fn main() {
    let engine = OwnEngine::start();
    engine.load_images();
    let stage = Plugin::on(&engine).config("dso.toml", "[rotation]\nsettle = '1s'\n");
    let store = LocalSecrets::in_dir(&stage.config_dir());
    store.set("app#password", "first");
    store.set("app#user", "app");
    store.set("tls#key.pem", "key");

    engine.docker(&["plugin", "create", "dso:latest", stage.staged().to_str().expect("UTF-8")]);
    let sockets = engine.socket();
    let folder = sockets.parent().expect("a folder").display().to_string();
    for (setting, value) in [("config.source", stage.config_dir().display().to_string()), ("engine.source", folder)] {
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
    picture(&engine, "refresh", &["refresh", "--wait", "app-secrets"]);
    picture(&engine, "ls", &["ls"]);
    picture(&engine, "inspect", &["inspect", "app-secrets"]);

    engine.docker(&["rm", "--force", "web", "worker", "proxy"]);
    engine.docker(&["plugin", "disable", "--force", "dso"]);
}

fn volume(engine: &Engine, name: &str, options: &[&str]) {
    let options = options.iter().flat_map(|option| ["--opt", option]);
    let words: Vec<_> = ["volume", "create", "--driver", "dso"].into_iter().chain(options).chain([name]).collect();
    engine.docker(&words);
}

fn picture(engine: &Engine, name: &str, words: &[&str]) {
    let mut command: Command = engine.command();
    command.arg("dso").args(words).env("TERM", "xterm").env_remove("NO_COLOR");
    let (code, shown) = Session::start(command).end();
    assert_eq!(code, Some(0), "{shown}");
    let typed = format!("$ docker dso {}", words.join(" "));
    let file = root().join("docs/pictures").join(format!("{name}.svg"));
    fs::write(&file, screen::svg(&format!("{typed}\r\n{shown}"))).expect("docs/pictures");
    println!("{}", file.display());
}
