//! OpenBao, a plugin that reads from it, a network, and the containers on them.

use crate::support::{NGINX, SOON, engine::Engine, plugin::Plugin, until, vault::VaultServer, wait_for};
use serde_json::{Value, json};
use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{self, Command},
    thread,
};

/// Serves on port 80 what the secret `token` was when it started, and nothing but errors before it is ready: after
/// `DELAY` seconds, and never with a token that begins with `bad`.
const SITE: [(&str, &str); 2] = [
    (
        "nginx.conf",
        "user user;\nworker_processes 2;\nerror_log stderr;\ndaemon off;\nevents {}\n\
         http { access_log off; server { listen 80; include /tmp/answer.conf; } }\n",
    ),
    (
        "start",
        "token=$(cat /secrets/token)\n\
         echo \"location / { if (!-f /tmp/ready) { return 503; } return 200 '$token'; }\" >/tmp/answer.conf\n\
         rm -f /tmp/ready\n\
         case $token in bad*) ;; *) (sleep ${DELAY:-0}; touch /tmp/ready) & ;; esac\n\
         exec nginx -c /site/nginx.conf\n",
    ),
];

/// A health check that a program passes which answers on port 80; for `docker run`.
pub const HEALTH: [&str; 4] = [
    "--health-cmd=wget -q -O /dev/null http://127.0.0.1/",
    "--health-interval=500ms",
    "--health-retries=3",
    "--health-timeout=5s",
];

pub struct Stage {
    pub plugin: Plugin,
    pub server: VaultServer,
    /// Where the containers are. Docker's name server knows them there by their aliases.
    pub network: String,
    /// The options of the volume that the containers have at /secrets.
    options: Vec<String>,
}

// === impl Stage ===

impl Stage {
    /// With lines for `[rotation]` in dso.toml.
    pub fn start(rotation: &str) -> Self {
        let (server, engine) = (VaultServer::start(), Engine::system());
        let toml = format!("{}\n[rotation]\n{rotation}\n", server.settings());
        let plugin = Plugin::on(&engine).config("dso.toml", toml).config("vault-token", &server.bao.root).start();
        let network = plugin.named("net");
        // An address of one's own needs a subnet that a person chose.
        until("a subnet that is free", SOON, || {
            let mut third = [0];
            getrandom::fill(&mut third).unwrap();
            let subnet = format!("10.{}.{}.0/24", 200 + process::id() % 50, third[0]);
            engine.try_docker(&["network", "create", "--subnet", &subnet, &network]).ok()
        });
        for (file, content) in SITE {
            fs::create_dir_all(plugin.folder().join("site")).unwrap();
            fs::write(plugin.folder().join("site").join(file), content).unwrap();
        }
        let options = ["from=vault://secret/app", "refresh=1s"].map(str::to_owned).into();
        Self { plugin, server, network, options }
    }

    pub fn engine(&self) -> &Engine {
        self.plugin.engine()
    }

    /// The volume at /secrets.
    pub fn volume(&self) -> String {
        self.plugin.named("volume")
    }

    pub fn mount(&self) -> String {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.plugin.mount(&self.volume(), "/secrets", &options)
    }

    /// Writes the secret, of one field `token`.
    pub fn put(&self, token: &str) {
        self.server.put("app", json!({"token": token}));
    }

    /// A container with the volume, on the network; its name. `words` go to `docker run`, up to the image and beyond.
    #[track_caller]
    pub fn run(&self, name: &str, words: &[&str]) -> String {
        let (name, mount) = (self.plugin.named(name), self.mount());
        let run = ["run", "--detach", "--name", &name, "--network", &self.network, "--mount", &mount];
        self.engine().docker(&[&run[..], words].concat());
        name
    }

    /// [`Stage::run`] of nginx with [`SITE`] and [`HEALTH`].
    #[track_caller]
    pub fn run_site(&self, name: &str, words: &[&str]) -> String {
        self.engine().import(NGINX);
        let site = self.site();
        let mine = ["--mount", &site, "--stop-signal=SIGQUIT"];
        let name = self.run(name, &[&mine[..], &HEALTH, words, &[NGINX, "sh", "/site/start"]].concat());
        self.wait_until_healthy(&name);
        name
    }

    /// The mount of [`SITE`].
    pub fn site(&self) -> String {
        format!("type=bind,src={},dst=/site,readonly", self.site_dir().display())
    }

    pub fn site_dir(&self) -> PathBuf {
        self.plugin.folder().join("site")
    }

    #[track_caller]
    pub fn wait_until_healthy(&self, container: &str) {
        let health = || self.engine().docker(&["inspect", "--format", "{{.State.Health.Status}}", container]);
        wait_for("the container to be healthy", SOON, || health() == "healthy");
    }

    /// What `docker inspect` shows of a container, without what differs from one look to the next.
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Value {
        let mut inspected = self.engine().json(&["inspect", container], ".");
        inspected["ExecIDs"] = Value::Null;
        let mounts = inspected["Mounts"].as_array_mut().unwrap();
        mounts.sort_by_key(|mount| mount["Destination"].as_str().unwrap().to_owned());
        inspected
    }

    #[track_caller]
    pub fn address(&self, container: &str) -> Ipv4Addr {
        let networks = &self.inspect(container)["NetworkSettings"]["Networks"];
        networks[&self.network]["IPAddress"].as_str().unwrap().parse().unwrap()
    }

    #[track_caller]
    pub fn pid(&self, container: &str) -> i64 {
        self.inspect(container)["State"]["Pid"].as_i64().unwrap()
    }

    /// The IDs of all containers that have the volume, in whatever state.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("volume={}", self.volume());
        let listed = self.engine().docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
        let mut ids: Vec<_> = listed.lines().map(str::to_owned).collect();
        ids.sort();
        ids
    }

    pub fn status(&self) -> Value {
        self.plugin.status(&self.volume())
    }

    /// The status, once the last rotation has ended as `result` says, after generation `after`.
    #[track_caller]
    pub fn status_when(&self, result: &str, after: u64) -> Value {
        self.status_of(&self.volume(), result, after)
    }

    /// [`Stage::status_when`] of another volume.
    #[track_caller]
    pub fn status_of(&self, volume: &str, result: &str, after: u64) -> Value {
        until(&format!("a rotation after generation {after} to be {result}"), 2 * SOON, || {
            let status = self.plugin.status(volume);
            let last = &status["last_rotation"];
            (last["result"] == result && last["to"].as_u64() > Some(after)).then_some(status)
        })
    }

    /// Writes a secret, and waits until the containers have been told of it and were verified.
    #[track_caller]
    pub fn rotate(&self, token: &str) -> Value {
        let before = self.status()["generation"].as_u64().unwrap();
        self.put(token);
        self.status_when("verified", before)
    }

    /// How often the provider was asked for versions.
    pub fn checks(&self) -> usize {
        self.server.proxy.count("*", "metadata")
    }

    /// Until the provider has been asked for versions so many times more.
    #[track_caller]
    pub fn let_pass(&self, checks: usize) {
        let before = self.checks();
        wait_for("more checks", SOON, || self.checks() >= before + checks);
    }

    /// The files of the volume: names, inodes, modes, owners, sizes, times, contents.
    #[track_caller]
    pub fn files(&self) -> String {
        let dir = self.plugin.shown(&self.volume()).join("..data/");
        // Without dso's own note beside them.
        let print = [
            "-type",
            "f",
            "-not",
            "-name",
            "..*",
            "-printf",
            "%P %i %m %U %G %s %T@\n",
            "-exec",
            "sha256sum",
            "{}",
            ";",
        ];
        let output = Command::new("find").arg(&dir).args(print).output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && listed.contains("token"), "{listed}");
        listed
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if thread::panicking() {
            let status = self.engine().try_docker(&["volume", "inspect", &self.volume()]);
            eprintln!("{}\n{}", status.unwrap_or_else(|said| said), self.plugin.log());
        }
    }
}
