//! Which engine is meant: as `docker` finds it, by its options, the environment and its contexts.

use super::plugin::DockerOptions;
use crate::docker::client::Dial;
use serde_json::Value;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How the process was called: what decides which engine is meant.
#[derive(Clone)]
pub struct Call {
    pub options: DockerOptions,
    /// Looks into the environment.
    pub env: fn(&str) -> Option<String>,
}

/// An engine that has not been reached yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub dial: Dial,
    /// Completes "the engine …": `at unix:///var/run/docker.sock`, `of context far (ssh://host)`.
    pub shown: String,
}

// === impl Call ===

impl Call {
    /// The order is Docker's: options, `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context.
    pub fn endpoint(&self) -> Endpoint {
        let option = self.options.value(&["--context", "-c"]).filter(|name| !name.is_empty());
        let host = self.options.value(&["--host", "-H"]);
        // Docker refuses both at once, in its own words.
        if let (Some(name), Some(_)) = (&option, &host) {
            return self.by_docker(format!("of context {name}"));
        }
        if option.is_none()
            && let Some(host) = host.or_else(|| (self.env)("DOCKER_HOST"))
        {
            return self.at(&host, format!("at {host}"));
        }
        let name = option.or_else(|| (self.env)("DOCKER_CONTEXT")).or_else(|| self.current());
        match name.filter(|name| name != "default") {
            None => self.at(&format!("unix://{DEFAULT_SOCKET}"), format!("at unix://{DEFAULT_SOCKET}")),
            Some(name) => match self.host_of(&name) {
                Some(host) => self.at(&host, format!("of context {name} ({host})")),
                None => self.by_docker(format!("of context {name}")),
            },
        }
    }

    fn at(&self, host: &str, shown: String) -> Endpoint {
        let tls =
            self.options.has_tls() || (self.env)("DOCKER_TLS_VERIFY").is_some() || (self.env)("DOCKER_TLS").is_some();
        match host.strip_prefix("unix://").filter(|path| !tls && path.starts_with('/')) {
            Some(path) => Endpoint { dial: Dial::Socket(path.into()), shown },
            None => self.by_docker(shown),
        }
    }

    /// Docker makes the connection, with the options that it was given and the environment.
    fn by_docker(&self, shown: String) -> Endpoint {
        let arguments = self.docker_arguments(["system", "dial-stdio"]);
        Endpoint { dial: Dial::Program { program: self.docker(), arguments }, shown }
    }

    /// The `docker` that called, or the one of the path.
    pub fn docker(&self) -> OsString {
        let called = (self.env)("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND");
        called.filter(|path| Path::new(path).is_absolute()).unwrap_or_else(|| "docker".into()).into()
    }

    /// Docker's options again, and then `words`.
    pub fn docker_arguments<const N: usize>(&self, words: [&str; N]) -> Vec<OsString> {
        self.options.0.iter().cloned().chain(words.map(OsString::from)).collect()
    }

    fn current(&self) -> Option<String> {
        let config = read(&self.config_dir()?.join("config.json"))?;
        config["currentContext"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// The host of a context, from Docker's own records of it; their folders are named by hashes.
    fn host_of(&self, name: &str) -> Option<String> {
        let folders = fs::read_dir(self.config_dir()?.join("contexts/meta")).ok()?;
        let records = folders.flatten().filter_map(|folder| read(&folder.path().join("meta.json")));
        let record = records.into_iter().find(|record| record["Name"] == name)?;
        record["Endpoints"]["docker"]["Host"].as_str().filter(|host| !host.is_empty()).map(str::to_owned)
    }

    fn config_dir(&self) -> Option<PathBuf> {
        let given = self.options.value(&["--config"]).or_else(|| (self.env)("DOCKER_CONFIG"));
        given.map(PathBuf::from).or_else(|| Some(PathBuf::from((self.env)("HOME")?).join(".docker")))
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::plugin::own_arguments;

    fn call(options: &str, env: fn(&str) -> Option<String>) -> Call {
        let words = options.split_whitespace().map(OsString::from).collect();
        Call { options: own_arguments(words).0, env }
    }

    fn socket(path: &str) -> Dial {
        Dial::Socket(path.into())
    }

    fn by_docker(words: &str) -> Dial {
        let arguments = words.split_whitespace().map(OsString::from).collect();
        Dial::Program { program: "docker".into(), arguments }
    }

    #[test]
    fn options_go_before_the_environment_and_that_before_the_default() {
        let nothing: fn(&str) -> Option<String> = |_| None;
        let host: fn(&str) -> Option<String> = |name| (name == "DOCKER_HOST").then(|| "unix:///env.sock".into());
        let far: fn(&str) -> Option<String> = |name| (name == "DOCKER_HOST").then(|| "ssh://far".into());
        let secure: fn(&str) -> Option<String> = |name| (name == "DOCKER_TLS_VERIFY").then(|| "1".into());
        for (options, env, dial) in [
            ("", nothing, socket(DEFAULT_SOCKET)),
            ("", host, socket("/env.sock")),
            ("-H unix:///x.sock", host, socket("/x.sock")),
            ("--context default", host, socket(DEFAULT_SOCKET)),
            ("--context far", host, by_docker("--context far system dial-stdio")),
            ("", far, by_docker("system dial-stdio")),
            ("-H tcp://far:2376 --tlsverify", nothing, by_docker("-H tcp://far:2376 --tlsverify system dial-stdio")),
            ("-H unix:///x.sock", secure, by_docker("-H unix:///x.sock system dial-stdio")),
            ("-H unix:///x.sock -c x", nothing, by_docker("-H unix:///x.sock -c x system dial-stdio")),
        ] {
            assert_eq!(call(options, env).endpoint().dial, dial, "{options}");
        }
    }

    #[test]
    fn contexts_are_found_in_dockers_own_folder() {
        let folder = tempfile::tempdir().unwrap();
        for (name, host) in [("near", "unix:///near.sock"), ("far", "ssh://far")] {
            let meta = folder.path().join("contexts/meta").join(name);
            fs::create_dir_all(&meta).unwrap();
            let record = serde_json::json!({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host}}});
            fs::write(meta.join("meta.json"), record.to_string()).unwrap();
        }
        fs::write(folder.path().join("config.json"), r#"{"currentContext": "near"}"#).unwrap();
        let config = format!("--config {}", folder.path().display());
        let endpoint = |options: &str| call(&format!("{config} {options}"), |_| None).endpoint();
        assert_eq!(
            endpoint(""),
            Endpoint { dial: socket("/near.sock"), shown: "of context near (unix:///near.sock)".into() }
        );
        assert_eq!(endpoint("-c far").dial, by_docker(&format!("{config} -c far system dial-stdio")));
        assert_eq!(endpoint("-c far").shown, "of context far (ssh://far)");
        assert_eq!(endpoint("-c default").dial, socket(DEFAULT_SOCKET));
    }
}
