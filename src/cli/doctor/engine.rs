//! The engine, the plugin in it, and what the plugin says of itself.

use super::super::{
    Failure,
    engine::{Engine, Operator, Plugin},
    session::Session,
};
use crate::findings::{Finding, Level};
use serde_json::Value;
use std::{io, os::unix::net::UnixStream, path::Path, time::Duration};
use tokio::time::timeout;

/// The oldest engine that dso is tested on.
const OLDEST: (u32, u32) = (20, 10);
/// What the default of the mount `config` is: `/etc/dso` is looked for in it.
const UNSET: &str = "/etc";
/// Of each request. The plugin itself gives its providers less.
const LIMIT: Duration = Duration::from_secs(30);

pub async fn examine(session: &Session) -> Vec<Finding> {
    let mut engine = match within("the engine", session.engine()).await {
        Ok(engine) => engine,
        Err(failure) => {
            return vec![Finding::error("engine", "docker", said(failure), "start the engine, or say which is meant")];
        }
    };
    let version = version(&mut engine).await;
    let answers = version.level != Level::Error;
    let mut findings = vec![version];
    if !answers {
        // The connection is of no use any more.
        return findings;
    }
    let plugins = match within("the engine", engine.plugins(session.plugin.as_deref())).await {
        Ok(plugins) => plugins,
        Err(failure) => {
            findings.push(Finding::error(
                "plugin",
                "dso",
                said(failure),
                "docker plugin install, then docker dso doctor again",
            ));
            return findings;
        }
    };
    for plugin in plugins {
        findings.extend(mounts(&mut engine, &plugin, &session.config_dir).await);
        if plugin.enabled {
            let operator = within("the plugin", engine.operate(&plugin)).await;
            findings.extend(told(plugin.short(), operator).await);
        } else {
            let advice = format!("docker plugin enable {}", plugin.short());
            findings.push(Finding::error("plugin", plugin.short(), "is disabled", advice));
        }
    }
    findings
}

/// What takes too long is a failure as any other.
async fn within<T>(who: &str, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late =
        |_| Failure::Failed(format!("{who} accepts connections, and has not answered within {} s", LIMIT.as_secs()));
    timeout(LIMIT, work).await.map_err(late)?
}

fn said(failure: Failure) -> String {
    match failure {
        Failure::Failed(text) | Failure::Usage(text) => text,
        Failure::ReaderGone => "nobody reads".into(),
    }
}

async fn version(engine: &mut Engine) -> Finding {
    let shown = engine.shown().to_owned();
    match within("the engine", engine.get("/version")).await {
        Ok(answer) => judge(&shown, answer["Version"].as_str().unwrap_or("unknown"), answer["KernelVersion"].as_str()),
        Err(failure) => Finding::error("engine", shown, said(failure), "look at the engine's log"),
    }
}

fn judge(shown: &str, version: &str, kernel: Option<&str>) -> Finding {
    let message = format!("Docker {version}, Linux {}", kernel.unwrap_or("unknown"));
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => {
            Finding::warning("engine", shown, message, "dso is tested on Docker 20.10 and newer: upgrade the engine")
        }
        _ => Finding::ok("engine", shown, message),
    }
}

/// Where the plugin's mounts come from.
async fn mounts(engine: &mut Engine, plugin: &Plugin, config_dir: &Path) -> Vec<Finding> {
    let name = plugin.short();
    let inspected = match within("the engine", engine.get(&format!("/plugins/{}/json", plugin.name))).await {
        Ok(inspected) => inspected,
        Err(failure) => return vec![Finding::error("plugin", name, said(failure), "docker plugin inspect tells more")],
    };
    let source = |mount: &str| {
        let mounts = inspected["Settings"]["Mounts"].as_array()?;
        mounts.iter().find(|known| known["Name"] == mount)?["Source"].as_str().map(str::to_owned)
    };
    let mut findings = Vec::new();
    // Folders of another host cannot be looked at from here.
    let Some(socket) = engine.socket().map(Path::to_owned) else { return findings };
    let set = |mount: &str, to: &str| {
        format!(
            "docker plugin disable {name} && docker plugin set {name} {mount}.source={to} && docker plugin enable {name}"
        )
    };
    if let Some(source) = source("config") {
        findings.push(config(name, &source, config_dir, &set));
    }
    if let Some(source) = source("engine") {
        findings.push(socket_folder(name, &source, &socket, &set));
    }
    findings
}

/// Where the folder that the plugin sees as `/etc/dso` is another than the one that commands here use.
fn config(name: &str, source: &str, config_dir: &Path, set: &dyn Fn(&str, &str) -> String) -> Finding {
    let seen = if source == UNSET { "/etc/dso" } else { source };
    let advice = |to: &Path| set("config", &to.display().to_string());
    if source != UNSET && !Path::new(source).is_dir() {
        let message = format!("its mount `config` comes from {source}, which is no folder: the plugin cannot start");
        return Finding::error("plugin", name, message, advice(config_dir));
    }
    if Path::new(seen) != config_dir {
        let message = format!("reads its settings from {seen}, and this command from {}", config_dir.display());
        return Finding::warning(
            "plugin",
            name,
            message,
            format!("say `--config-dir {seen}`, or: {}", advice(config_dir)),
        );
    }
    Finding::ok("plugin", name, format!("reads its settings from {seen}"))
}

fn socket_folder(name: &str, source: &str, socket: &Path, set: &dyn Fn(&str, &str) -> String) -> Finding {
    let inner = Path::new(source).join("docker.sock");
    let folder = socket.parent().and_then(|folder| folder.canonicalize().ok());
    let right = folder.as_ref().map_or("/run".into(), |folder| folder.display().to_string());
    match UnixStream::connect(&inner) {
        Ok(_) => Finding::ok("plugin", name, format!("finds the engine in {source}")),
        // It is there; whoever asks may not use it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::ok("plugin", name, format!("finds the engine in {source}"))
        }
        Err(error) => Finding::error(
            "plugin",
            name,
            format!(
                "its mount `engine` comes from {source}, where no engine answers at docker.sock ({error}): containers are not told of changes"
            ),
            set("engine", &right),
        ),
    }
}

/// What the plugin itself finds.
async fn told(name: &str, operator: Result<Operator, Failure>) -> Vec<Finding> {
    let mut operator = match operator {
        Ok(operator) => operator,
        Err(failure) => {
            let advice = "run this as root on the engine's host: only then the plugin can be asked";
            return vec![Finding::warning("plugin", name, said(failure), advice)];
        }
    };
    let mut findings = match within("the plugin", ask(&mut operator, "/dso/v1/version")).await {
        Ok(version) => vec![same_version(name, &version)],
        Err(failure) => return vec![Finding::error("plugin", name, said(failure), "restart the plugin")],
    };
    match within("the plugin", ask(&mut operator, "/dso/v1/doctor")).await {
        Ok(answer) => match serde_json::from_value::<Vec<Finding>>(answer["findings"].clone()) {
            Ok(told) => findings.extend(told),
            Err(_) => findings.push(Finding::error(
                "plugin",
                name,
                "its answer is not understood",
                "use a `docker dso` of its version",
            )),
        },
        Err(failure) => findings.push(Finding::error("plugin", name, said(failure), "restart the plugin")),
    }
    findings
}

async fn ask(operator: &mut Operator, path: &str) -> Result<Value, Failure> {
    let answer = operator.client.get(path).await;
    answer.map_err(|error| operator.failure(error))
}

fn same_version(name: &str, answer: &Value) -> Finding {
    let (own, theirs) = (env!("CARGO_PKG_VERSION"), answer["version"].as_str().unwrap_or("unknown"));
    match own == theirs {
        true => Finding::ok("plugin", name, format!("version {theirs}, as this command")),
        false => Finding::warning(
            "plugin",
            name,
            format!("version {theirs}, and this command is {own}"),
            "upgrade the older of the two (docker plugin upgrade; make install-cli)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::plugin::own_arguments,
        docker::client::{Client, Dial},
    };
    use serde_json::json;

    /// The clock moves where nothing else does.
    #[tokio::test(start_paused = true)]
    async fn who_accepts_a_connection_and_never_answers_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let options = own_arguments(vec!["-H".into(), format!("unix://{}", socket.display()).into()]).0;
        let findings = timeout(LIMIT * 10, examine(&Session::new(options, |_| None))).await.expect("it ends");
        let [engine] = &findings[..] else { panic!("{findings:?}") };
        assert!(engine.level == Level::Error && engine.message.contains("has not answered within 30 s"), "{engine:?}");
        let client = Client::connect(&Dial::Socket(socket)).await.unwrap();
        let operator = Operator { client, plugin: "dso".into() };
        let findings = timeout(LIMIT * 10, told("dso", Ok(operator))).await.expect("it ends");
        assert_eq!(findings[0].message, "the plugin accepts connections, and has not answered within 30 s");
    }

    #[test]
    fn old_engines_and_other_versions_are_told() {
        assert_eq!(judge("at x", "19.03.15", None).level, Level::Warning);
        assert_eq!(judge("at x", "20.10.24+dfsg1", Some("6.1")).message, "Docker 20.10.24+dfsg1, Linux 6.1");
        assert_eq!(judge("at x", "28.5.2", None).level, Level::Ok);
        assert_eq!(same_version("dso", &json!({"version": "9.9.9"})).level, Level::Warning);
        assert_eq!(same_version("dso", &json!({"version": env!("CARGO_PKG_VERSION")})).level, Level::Ok);
    }

    #[test]
    fn mounts_that_lead_elsewhere_are_told_with_the_command_that_mends_them() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_str().unwrap();
        let set = |mount: &str, to: &str| format!("set {mount} {to}");
        let level = |source: &str, config_dir: &str| config("dso", source, Path::new(config_dir), &set).level;
        assert_eq!(level(UNSET, "/etc/dso"), Level::Ok);
        assert_eq!(level(here, here), Level::Ok);
        assert_eq!(level(here, "/etc/dso"), Level::Warning);
        assert_eq!(level("/nonexistent", "/etc/dso"), Level::Error);
        let socket = dir.path().join("docker.sock");
        let finding = socket_folder("dso", here, &socket, &set);
        assert!(finding.level == Level::Error && finding.advice == format!("set engine {here}"), "{finding:?}");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(socket_folder("dso", here, &socket, &set).level, Level::Ok);
    }
}
