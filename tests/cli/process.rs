//! The process itself: how Docker calls it, how it protects its memory.

use super::{Host, words};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    fs,
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

#[test]
fn docker_learns_what_the_plugin_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_docker-dso")).arg("docker-cli-plugin-metadata").output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(metadata["SchemaVersion"], "0.1.0");
    assert_eq!(metadata["Version"], env!("CARGO_PKG_VERSION"));
    assert!(metadata["Vendor"].is_string() && metadata["ShortDescription"].is_string());
}

#[test]
fn docker_puts_its_own_options_and_the_plugins_name_first() {
    let host = Host::new();
    host.ok("secret set a", b"1");
    let mut command = Command::new(env!("CARGO_BIN_EXE_docker-dso"));
    command.args(["--context", "default", "dso", "--config-dir"]).arg(host.config_dir()).args(words("secret get a"));
    assert_eq!(command.output().unwrap().stdout, b"1");
}

#[test]
fn help_is_an_answer_and_a_wrong_command_is_a_fault() {
    let host = Host::new();
    let help = host.text("secret set --help");
    assert!(help.contains("docker dso secret set") && !help.contains("EXTRA"), "{help}");
    let ran = host.run("secret st a", b"");
    assert!(ran.code == Some(2) && ran.err.starts_with("Error: unrecognized subcommand 'st'"), "{}", ran.err);
    let ran = host.run("secret", b"");
    assert!(ran.code == Some(2) && ran.err.contains("Usage: docker dso secret"), "{}", ran.err);
}

/// Looked at from outside while it waits for its value. A process that cannot be dumped belongs to root in
/// `/proc`, so where this runs as root the process is another user's.
#[test]
fn the_process_dumps_no_core_and_nobody_looks_into_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = dir.path().join("docker-dso");
    fs::copy(env!("CARGO_BIN_EXE_docker-dso"), &binary).unwrap();
    let mut command = Command::new(binary);
    command.args(["--config-dir", "/nonexistent", "secret", "set", "a"]).stdin(Stdio::piped()).stderr(Stdio::null());
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65534);
    }
    // Without a limit of its own to inherit, what is found is the process's doing.
    let hard = getrlimit(Resource::Core).maximum;
    let _ = setrlimit(Resource::Core, Rlimit { current: None, maximum: None })
        .or_else(|_| setrlimit(Resource::Core, Rlimit { current: hard, maximum: hard }));
    let mut child = command.spawn().unwrap();
    let about = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let no_core = |limits: String| {
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        line.split_whitespace().skip(4).take(2).all(|limit| limit == "0")
    };
    // The folder itself keeps the user's id; what stands in it does not.
    let owner = || fs::metadata(format!("/proc/{}/environ", child.id())).unwrap().uid();
    while !no_core(about("limits")) || owner() != 0 {
        assert!(Instant::now() < deadline, "owner {}, limits {}", owner(), about("limits"));
        thread::sleep(Duration::from_millis(2));
    }
    let arguments = about("cmdline");
    child.stdin.take().unwrap().write_all(b"").unwrap();
    assert!(arguments.ends_with("set\0a\0"));
    child.wait().unwrap();
}
