//! `docker-dso` as a person or Docker runs it: the real binary, real files, a real terminal.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "other processes are waited for and interrupted in real time"
)]

mod asking;
mod composed;
mod crash;
mod doctor;
mod documented;
mod import;
mod init;
mod process;
#[path = "../support/terminal.rs"]
mod pty;
mod secret;
mod terminal;

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A host's configuration folder, which is not there yet.
struct Host {
    dir: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

// === impl Host ===

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn config_dir(&self) -> PathBuf {
        self.dir.path().join("dso")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.config_dir().join(name)
    }

    fn command(&self, args: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_docker-dso"));
        command.arg("--config-dir").arg(self.config_dir()).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command line, which is split at spaces, with `input` on its stdin.
    fn run(&self, line: &str, input: &[u8]) -> Ran {
        let mut child = self.command(&words(line)).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        feeding.join().unwrap();
        output.into()
    }

    /// Runs a command that must succeed; returns its output.
    fn ok(&self, line: &str, input: &[u8]) -> Vec<u8> {
        let ran = self.run(line, input);
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.err);
        ran.out
    }

    fn text(&self, line: &str) -> String {
        String::from_utf8(self.ok(line, b"")).unwrap()
    }

    /// Runs a command that must fail with this code and exactly this on stderr, and print nothing.
    fn fails(&self, line: &str, input: &[u8], code: i32, message: &str) {
        let ran = self.run(line, input);
        let expected = message.replace("DIR", self.config_dir().to_str().unwrap());
        assert_eq!((ran.code, ran.err.trim_end(), &*ran.out), (Some(code), &*expected, &b""[..]), "{line}");
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let err = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code(), out: output.stdout, err }
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.is_empty()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
