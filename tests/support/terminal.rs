//! A real terminal: what a person would see of a command.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

/// A command with a terminal of its own, seen from the terminal's other end.
pub struct Session {
    terminal: OwnedFd,
    pub child: Child,
    pub shown: String,
}

impl Session {
    pub fn start(mut command: Command) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let open = || rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
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
    pub fn near(&self) -> OwnedFd {
        let name = ptsname(&self.terminal, Vec::new()).unwrap();
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    /// Reads what is shown until `text` comes, or to the end.
    pub fn until(&mut self, text: Option<&str>) {
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

    pub fn prompt(&mut self, prompt: &str, answer: &str) {
        self.until(Some(prompt));
        rustix::io::write(&self.terminal, answer.as_bytes()).unwrap();
    }

    /// Returns the exit code and everything that was shown.
    pub fn end(mut self) -> (Option<i32>, String) {
        self.until(None);
        (self.child.wait().unwrap().code(), self.shown)
    }
}
