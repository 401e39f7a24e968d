//! `docker dso init`.

use super::{Host, mode, pty::Session, words};
use std::{fs, os::unix::fs::symlink};

#[test]
fn a_host_gets_its_folder_its_settings_and_an_identity() {
    let host = Host::new();
    let ran = host.run("init --yes", b"");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for line in ["make the folder", "write ", "the identity that opens the embedded store"] {
        assert!(ran.err.contains(line), "{}", ran.err);
    }
    let modes = ["", "dso.toml", "identity"].map(|name| mode(&host.file(name)));
    assert_eq!(modes, [0o700, 0o600, 0o600]);
    assert_eq!(fs::read_dir(host.config_dir()).unwrap().count(), 2, "nothing else is left");
    host.ok("secret set a", b"1");
    assert_eq!(host.text("secret get a"), "1");
}

#[test]
fn a_second_run_and_what_a_person_has_made_change_nothing() {
    let host = Host::new();
    fs::create_dir(host.config_dir()).unwrap();
    fs::write(host.file("dso.toml"), "refresh = \"10s\"\n").unwrap();
    host.ok("secret set a", b"1");
    let identity = fs::read(host.file("identity")).unwrap();
    let ran = host.run("init", b"");
    assert!(ran.code == Some(0) && ran.out.starts_with(b"Nothing to do"), "{}", ran.err);
    assert_eq!(fs::read(host.file("identity")).unwrap(), identity);
    assert_eq!(fs::read_to_string(host.file("dso.toml")).unwrap(), "refresh = \"10s\"\n");
    assert_eq!(host.text("secret get a"), "1");
}

#[test]
fn nothing_is_made_without_a_yes() {
    let host = Host::new();
    let ran = host.run("init", b"y\n");
    assert!(ran.code == Some(1) && ran.err.contains("there is no terminal to ask at"), "{}", ran.err);
    for (answer, code) in [("n\n", 1), ("\n", 1), ("y\n", 0)] {
        assert!(!host.config_dir().exists(), "before {answer:?}");
        let mut session = Session::start(host.command(&words("init")));
        session.prompt("Go on? [y/N] ", answer);
        let (ended, shown) = session.end();
        assert_eq!(ended, Some(code), "{shown}");
    }
    assert!(host.file("identity").exists());
}

#[test]
fn a_store_without_its_identity_and_a_broken_link_are_left_alone() {
    let host = Host::new();
    host.ok("secret set a", b"1");
    fs::remove_file(host.file("identity")).unwrap();
    let ran = host.run("init --yes", b"");
    assert!(
        ran.code == Some(1) && ran.err.contains("is missing, and nothing else opens the local store"),
        "{}",
        ran.err
    );
    assert!(!host.file("dso.toml").exists() && !host.file("identity").exists());
    let host = Host::new();
    fs::create_dir(host.config_dir()).unwrap();
    symlink("elsewhere", host.file("dso.toml")).unwrap();
    assert_eq!(host.run("init --yes", b"").code, Some(0));
    assert!(host.file("dso.toml").is_symlink() && !host.file("elsewhere").exists());
}
