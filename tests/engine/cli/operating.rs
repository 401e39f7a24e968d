//! `refresh`, `check`, `events`, `version`: what only root may ask, at the plugin's own socket.

use super::world::Desk;
use crate::support::{SOON, terminal::Session, wait_for};
use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

const TOML: &str = "[rotation]\nsettle = '500ms'\n";

/// A volume that two containers have, which are told of changes.
fn two() -> (Desk, String) {
    let desk = Desk::start(TOML);
    desk.store.set("app#password", "first");
    let volume = desk.create("app", &["from=local://app", "refresh=0"]);
    for name in ["a", "b"] {
        desk.run(name, &volume, &["--restart=always", "--label", "dso.on-rotate=signal:HUP"]);
    }
    (desk, volume)
}

#[test]
fn a_refresh_is_waited_for_to_the_end_of_its_rollout() {
    let (desk, volume) = two();
    assert_eq!(desk.prints(&["refresh", "--wait", &volume]), "TIME  T-app  refresh: unchanged");

    desk.store.set("app#password", "second");
    assert_eq!(
        desk.prints(&["refresh", "--wait", &volume]),
        "TIME  T-app  rotation 1 → 2 begins (a person asked): T-a, T-b
TIME  T-app  container T-a: signal:SIGHUP: verified
TIME  T-app  container T-b: signal:SIGHUP: verified
TIME  T-app  rotation 1 → 2 verified (a person asked)
TIME  T-app  refresh: verified"
    );

    assert_eq!(desk.prints(&["ls", "--format", "{{.LastRotation}}: {{.Cause}}"]), "verified AGE ago: a person asked");

    // One that ends at the new value: all is as before.
    desk.store.set("app#password", "bad");
    let ran = desk.dso(&["refresh", "--wait", &volume]);
    let why = "rolled back: container `T-a`, signal:SIGHUP: its process ended with ";
    assert!(ran.code == Some(1) && ran.err.starts_with(&format!("Error: volume `T-app`: {why}")), "{ran:?}");
    assert!(ran.out.contains("\nTIME  T-app  container T-a: signal:SIGHUP: failed"), "{}", ran.out);
    assert!(ran.out.lines().last().unwrap().starts_with(&format!("TIME  T-app  refresh: {why}")), "{}", ran.out);
    let ran = desk.dso(&["refresh", "--wait", &volume]);
    assert!(ran.code == Some(1) && ran.err.starts_with("Error: volume `T-app`: refused: "), "{ran:?}");
    let view = desk.prints(&["inspect", "--format", "pretty", &volume]);
    assert!(
        view.contains("State | stale:") && view.contains("rolled back AGE ago: generation 2 → 3 (a person asked)"),
        "{view}"
    );
    assert!(view.ends_with("or mend the container and run `docker dso refresh --force T-app`"), "{view}");

    // What was refused is tried again by force alone.
    let ran = desk.dso(&["refresh", "--wait", "--force", &volume]);
    assert!(ran.code == Some(1) && ran.out.contains("begins (") && ran.err.contains("rolled back"), "{ran:?}");
}

#[test]
fn several_are_refreshed_at_once_and_a_secret_that_is_missing_is_a_failure() {
    let (desk, volume) = two();
    let other = desk.create("other", &["from=local://other", "refresh=0"]);
    desk.store.set("other#x", "y");
    desk.run("c", &other, &[]);
    desk.store.set("app#password", "second");
    let out = desk.prints(&["refresh", "-w", &volume, &other]);
    let has = |line: &str| assert!(out.lines().any(|shown| shown == line), "{line} in {out}");
    has("TIME  T-other  refresh: unchanged");
    has("TIME  T-app  refresh: verified");
    fs::remove_file(desk.plugin.config_dir().join("local.age")).unwrap();
    let ran = desk.dso(&["refresh", "-w", &volume, &other]);
    let faults: Vec<_> = ran.err.lines().collect();
    assert!(
        ran.code == Some(1) && faults.len() == 2 && faults.iter().all(|fault| fault.starts_with("Error: volume `T-")),
        "{ran:?}"
    );
    assert_eq!(desk.prints(&["refresh", &volume, &other]), "T-app\nT-other");
}

#[test]
fn a_terminal_is_given_colour_progress_and_the_view_for_people() {
    let (desk, volume) = two();
    desk.store.set("app#password", "second");
    let shown = |words: &[&str], no_color: bool| {
        let mut command = desk.command(words);
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let (code, shown) = Session::start(command).end();
        assert_eq!(code, Some(0), "{shown}");
        shown
    };
    let text = shown(&["refresh", "--wait", &volume], false);
    assert!(text.contains("… waiting for 1 volume\r\x1b[K"), "{text}");
    assert!(text.contains("\x1b[32mrefresh: verified\x1b[0m\r\n"), "{text}");
    assert!(text.ends_with("\x1b[0m\r\n"), "nothing is left below: {text:?}");
    assert!(shown(&["ls"], false).contains("\x1b[32mcurrent\x1b[0m"));
    assert!(!shown(&["ls"], true).contains('\x1b'));
    assert!(
        shown(&["inspect", &volume], true)
            .contains("  State        current: containers have what the provider has\r\n")
    );
    assert!(shown(&["inspect", "--format", "json", &volume], false).starts_with("[\r\n"));
}

#[test]
fn events_are_shown_and_followed() {
    let (desk, volume) = two();
    assert_eq!(
        desk.prints(&["events"]),
        "TIME  T-app  generation 1 mounted\nTIME  T-app  generation 1 mounted by one more container"
    );
    assert_eq!(desk.prints(&["events", "--format", "{{.Event}}: {{.Volume}}"]), "mounted: T-app\nmounted: T-app");
    let gone = desk.dso(&["events", "another"]);
    assert_eq!((gone.code, &*gone.out, &*gone.err), (Some(0), "", "Note: there is no volume `another` now."));
    let json = desk.prints(&["events", "--format", "json"]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["event"], &first["mount"], &first["generation"]),
        (&"mounted".into(), &"fresh".into(), &1.into())
    );

    let mut following = desk.command(&["events", "--follow", "--format", "{{.Text}}", &volume]);
    let mut following = following.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!([lines.next(), lines.next()].map(Option::unwrap)[0], "generation 1 mounted");
    desk.store.set("app#password", "second");
    desk.prints(&["refresh", &volume]);
    let seen: Vec<_> =
        lines.by_ref().take_while(|line| !line.starts_with("refresh: ")).map(|line| desk.normal(&line)).collect();
    assert_eq!(seen.last().unwrap(), "rotation 1 → 2 verified (a person asked)", "{seen:?}");
    // The plugin ends, and with it what was followed.
    desk.plugin.disable();
    let output = following.wait_with_output().unwrap();
    let said = desk.normal(&String::from_utf8(output.stderr).unwrap());
    assert_eq!(
        (output.status.code(), &*said),
        (Some(1), "Error: the plugin `T:latest` has ended: run this again to follow the next one")
    );
    desk.plugin.enable();
}

#[test]
fn what_would_be_mounted_is_told_for_options_and_for_a_compose_file() {
    let desk = Desk::start("");
    desk.store.set("app#password", "12345678");
    desk.store.set("app#user", "someone");
    let good = ["check", "-o", "from=local://app", "-o", "mode.user=0400", "-o", "uid.user=1000"];
    assert_eq!(
        desk.prints(&good),
        "volume: would be mounted, 2 files, 12288 of 1048576 bytes
  FILE | MODE | OWNER | BYTES | VERSION | SOURCE
  password | 0444 | 0:0 | 8 | 2 | local://app
  user | 0400 | 1000:0 | 7 | 2 | local://app"
    );
    let ran = desk.dso(&["check", "-o", "form=local://app", "-o", "mode=999"]);
    assert_eq!(
        ran.out,
        "volume: cannot be mounted: 2 faults
  unknown option `form`: did you mean `from`?
  option `mode`: `999` is no mode: write it in octal, from `0000` to `0777`"
    );
    assert_eq!((ran.code, &*ran.err), (Some(1), "Error: it could not be mounted"));
    let ran = desk.dso(&["check", "--format", "json", "-o", "file.x=local://missing"]);
    assert_eq!(
        ran.out,
        r#"{"Driver":"T:latest","Faults":["option `file.x`: `local://missing`: the local store has no secret `missing`: set it with `docker dso secret set missing`"],"Files":[],"OK":false,"Size":null,"Volume":"volume"}"#
    );
    assert_eq!(desk.dso(&["check", "-o", "from"]).code, Some(2));

    let file = desk.plugin.folder().join("compose.yaml");
    let compose = format!(
        "x-driver: &driver\n  driver: {}\nservices:\n  app:\n    image: app\n    volumes: ['good:/a', 'bad:/b', 'data:/c']\nvolumes:\n  good:\n    <<: *driver\n    driver_opts:\n      \
         from: local://${{APP:-app}}\n  bad:\n    <<: *driver\n    driver_opts:\n      file.x: local://app#nothing\n  data: {{}}\n",
        desk.plugin.driver()
    );
    fs::write(&file, compose).unwrap();
    let ran = desk.dso(&["check", file.to_str().unwrap()]);
    assert_eq!((ran.code, &*ran.err), (Some(1), "Error: 1 of 2 volumes could not be mounted"), "{}", ran.out);
    assert_eq!(
        ran.out,
        "bad: cannot be mounted: 1 fault
  option `file.x`: `local://app#nothing`: the secret has no field `nothing`; it has `password`, `user`

good: would be mounted, 2 files, 12288 of 1048576 bytes
  FILE | MODE | OWNER | BYTES | VERSION | SOURCE
  password | 0444 | 0:0 | 8 | 2 | local://app
  user | 0444 | 0:0 | 7 | 2 | local://app"
    );
    let ran = desk.dso(&["check", "-f", "/nowhere/compose.yaml"]);
    assert!(ran.code == Some(1) && ran.err.starts_with("Error: cannot read `/nowhere/compose.yaml`: "), "{ran:?}");
    fs::write(&file, "services: {app: {image: app, volumes: ['data:/c']}}\nvolumes: {data: {driver: local}}\n")
        .unwrap();
    let ran = desk.dso(&["check", file.to_str().unwrap()]);
    assert_eq!(ran.err, "Error: the Compose file has no volume of driver `T`: `data` is of driver `local`");
    // Without Compose.
    let mut command = std::process::Command::new(crate::support::world("docker/cli-plugins/docker-dso"));
    let lonely = desk.plugin.folder().join("lonely");
    fs::create_dir_all(&lonely).unwrap();
    command.env("DOCKER_CONFIG", &lonely).args(["--plugin", &desk.plugin.driver(), "check"]).arg(&file);
    let ran = desk.ran(command.output().unwrap());
    assert!(ran.code == Some(1), "{ran:?}");
    assert!(
        ran.err.starts_with("Error: a Compose file is read by Compose v2, which is not there: install it"),
        "{ran:?}"
    );
    wait_for("nothing to be left", SOON, || {
        desk.engine()
            .docker(&["volume", "ls", "-q", "--filter", &format!("driver={}", desk.plugin.driver())])
            .is_empty()
    });
}

#[test]
fn the_version_of_the_command_and_of_the_plugin() {
    let desk = Desk::start("");
    let engine = desk.engine().json(&["version"], ".Server.Version");
    let engine = engine.as_str().unwrap();
    assert_eq!(
        desk.prints(&["version"]).replace(engine, "ENGINE").replace(env!("CARGO_PKG_VERSION"), "V"),
        "Client:\n Version:  V\n\nPlugin:\n Name: | T:latest\n ID: | ID\n Version:  V (API 1)\n Enabled:  true\n Engine: | ENGINE"
    );
    assert_eq!(
        desk.prints(&["version", "--format", "json"]).replace(engine, "ENGINE").replace(env!("CARGO_PKG_VERSION"), "V"),
        r#"{"Client":{"Version":"V"},"Plugins":[{"APIVersion":"1","Enabled":true,"Engine":"ENGINE","ID":"ID","Name":"T:latest","Version":"V"}]}"#
    );
}
