//! Keeping the process's memory to itself: no core dump, no debugger, no swap. Stands beneath
//! everything, and imports nothing.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};

/// Protects this process, as far as it may, and returns what could not be done, each with its reason.
///
/// For the start of `main`: what was allocated before is covered too, what a child inherits is not.
pub fn protect() -> Vec<String> {
    let mut undone = Vec::new();
    let mut note = |what: &str, result: rustix::io::Result<()>| {
        if let Err(error) = result {
            undone.push(format!("{what}: {error}"));
        }
    };
    note("cannot make the process undumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable));
    note("cannot forbid core dumps", setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }));
    note("cannot keep memory out of swap", lock());
    undone
}

/// Whether this process is protected as [`protect`] is to do it: what is not, in words.
pub fn gaps() -> Vec<&'static str> {
    let mut gaps = Vec::new();
    if !matches!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable)) {
        gaps.push("other processes may look into its memory");
    }
    if getrlimit(Resource::Core).current != Some(0) {
        gaps.push("it may leave a core dump");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")?.split_whitespace().next());
    if locked.is_none_or(|size| size == "0") {
        gaps.push("its memory is not kept out of swap");
    }
    gaps
}

/// The capabilities that it needs and has not got.
pub fn missing_capabilities() -> Vec<&'static str> {
    let wanted = [
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
        (CapabilitySet::IPC_LOCK, "CAP_IPC_LOCK"),
    ];
    let have = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    wanted.into_iter().filter(|(capability, _)| !have.contains(*capability)).map(|(_, name)| name).collect()
}

/// Locks what is and what will be mapped, as it is touched.
///
/// Only where no limit stands against it: with a limit the call may succeed, and a later allocation then
/// fails and ends the process.
fn lock() -> rustix::io::Result<()> {
    let capable = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if !capable && getrlimit(Resource::Memlock).current.is_some() {
        return Err(rustix::io::Errno::PERM);
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
}

// Its test is in tests/cli: it looks at a process from outside, and a test must not harden its own runner.
