//! Signals to a container's first process, sent by the kernel's own call.
//!
//! The engine's call for it does more: where the image names no stop signal, and for that signal, it takes any signal for a person's wish to end
//! the container, and its restart policy is cancelled (moby, daemon/kill.go; seen on 20.10 and 28.5: a container with `restart: always` that was sent
//! SIGHUP is not started again when it dies). A reload must not do that. The plugin shares the host's process IDs.

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::fs;

/// What came of it.
pub(super) enum Sent {
    Yes,
    /// The process has ended.
    Gone,
    /// It is not to be found here, or this is no signal that is sent from here.
    NotFrom(String),
}

/// Sends `signal` to the process `pid`, if that is in the container `id`.
pub(super) fn send(id: &str, pid: u32, signal: &str) -> Sent {
    let Some(signal) = number(signal) else { return Sent::NotFrom(format!("no signal `{signal}` is known")) };
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Sent::Gone };
    // From here on it is this very process, whatever its number is given to.
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Sent::Gone,
        Err(error) => return Sent::NotFrom(error.to_string()),
    };
    let file = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
    match fs::read_to_string(&file) {
        Ok(cgroup) if cgroup.contains(id) => {}
        Ok(_) => return Sent::NotFrom(format!("process {} is not seen to be the container's", pid.as_raw_nonzero())),
        Err(error) => return Sent::NotFrom(format!("{file}: {error}")),
    }
    match pidfd_send_signal(&process, signal) {
        Ok(()) => Sent::Yes,
        Err(Errno::SRCH) => Sent::Gone,
        Err(error) => Sent::NotFrom(error.to_string()),
    }
}

fn number(name: &str) -> Option<Signal> {
    Some(match name {
        "SIGHUP" => Signal::HUP,
        "SIGINT" => Signal::INT,
        "SIGQUIT" => Signal::QUIT,
        "SIGABRT" => Signal::ABORT,
        "SIGUSR1" => Signal::USR1,
        "SIGUSR2" => Signal::USR2,
        "SIGPIPE" => Signal::PIPE,
        "SIGALRM" => Signal::ALARM,
        "SIGTERM" => Signal::TERM,
        "SIGCHLD" => Signal::CHILD,
        "SIGCONT" => Signal::CONT,
        "SIGWINCH" => Signal::WINCH,
        "SIGURG" => Signal::URG,
        "SIGIO" => Signal::IO,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_of_another_container_is_sent_nothing() {
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        assert!(matches!(send("no such container", child.id(), "SIGTERM"), Sent::NotFrom(_)));
        assert!(matches!(send(cgroup.trim(), child.id(), "SIGNONE"), Sent::NotFrom(_)));
        assert!(child.try_wait().unwrap().is_none(), "it lives");
        assert!(matches!(send(cgroup.trim(), child.id(), "SIGTERM"), Sent::Yes));
        assert!(!child.wait().unwrap().success());
        assert!(matches!(send(cgroup.trim(), child.id(), "SIGTERM"), Sent::Gone));
    }
}
