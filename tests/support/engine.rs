//! The real `docker` against an engine.

use super::{root, world};
use rustix::{net::sockopt::socket_peercred, process::Pid};
use std::{
    env, fs,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// An engine that answers. Cheap to clone; says nothing of who ends it.
#[derive(Clone)]
pub struct Engine {
    /// The `DOCKER_HOST`; without it, what the environment says.
    host: Option<String>,
    /// Where its sockets are: `plugins/<id>/` below.
    pub exec_root: PathBuf,
    /// Where its volumes, images and plugins are.
    pub data_root: PathBuf,
    log: Log,
}

/// Where an engine's log goes, and how far it had come at the start.
#[derive(Clone)]
enum Log {
    File(PathBuf, u64),
    Journal { cursor: String },
}

// === impl Engine ===

impl Engine {
    /// The engine that `DOCKER_HOST` or the default socket gives.
    pub fn system() -> Self {
        let daemon = daemon();
        let mut engine = Self {
            host: None,
            exec_root: daemon.and_then(exec_root).unwrap_or_else(|| "/run/docker".into()),
            data_root: PathBuf::new(),
            log: Log::of(daemon),
        };
        engine.data_root = engine.docker(&["info", "--format", "{{.DockerRootDir}}"]).into();
        engine
    }

    pub(super) fn at(socket: &Path, exec_root: &Path, data_root: &Path, log: &Path) -> Self {
        Self {
            host: Some(format!("unix://{}", socket.display())),
            exec_root: exec_root.into(),
            data_root: data_root.into(),
            log: Log::File(log.into(), 0),
        }
    }

    /// Where its API listens.
    pub fn socket(&self) -> PathBuf {
        let host = self.host.clone().or_else(|| env::var("DOCKER_HOST").ok()).unwrap_or_default();
        host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").into()
    }

    /// `docker`, with no argument yet.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        // The tests' own Compose and `docker dso`, and none of this user's contexts.
        command.env("DOCKER_CONFIG", world("docker")).env_remove("DOCKER_CONTEXT").stdin(Stdio::null());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Brings an image that few tests need into the engine, where it stays.
    #[track_caller]
    pub fn import(&self, image: &str) {
        let name = image.strip_prefix("dso-test-").and_then(|name| name.strip_suffix(":latest")).expect("one of ours");
        let mut command = Command::new(root().join("tests/support/world.sh"));
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        outcome(command.args(["import", name]).output().expect("world.sh")).expect("an image");
    }

    /// What `docker …` prints; it must succeed.
    #[track_caller]
    pub fn docker(&self, words: &[&str]) -> String {
        self.try_docker(words).unwrap_or_else(|said| panic!("`docker {}` failed: {said}", words.join(" ")))
    }

    /// What `docker …` says on stderr; it must fail.
    #[track_caller]
    pub fn docker_fails(&self, words: &[&str]) -> String {
        match self.try_docker(words) {
            Ok(printed) => panic!("`docker {}` should have failed, and printed: {printed}", words.join(" ")),
            Err(said) => said,
        }
    }

    /// What `docker …` prints, or what it says on stderr when it fails.
    pub fn try_docker(&self, words: &[&str]) -> Result<String, String> {
        outcome(self.command().args(words).output().expect("docker"))
    }

    /// As [`Engine::docker`], with something on its stdin.
    #[track_caller]
    pub fn docker_with_input(&self, words: &[&str], input: &[u8]) -> String {
        let mut child = self
            .command()
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker");
        child.stdin.take().expect("piped").write_all(input).expect("docker reads its input");
        outcome(child.wait_with_output().expect("docker"))
            .unwrap_or_else(|said| panic!("`docker {}` failed: {said}", words.join(" ")))
    }

    /// What `docker … --format '{{json …}}'` prints.
    #[track_caller]
    pub fn json(&self, words: &[&str], field: &str) -> serde_json::Value {
        let text = self.docker(&[words, &["--format", &format!("{{{{json {field}}}}}")]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The engine's log since this value was made.
    pub fn log(&self) -> String {
        match &self.log {
            Log::File(path, from) => {
                let mut bytes = Vec::new();
                let mut file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                file.seek(SeekFrom::Start(*from)).and_then(|_| file.read_to_end(&mut bytes)).expect("the engine's log");
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Log::Journal { cursor } => {
                let words = ["--unit=docker", "--output=cat", "--no-pager", "--after-cursor", cursor];
                outcome(Command::new("journalctl").args(words).output().expect("journalctl")).expect("the journal")
            }
        }
    }
}

// === impl Log ===

impl Log {
    /// A daemon that a service manager did not start writes where its stderr goes.
    fn of(daemon: Option<Pid>) -> Self {
        let stderr = daemon.map(|pid| fs::read_link(format!("/proc/{pid}/fd/2")));
        match stderr {
            Some(Ok(path)) if path.is_file() => {
                let length = fs::metadata(&path).map_or(0, |meta| meta.len());
                Self::File(path, length)
            }
            _ => {
                let words = ["--unit=docker", "--lines=0", "--show-cursor", "--no-pager", "--quiet"];
                let shown = Command::new("journalctl").args(words).output();
                let shown = shown.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
                let cursor = shown.lines().find_map(|line| line.strip_prefix("-- cursor: ")).map(str::to_owned);
                Self::Journal { cursor: cursor.unwrap_or_default() }
            }
        }
    }
}

/// The process that listens at the engine's socket, unless a service manager listens for it.
fn daemon() -> Option<Pid> {
    let host = env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host.strip_prefix("unix://").unwrap_or("/run/docker.sock");
    let pid = socket_peercred(UnixStream::connect(socket).ok()?).ok()?.pid;
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "dockerd\n").then_some(pid)
}

/// What its command line says; the API does not tell.
fn exec_root(daemon: Pid) -> Option<PathBuf> {
    let words = fs::read_to_string(format!("/proc/{daemon}/cmdline")).ok()?;
    words.split('\0').find_map(|word| word.strip_prefix("--exec-root=")).map(PathBuf::from)
}

/// What a program printed, or what it said when it failed.
pub fn outcome(output: Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{}{}", text(&output.stdout), text(&output.stderr))),
    }
}
