//! The prompt that shows nothing, at a real terminal.

use super::{Host, words};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};
use std::{
    os::unix::process::CommandExt,
    process::{Child, Stdio},
};

/// A command with a terminal of its own, seen from the terminal's other end.
struct Session {
    terminal: OwnedFd,
    child: Child,
    shown: String,
}

impl Session {
    fn start(host: &Host, line: &str) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let open = || rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut command = host.command(&words(line));
        command.stdin(Stdio::from(open())).stdout(Stdio::from(open())).stderr(Stdio::from(open()));
        // SAFETY: two system calls, and nothing else between fork and exec.
        #[expect(unsafe_code, reason = "a child's terminal is set between fork and exec")]
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
            });
        }
        let child = command.spawn().unwrap();
        // The command's copies of the terminal's near end go with it, so that its end shows at this one.
        drop(command);
        Self { terminal, child, shown: String::new() }
    }

    /// The end of the terminal that the command has.
    fn near(&self) -> OwnedFd {
        let name = ptsname(&self.terminal, Vec::new()).unwrap();
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    /// Reads what is shown until `text` comes, or to the end.
    fn until(&mut self, text: Option<&str>) {
        let mut buffer = [0; 1024];
        while text.is_none_or(|text| !self.shown.contains(text)) {
            let ready =
                poll(&mut [PollFd::new(&self.terminal, PollFlags::IN)], Some(&Timespec { tv_sec: 20, tv_nsec: 0 }));
            assert_ne!(ready, Ok(0), "{text:?} never came after {:?}", self.shown);
            match rustix::io::read(&self.terminal, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::IO) => break,
                Ok(read) => self.shown.push_str(&String::from_utf8_lossy(&buffer[..read])),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn prompt(&mut self, prompt: &str, answer: &str) {
        self.until(Some(prompt));
        rustix::io::write(&self.terminal, answer.as_bytes()).unwrap();
    }

    /// Returns the exit code and everything that was shown.
    fn end(mut self) -> (Option<i32>, String) {
        self.until(None);
        (self.child.wait().unwrap().code(), self.shown)
    }
}

const FIRST: &str = "Value of local://app/db#password (not shown): ";

#[test]
fn what_is_typed_is_taken_twice_and_never_shown() {
    let host = Host::new();
    let mut session = Session::start(&host, "secret set app/db#password");
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
        let mut session = Session::start(&host, "secret set app/db#password");
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
        let mut session = Session::start(&host, "secret set app/db#password");
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
    let mut session = Session::start(&host, "secret set app/db#password");
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
    assert_eq!(Session::start(&host, "secret get a").end(), (Some(0), "one\r\n".into()));
    assert_eq!(Session::start(&host, "secret get b").end(), (Some(0), "two\r\n".into()));
}
