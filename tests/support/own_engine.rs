//! An engine of the test's own, which the test may stop, kill and start again.

use super::{
    BUSYBOX, MARK, SCRATCH, SOON,
    cleanup::Scope,
    engine::{Engine, outcome},
    root, wait_for,
};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    net::{Shutdown, TcpListener, TcpStream},
    ops::Deref,
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// The environment variable that names the version of an engine which engines.sh has fetched.
const VERSION: &str = "DSO_TEST_ENGINE";

/// A second `dockerd`, of the system's program or of the one that [`VERSION`] names, with its own data, sockets, containerd and network namespace: an engine
/// without a bridge deletes the `docker0` of the namespace that it runs in.
pub struct OwnEngine {
    engine: Engine,
    process: Option<Child>,
    words: Vec<String>,
    /// Where it finds its containerd and runc.
    path: OsString,
    scope: Scope,
}

// === impl OwnEngine ===

impl Deref for OwnEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl OwnEngine {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With more words for `dockerd`, such as `--live-restore`.
    pub fn with(words: &[&str]) -> Self {
        let scope = Scope::new();
        // Under /run for its shortness: a socket's path has at most 107 bytes, and a plugin's ID takes 64.
        let run = PathBuf::from("/run").join(&scope.name);
        let (data, socket, log) =
            (scope.folder.join("data"), run.join("docker.sock"), scope.folder.join("dockerd.log"));
        fs::create_dir_all(&run).expect("a folder under /run");
        fs::write(run.join("data-root"), data.to_str().expect("UTF-8")).expect("what the sweep reads");
        fs::write(run.join("daemon.json"), "{}").expect("daemon.json");
        for words in [&["netns", "add", &scope.name][..], &["-n", &scope.name, "link", "set", "lo", "up"]] {
            outcome(Command::new("ip").args(words).output().expect("ip")).expect("a network namespace");
        }
        let engine = Engine::at(&socket, &run, &data, &log);
        let (program, path) = program();
        let own = [
            // Not `ip netns exec`, which hides the cgroup mounts.
            format!("--net=/run/netns/{}", scope.name),
            program,
            format!("--config-file={}", run.join("daemon.json").display()),
            format!("--host=unix://{}", socket.display()),
            format!("--data-root={}", data.display()),
            format!("--exec-root={}", run.display()),
            format!("--pidfile={}", run.join("docker.pid").display()),
            // Where the system runs a containerd for all, the two engines must not see each other's containers.
            format!("--containerd-namespace={}", scope.name),
            format!("--containerd-plugins-namespace=plugins.{}", scope.name),
            "--storage-driver=vfs".into(),
            "--bridge=none".into(),
            "--iptables=false".into(),
            "--ip-forward=false".into(),
            "--ip-masq=false".into(),
        ];
        let words = own.into_iter().chain(words.iter().map(|word| (*word).into())).collect();
        let mut started = Self { engine, process: None, words, path, scope };
        started.resume();
        started
    }

    /// Starts it after [`OwnEngine::stop`] or [`OwnEngine::kill`], and waits for its API.
    #[track_caller]
    pub fn resume(&mut self) {
        assert!(self.process.is_none(), "the engine runs");
        let log = self.scope.folder.join("dockerd.log");
        let log = File::options().create(true).append(true).open(log).expect("dockerd's log");
        let process = Command::new("nsenter")
            .args(&self.words)
            .env(MARK, &self.scope.name)
            .env("PATH", &self.path)
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("nsenter");
        self.process = Some(process);
        let process = self.process.as_mut().expect("just set");
        wait_for("the engine of this test's own to answer", Duration::from_secs(60), || {
            if let Some(status) = process.try_wait().expect("wait") {
                let log = self.engine.log();
                let last: Vec<_> = log.lines().rev().take(10).collect();
                panic!("dockerd ended with {status}; its log from the end: {last:#?}");
            }
            self.engine.try_docker(&["version"]).is_ok()
        });
    }

    /// In order: SIGTERM, and until it has ended.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// SIGKILL: containers and plugins go on without an engine.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// [`OwnEngine::stop`] and [`OwnEngine::resume`].
    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }

    fn end(&mut self, signal: Signal) {
        let mut process = self.process.take().expect("the engine runs");
        kill_process(Pid::from_child(&process), signal).expect("dockerd");
        process.wait().expect("dockerd");
        // It takes its containerd along, which the next engine would see die, or as a zombie, and wait for in vain.
        let file = self.engine.exec_root.join("containerd/containerd.pid");
        if let Ok(pid) = fs::read_to_string(&file) {
            let program = format!("/proc/{}/exe", pid.trim());
            wait_for("the engine's containerd to end", SOON, || fs::read_link(&program).is_err());
            fs::remove_file(file).expect("containerd.pid");
        }
    }

    /// Its network namespace, as `ip netns` names it.
    pub fn namespace(&self) -> &str {
        &self.scope.name
    }

    /// Whether it was started and not ended since.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the engine runs").id()
    }

    /// The tests' images, which the system's engine has.
    pub fn load_images(&self) {
        let mut save = Engine::system().command();
        let mut save = save.args(["save", BUSYBOX, SCRATCH]).stdout(Stdio::piped()).spawn().expect("docker save");
        let mut load = self.engine.command();
        let load = load.arg("load").stdin(save.stdout.take().expect("piped")).output().expect("docker load");
        outcome(load).expect("docker load");
        assert!(save.wait().expect("docker save").success(), "docker save");
    }

    /// Makes a server on the host's 127.0.0.1:port reachable at the same address inside the engine's network namespace,
    /// where also its plugins are.
    pub fn forward(&self, port: u16) {
        let namespace = File::open(format!("/run/netns/{}", self.scope.name)).expect("the network namespace");
        // Only this thread enters it, and the socket that it makes stays there.
        let listener = thread::spawn(move || -> io::Result<TcpListener> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpListener::bind(("127.0.0.1", port))
        });
        let listener = listener.join().expect("no panic").expect("the port is free in the namespace");
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let Ok(far) = TcpStream::connect(("127.0.0.1", port)) {
                    pass(near.try_clone(), far.try_clone());
                    pass(Ok(far), Ok(near));
                }
            }
        });
    }
}

/// `dockerd`, and the `PATH` for it.
fn program() -> (String, OsString) {
    let system = env::var_os("PATH").unwrap_or_default();
    let Ok(version) = env::var(VERSION) else { return ("dockerd".into(), system) };
    let usr = root().join("target/world/engines").join(&version).join("usr");
    let program = usr.join("sbin/dockerd");
    assert!(program.exists(), "no engine {version} here: run `tests/support/engines.sh fetch {version}` first");
    let path = env::join_paths([usr.join("bin"), usr.join("sbin")].into_iter().chain(env::split_paths(&system)));
    (program.to_str().expect("UTF-8").into(), path.expect("no colon in it"))
}

/// Copies one direction of a connection until its end.
fn pass(from: io::Result<TcpStream>, to: io::Result<TcpStream>) {
    thread::spawn(move || -> io::Result<()> {
        let (mut from, mut to) = (from?, to?);
        io::copy(&mut from, &mut to)?;
        to.shutdown(Shutdown::Write)
    });
}
