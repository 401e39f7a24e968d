//! dso as a managed plugin of an engine.

use super::{SOON, cleanup::Scope, engine::Engine, root, until, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

/// A plugin with a name, a content and a config folder of its own; removed, with all that uses it, at the end.
pub struct Plugin {
    engine: Engine,
    scope: Scope,
    name: String,
    id: String,
}

/// A plugin that is not created yet.
pub struct Preparation {
    engine: Engine,
    scope: Scope,
    name: String,
    settings: Vec<String>,
}

// === impl Preparation ===

impl Preparation {
    /// `docker plugin set NAME=value`.
    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// A name that is the same on several engines of the test's own.
    pub fn called(mut self, name: &str) -> Self {
        self.name = format!("{name}:latest");
        self
    }

    /// A file of the plugin's `/etc/dso`.
    pub fn config(self, file: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.config_dir().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the config folder");
        fs::write(path, content).expect("a file of the config folder");
        self
    }

    /// What the plugin will see as `/etc/dso`.
    pub fn config_dir(&self) -> PathBuf {
        self.scope.folder.join("config")
    }

    /// What `docker plugin create` takes: the dev build, and a mark that makes its content unlike any other.
    pub fn staged(&self) -> PathBuf {
        let staged = self.scope.folder.join("plugin");
        if !staged.exists() {
            let copied = Command::new("cp").arg("-al").arg(built_rootfs()).arg(&staged).status();
            assert!(copied.expect("cp").success(), "cp -al into {}", staged.display());
            let mark = staged.join("rootfs/etc/dso-build");
            fs::remove_file(&mark).expect("a hard link to the original");
            fs::write(
                &mark,
                format!("{} {:?}\n", self.scope.name, fs::metadata(&staged).and_then(|meta| meta.created())),
            )
            .expect("the mark");
        }
        staged
    }

    pub fn start(self) -> Plugin {
        let plugin = self.create();
        plugin.enable();
        plugin
    }

    /// Created and set, but not enabled.
    pub fn create(self) -> Plugin {
        let (staged, config) = (self.staged(), self.config_dir());
        let Self { engine, scope, name, settings } = self;
        let id = engine.docker(&["plugin", "create", &name, staged.to_str().expect("UTF-8")]);
        assert_eq!(id, name, "what `docker plugin create` prints");
        let id = engine.docker(&["plugin", "inspect", "--format", "{{.ID}}", &name]);
        let plugin = Plugin { engine, scope, name, id };
        plugin.set(&format!("config.source={}", config.display()));
        let socket = plugin.engine.socket();
        if let Some(folder) = socket.parent().filter(|folder| !folder.ends_with("run")) {
            plugin.set(&format!("engine.source={}", folder.display()));
        }
        settings.iter().for_each(|setting| plugin.set(setting));
        plugin
    }
}

// === impl Plugin ===

impl Plugin {
    pub fn on(engine: &Engine) -> Preparation {
        let scope = Scope::new();
        fs::create_dir(scope.folder.join("config")).expect("the config folder");
        let name = format!("{}:latest", scope.name);
        Preparation { engine: engine.clone(), scope, name, settings: Vec::new() }
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The name, which is also the driver's: `dso-test-1-1:latest`.
    pub fn driver(&self) -> String {
        self.name.clone()
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// A name for a volume, container or project, which goes with the plugin.
    pub fn named(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.scope.name)
    }

    /// A folder of this test's own.
    pub fn folder(&self) -> &Path {
        &self.scope.folder
    }

    /// What the plugin sees as `/etc/dso`.
    pub fn config_dir(&self) -> PathBuf {
        self.scope.folder.join("config")
    }

    /// The plugin's socket on the host.
    pub fn socket(&self) -> PathBuf {
        // An engine of root puts them here whatever its --exec-root: 20.10, 26.1 and 28.5 do.
        let always = Path::new("/run/docker/plugins").join(&self.id);
        let own = self.engine.exec_root.join("plugins").join(&self.id);
        if own.exists() { own } else { always }.join("dso.sock")
    }

    /// The plugin's `/data` on the host.
    pub fn propagated(&self) -> PathBuf {
        self.engine.data_root.join("plugins").join(&self.id).join("propagated-mount")
    }

    /// Where a volume is mounted on the host.
    pub fn shown(&self, volume: &str) -> PathBuf {
        self.propagated().join("volumes").join(volume)
    }

    /// The argument of `docker run --mount` for a volume, by its name or without one, at `dst`.
    pub fn mount(&self, volume: &str, dst: &str, options: &[&str]) -> String {
        let source = if volume.is_empty() { String::new() } else { format!("source={volume},") };
        let options: String = options.iter().map(|option| format!(",volume-opt={option}")).collect();
        format!("type=volume,{source}volume-driver={},dst={dst}{options}", self.driver())
    }

    /// `Status` in `docker volume inspect`.
    #[track_caller]
    pub fn status(&self, volume: &str) -> Value {
        self.engine.json(&["volume", "inspect", volume], ".Status")
    }

    /// The plugin's root file system on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.engine.data_root.join("plugins").join(&self.id).join("rootfs")
    }

    /// Only while the plugin is disabled.
    #[track_caller]
    pub fn set(&self, setting: &str) {
        self.engine.docker(&["plugin", "set", &self.driver(), setting]);
    }

    #[track_caller]
    pub fn enable(&self) {
        self.engine.docker(&["plugin", "enable", &self.driver()]);
    }

    /// `docker plugin disable -f`, as it also goes before an upgrade.
    #[track_caller]
    pub fn disable(&self) {
        self.engine.docker(&["plugin", "disable", "--force", &self.driver()]);
    }

    /// The process, if there is one.
    pub fn try_pid(&self) -> Option<u32> {
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            read("comm") == "dso\n" && read("cgroup").contains(&self.id)
        })
    }

    #[track_caller]
    pub fn pid(&self) -> u32 {
        until("the plugin's process", SOON, || self.try_pid())
    }

    /// SIGKILL, and until the engine has started another process that answers.
    #[track_caller]
    pub fn kill(&self) {
        self.crash(Signal::KILL);
    }

    /// The same by another signal, again and again: a handler may stand before the first SIGSEGV.
    #[track_caller]
    pub fn crash(&self, signal: Signal) {
        let old = self.pid();
        // The engine asks a plugin for a sign of life half a second after its start. It gives up on one that has died
        // by then: that end it will hear of only when it has stopped asking.
        wait_for("the engine to have seen the plugin", SOON, || age(old) > 2.0);
        let pid = Pid::from_raw(old.cast_signed()).expect("not zero");
        kill_process(pid, signal).expect("the plugin's process");
        wait_for("the plugin to be started again", SOON, || {
            let now = self.try_pid();
            if now == Some(old) {
                let _ = kill_process(pid, signal);
            }
            now.is_some_and(|now| now != old)
        });
        wait_for("the plugin to answer again", SOON, || {
            self.try_call("/VolumeDriver.Capabilities", "{}").is_ok_and(|(status, _)| status == 200)
        });
    }

    /// What the plugin has logged, line by line, since the engine's value was made.
    ///
    /// The engine puts a plugin's lines into its own log.
    pub fn log(&self) -> String {
        let ours = format!("plugin={}", self.id);
        let log = self.engine.log();
        let lines = log.lines().filter(|line| line.contains(&ours)).filter_map(|line| {
            let quoted = line.split_once(" msg=")?.1.rsplit_once(" plugin=")?.0;
            Some(serde_json::from_str::<String>(quoted).unwrap_or_else(|_| quoted.to_owned()))
        });
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// A call at the socket as the engine makes it: the status and the body.
    #[track_caller]
    pub fn call(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.try_call(path, &body.to_string()).unwrap_or_else(|error| panic!("{path}: {error}"));
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// The same with a body that need not be JSON.
    pub fn try_call(&self, path: &str, body: &str) -> io::Result<(u16, String)> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(SOON))?;
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: dso\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let (mut answer, mut head) = (BufReader::new(stream), String::new());
        while !head.ends_with("\r\n\r\n") {
            if answer.read_line(&mut head)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(u64::MAX);
        let mut body = String::new();
        answer.take(length).read_to_string(&mut body)?;
        Ok((status, body))
    }
}

/// How many seconds ago the process was started.
fn age(pid: u32) -> f64 {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    // proc(5): field 22; the name in field 2 is in parentheses.
    let stat = read(&format!("/proc/{pid}/stat"));
    let ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse::<f64>().ok());
    let uptime = read("/proc/uptime").split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok());
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    uptime.unwrap_or_default() - ticks.unwrap_or(f64::MAX) / per_second
}

/// The build under test (the dev build in tests, the release build in benches) as plugin/rootfs.sh assembles it, anew
/// when the build is newer.
pub fn built_rootfs() -> PathBuf {
    let profile = if cfg!(debug_assertions) { "dev" } else { "bench" };
    let (binary, staged) = (env!("CARGO_BIN_EXE_dso"), root().join("target/plugin").join(profile));
    fs::create_dir_all(root().join("target/plugin")).expect("target/plugin");
    // Tests are processes of their own; the first one assembles.
    let lock = File::create(staged.with_extension("lock")).expect("a lock in target/plugin");
    lock.lock().expect("a lock in target/plugin");
    let written = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let sources = [Path::new(binary), &root().join("config.json"), &root().join("plugin/rootfs.sh")].map(written);
    if written(&staged.join("rootfs/etc/dso-build")) <= sources.into_iter().max().flatten() {
        let output =
            Command::new(root().join("plugin/rootfs.sh")).arg(binary).arg(&staged).output().expect("rootfs.sh");
        assert!(output.status.success(), "rootfs.sh: {}", String::from_utf8_lossy(&output.stderr));
    }
    staged
}
