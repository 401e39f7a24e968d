//! The prompt that shows nothing, at a real terminal.

use super::{Host, pty::Session, words};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{LocalModes, tcgetattr},
};

fn start(host: &Host, line: &str) -> Session {
    Session::start(host.command(&words(line)))
}

const FIRST: &str = "Value of local://app/db#password (not shown): ";

#[test]
fn what_is_typed_is_taken_twice_and_never_shown() {
    let host = Host::new();
    let mut session = start(&host, "secret set app/db#password");
    session.prompt(FIRST, "hunter2 ö\n");
    session.prompt("Once more: ", "hunter2 ö\n");
    let (code, shown) = session.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("hunter") && shown.contains("local://app/db#password version 1"), "{shown}");
    assert_eq!(host.text("secret get app/db#password"), "hunter2 ö");
}

#[test]
fn the_terminal_shows_again_what_is_typed_afterwards_also_after_an_interrupt() {
    let host = Host::new();
    for answer in ["x\n", "x\x03"] {
        let mut session = start(&host, "secret set app/db#password");
        let near = session.near();
        session.prompt(FIRST, answer);
        session.until(Some(if answer == "x\n" { "Once more: " } else { "Error" }));
        if answer == "x\n" {
            assert!(!tcgetattr(&near).unwrap().local_modes.contains(LocalModes::ECHO));
            session.prompt("Once more: ", answer);
        }
        session.child.wait().unwrap();
        let modes = tcgetattr(&near).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG), "{answer:?}");
    }
}

#[test]
fn two_values_that_differ_an_interrupt_and_nothing_change_nothing() {
    let host = Host::new();
    for (first, second, message) in [
        ("hunter2\n", Some("hunter3\n"), "Error: the two values differ; nothing was changed"),
        ("\n", Some("\n"), "Error: the value is empty; nothing was changed"),
        ("hunter2\x03", None, "Error: no value was given; nothing was changed"),
    ] {
        let mut session = start(&host, "secret set app/db#password");
        session.prompt(FIRST, first);
        if let Some(second) = second {
            session.prompt("Once more: ", second);
        }
        let (code, shown) = session.end();
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains(message) && !shown.contains("hunter"), "{shown}");
    }
    assert!(!host.config_dir().exists());
}

#[test]
fn a_long_paste_is_not_cut_and_its_further_lines_do_not_reach_the_shell() {
    let host = Host::new();
    let long = "0123456789abcdef".repeat(500);
    let mut session = start(&host, "secret set app/db#password");
    let near = session.near();
    session.prompt(FIRST, &format!("{long}\n"));
    session.prompt("Once more: ", &format!("{long}\nrm -rf hunter\n"));
    session.child.wait().unwrap();
    assert_eq!(host.text("secret get app/db#password"), long);
    let left = poll(&mut [PollFd::new(&near, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    assert_eq!(left, Ok(0), "the rest of the paste waits for the shell");
}

#[test]
fn a_value_shown_at_a_terminal_ends_its_line() {
    let host = Host::new();
    host.ok("secret set a", b"one");
    host.ok("secret set b", b"two\n");
    assert_eq!(start(&host, "secret get a").end(), (Some(0), "one\r\n".into()));
    assert_eq!(start(&host, "secret get b").end(), (Some(0), "two\r\n".into()));
}
