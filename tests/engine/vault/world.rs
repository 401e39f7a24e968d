//! OpenBao behind a counting proxy, a plugin that reads from it, and what a person is told on the way.

use crate::support::{
    BUSYBOX, SOON,
    bao::{Bao, unique},
    plugin::{Plugin, Preparation},
    proxy::Proxy,
    until, wait_for,
};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    sync::Mutex,
};

pub struct World {
    pub plugin: Plugin,
    pub proxy: Proxy,
    pub bao: Bao,
    /// What may be nowhere but in files of volumes.
    secrets: Mutex<Vec<String>>,
    /// Everything that a person was told.
    told: Mutex<String>,
    /// What differs from run to run, and what stands for it in messages.
    varying: Mutex<Vec<(String, String)>>,
}

// === impl World ===

impl World {
    /// With the provider `vault` at the proxy, logged in as root, and a check every second.
    pub async fn start() -> Self {
        Self::with("", |plugin| plugin).await
    }

    /// With more in dso.toml, where `PROXY` and `BAO` stand for addresses, and a plugin prepared by the test.
    pub async fn with(toml: &str, prepare: impl FnOnce(Preparation) -> Preparation) -> Self {
        let bao = Bao::start().await;
        let proxy = Proxy::before(&bao.address).await;
        let engine = crate::support::engine::Engine::system();
        let toml = [&instance("vault", "PROXY", ""), toml]
            .concat()
            .replace("PROXY", proxy.address())
            .replace("BAO", &bao.address);
        let plugin = Plugin::on(&engine).set("DSO_REFRESH=1s").config("vault-token", &bao.root);
        let plugin = prepare(plugin.config("dso.toml", toml)).start();
        let varying = vec![(proxy.address().to_owned(), "PROXY".to_owned()), (plugin.named(""), String::new())];
        let secrets = Mutex::new(vec![bao.root.clone()]);
        Self { plugin, proxy, bao, secrets, told: Mutex::default(), varying: Mutex::new(varying) }
    }

    /// A text that must not be seen anywhere but in the value that it is part of.
    pub fn canary(&self) -> String {
        self.guard(&format!("canary-{}", unique()))
    }

    pub fn guard(&self, secret: &str) -> String {
        self.secrets.lock().unwrap().push(secret.to_owned());
        secret.to_owned()
    }

    /// In messages, `stand_in` stands for `text`.
    pub fn varies(&self, text: &str, stand_in: &str) {
        self.varying.lock().unwrap().push((text.into(), stand_in.into()));
    }

    /// Writes a file of `/etc/dso` as provisioning does: whole or not at all.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let dir = self.plugin.config_dir();
        fs::write(dir.join(".new"), content).unwrap();
        fs::rename(dir.join(".new"), dir.join(name)).unwrap();
    }

    /// `docker dso …` on the plugin's `/etc/dso`, with something on its stdin.
    #[track_caller]
    pub fn dso(&self, words: &[&str], input: &[u8]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_docker-dso"));
        command.args(["dso", "secret", "--config-dir"]).arg(self.plugin.config_dir()).args(words);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }

    /// A volume with these options; its whole name.
    #[track_caller]
    pub fn volume(&self, name: &str, options: &[&str]) -> String {
        self.plugin.engine().docker(&self.creation(name, options).each_str());
        self.plugin.named(name)
    }

    /// What a person is told by a `docker volume create` that fails.
    #[track_caller]
    pub fn no_volume(&self, name: &str, options: &[&str]) -> String {
        let said = self.plugin.engine().docker_fails(&self.creation(name, options).each_str());
        let said = self.plain(&said);
        // Who told it, as the engine says; the volume is named by dso too, since not every engine does.
        said.strip_prefix(&format!("Error response from daemon: create {name}: ")).expect(&said).to_owned()
    }

    fn creation(&self, name: &str, options: &[&str]) -> Vec<String> {
        let mut words: Vec<_> = ["volume", "create", "--driver", &self.plugin.driver()].map(str::to_owned).into();
        words.extend(options.iter().flat_map(|option| ["--opt".to_owned(), (*option).to_owned()]));
        words.push(self.plugin.named(name));
        words
    }

    /// `docker run` with the volume at /secrets.
    pub fn running(&self, volume: &str, words: &[&str]) -> Vec<String> {
        let mount = format!("type=volume,source={},target=/secrets", self.plugin.named(volume));
        let mut run: Vec<_> = ["run", "--rm", "--network=none", "--mount", &mount, BUSYBOX].map(str::to_owned).into();
        run.extend(words.iter().map(|word| (*word).to_owned()));
        run
    }

    /// What a command prints in a new container with the volume at /secrets.
    #[track_caller]
    pub fn run(&self, volume: &str, words: &[&str]) -> String {
        self.plugin.engine().docker(&self.running(volume, words).each_str())
    }

    /// What a person is told by a `docker run` that fails.
    #[track_caller]
    pub fn no_container(&self, volume: &str) -> String {
        let said = self.plugin.engine().docker_fails(&self.running(volume, &["true"]).each_str());
        let said = self.plain(&said);
        // The frames of the client and of the engine, newer and older, which no plugin has a say in.
        let told = said.strip_prefix("docker: Error response from daemon: error while mounting volume '").expect(&said);
        let (_, told) = told.split_once("': ").expect(&said);
        let told = told.strip_prefix("VolumeDriver.Mount: ").unwrap_or(told);
        let help = told.find("\nRun 'docker run --help'").or(told.find("\nSee 'docker run --help'"));
        told[..help.unwrap_or(told.len())].trim_end().trim_end_matches('.').to_owned()
    }

    /// A container that keeps the volume mounted; its whole name.
    #[track_caller]
    pub fn keep(&self, volume: &str) -> String {
        self.keep_as(volume, volume)
    }

    #[track_caller]
    pub fn keep_as(&self, container: &str, volume: &str) -> String {
        let name = self.plugin.named(container);
        let mount = format!("type=volume,source={},target=/secrets", self.plugin.named(volume));
        let words = ["run", "--detach", "--init", "--network=none", "--name", &name, "--mount", &mount, BUSYBOX];
        self.plugin.engine().docker(&[&words[..], &["sleep", "1000"]].concat());
        name
    }

    /// What a file of a running container's volume holds.
    #[track_caller]
    pub fn read(&self, container: &str, file: &str) -> String {
        let file = format!("/secrets/{file}");
        self.plugin.engine().docker(&["exec", &self.plugin.named(container), "cat", &file])
    }

    /// `Status` of `docker volume inspect`.
    #[track_caller]
    pub fn status(&self, volume: &str) -> Value {
        self.plugin.engine().json(&["volume", "inspect", &self.plugin.named(volume)], ".Status")
    }

    /// The status, once its state is as expected.
    #[track_caller]
    pub fn status_when(&self, volume: &str, state: &str) -> Value {
        until(&format!("volume `{volume}` to be {state}"), SOON, || {
            let status = self.status(volume);
            (status["state"] == state).then_some(status)
        })
    }

    /// What `docker volume inspect` tells of an error, once the state is as expected.
    #[track_caller]
    pub fn error_when(&self, volume: &str, state: &str) -> String {
        let status = self.status_when(volume, state);
        self.plain(status["error"].as_str().unwrap_or("no error"))
    }

    /// Waits until a running container's file holds `text`.
    #[track_caller]
    pub fn wait_for_file(&self, container: &str, file: &str, text: &str) {
        let what = format!("file `{file}` of {container} to change");
        wait_for(&what, SOON, || self.read(container, file) == text);
    }

    /// A message as it is in every run. That it holds no secret is seen at the end.
    pub fn plain(&self, said: &str) -> String {
        self.told.lock().unwrap().push_str(said);
        let mut plain = said.to_owned();
        for (text, stand_in) in self.varying.lock().unwrap().iter() {
            plain = plain.replace(text, stand_in);
        }
        plain
    }

    /// That no secret was told: in a message, in the plugin's log, by `docker inspect` of anything.
    #[track_caller]
    pub fn nothing_leaked(&self) {
        let engine = self.plugin.engine();
        let mut places = vec![("a message", self.told.lock().unwrap().clone()), ("the log", self.plugin.log())];
        assert!(places[1].1.contains("ready"), "the plugin's log was not found: {}", places[1].1);
        places.push(("docker plugin inspect", engine.docker(&["plugin", "inspect", &self.plugin.driver()])));
        for volume in
            engine.docker(&["volume", "ls", "--quiet", "--filter", &format!("driver={}", self.plugin.driver())]).lines()
        {
            places.push(("docker volume inspect", engine.docker(&["volume", "inspect", volume])));
        }
        for secret in self.secrets.lock().unwrap().iter().chain(&self.proxy.tokens()) {
            for (place, text) in &places {
                let at = text.find(secret.as_str());
                assert!(at.is_none(), "a secret is in {place}, after: {}", &text[..at.unwrap_or(0)]);
            }
        }
    }
}

/// A table of dso.toml for a Vault instance.
pub fn instance(name: &str, address: &str, more: &str) -> String {
    format!("[provider.{name}]\ntype = 'vault'\naddress = '{address}'\n{more}\n")
}

pub trait EachStr {
    fn each_str(&self) -> Vec<&str>;
}

impl EachStr for Vec<String> {
    fn each_str(&self) -> Vec<&str> {
        self.iter().map(String::as_str).collect()
    }
}
