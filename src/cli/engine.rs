//! What `docker dso` asks the engine: which plugins are dso, and which volumes are theirs.

use super::{
    Failure,
    endpoint::{Call, Endpoint},
    volume::Volume,
};
use crate::{
    docker::client::{Client, ClientError, Dial},
    faults::nearest,
    volume::VolumeName,
};
use serde_json::Value;
use std::{io::ErrorKind, path::Path};

/// Where an engine of root puts the sockets of its plugins, whatever its `--exec-root`.
const PLUGINS: &str = "/run/docker/plugins";
/// The names of plugins that need not be said.
const USUAL: [&str; 2] = ["dso:latest", "dso"];

/// An engine that answers.
pub struct Engine {
    client: Client,
    endpoint: Endpoint,
}

/// A plugin that is dso, whatever its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    pub name: String,
    pub id: String,
    pub enabled: bool,
}

// === impl Engine ===

impl Engine {
    pub async fn connect(call: &Call) -> Result<Self, Failure> {
        let endpoint = call.endpoint();
        match Client::connect(&endpoint.dial).await {
            Ok(client) => Ok(Self { client, endpoint }),
            Err(error) => Err(unreachable(&endpoint, error)),
        }
    }

    pub async fn get(&mut self, path: &str) -> Result<Value, Failure> {
        let answer = self.client.get(path).await;
        answer.map_err(|error| unreachable(&self.endpoint, error))
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value, Failure> {
        let answer = self.client.post(path, body).await;
        answer.map_err(|error| unreachable(&self.endpoint, error))
    }

    /// The socket, where that is how the engine is reached.
    pub fn socket(&self) -> Option<&Path> {
        match &self.endpoint.dial {
            Dial::Socket(path) => Some(path),
            Dial::Program { .. } => None,
        }
    }

    /// Completes "the engine …".
    pub fn shown(&self) -> &str {
        &self.endpoint.shown
    }

    /// The plugins that are dso: the one named, or all.
    pub async fn plugins(&mut self, named: Option<&str>) -> Result<Vec<Plugin>, Failure> {
        let all = self.get("/plugins").await?;
        let mut found: Vec<_> = all.as_array().into_iter().flatten().filter_map(Plugin::of).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        if found.is_empty() {
            return Err(Failure::Failed(format!(
                "the engine {} has no dso plugin: install it (`docker plugin install`, or `make plugin` in its work tree)",
                self.shown()
            )));
        }
        let Some(named) = named else { return Ok(found) };
        let known: Vec<_> = found.iter().map(|plugin| plugin.name.clone()).collect();
        found.retain(|plugin| plugin.is_called(named));
        if found.is_empty() {
            return Err(Failure::Failed(format!("there is no dso plugin `{named}`: there is {}", listed(&known))));
        }
        Ok(found)
    }

    /// The same without those that are disabled; at least one.
    pub async fn enabled(&mut self, named: Option<&str>) -> Result<Vec<Plugin>, Failure> {
        let mut plugins = self.plugins(named).await?;
        let disabled = plugins[0].disabled();
        plugins.retain(|plugin| plugin.enabled);
        if plugins.is_empty() { Err(disabled) } else { Ok(plugins) }
    }

    /// The one plugin that is meant where no volume tells.
    pub async fn plugin(&mut self, named: Option<&str>) -> Result<Plugin, Failure> {
        let mut plugins = self.enabled(named).await?;
        let usual = plugins.iter().position(|plugin| USUAL.contains(&&*plugin.name));
        match (plugins.len(), usual) {
            (1, _) => Ok(plugins.remove(0)),
            (_, Some(at)) => Ok(plugins.remove(at)),
            _ => {
                let names: Vec<_> = plugins.into_iter().map(|plugin| plugin.name).collect();
                Err(Failure::Usage(format!("there are several dso plugins, {}: say which by --plugin", listed(&names))))
            }
        }
    }

    /// The names of the volumes of `plugins`, sorted; and what the engine could not find out.
    pub async fn names(&mut self, plugins: &[Plugin]) -> Result<(Vec<String>, Vec<String>), Failure> {
        Ok(of_plugins(&self.get("/volumes").await?, plugins))
    }

    /// A volume as it is now; `None` if there is none of that name.
    pub async fn look(&mut self, name: &str) -> Result<Option<Volume>, Failure> {
        // With `/` or `..` in it, it would be another path.
        if name.parse::<VolumeName>().is_err() {
            return Ok(None);
        }
        match self.client.get(&format!("/volumes/{name}")).await {
            Ok(volume) => Ok(Some(Volume::of(&volume))),
            Err(ClientError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(unreachable(&self.endpoint, error)),
        }
    }

    /// A volume of dso by the name that a person gave, with its plugin.
    pub async fn volume(&mut self, name: &str, plugins: &[Plugin]) -> Result<(Volume, Plugin), Failure> {
        let Some(volume) = self.look(name).await? else {
            let (names, _) = self.names(plugins).await?;
            let advice = match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`docker dso ls` lists those of dso".into(),
            };
            return Err(Failure::Failed(format!("there is no volume `{name}`: {advice}")));
        };
        let plugin = plugins.iter().find(|plugin| plugin.name == volume.driver);
        match plugin.cloned() {
            Some(plugin) if plugin.enabled => Ok((volume, plugin)),
            Some(plugin) => Err(plugin.disabled()),
            None => Err(Failure::Failed(format!(
                "volume `{name}` is of driver `{}`, and not of dso ({}): `docker volume inspect {name}` shows it",
                volume.driver,
                listed(&plugins.iter().map(|plugin| plugin.name.clone()).collect::<Vec<_>>())
            ))),
        }
    }

    /// A connection to the plugin's own socket, which is root's on the engine's host.
    pub async fn operate(&self, plugin: &Plugin) -> Result<Operator, Failure> {
        let path = format!("{PLUGINS}/{}/dso.sock", plugin.id);
        let name = &plugin.name;
        let client = Client::connect(&Dial::Socket(path.clone().into())).await.map_err(|error| {
            Failure::Failed(match &error {
                ClientError::Absent { kind: ErrorKind::PermissionDenied, .. } => {
                    "this asks the plugin at its own socket, which is root's: run it as root on the engine's host (`sudo docker dso …`)"
                        .into()
                }
                ClientError::Absent { kind: ErrorKind::NotFound, .. } => format!(
                    "this asks the plugin `{name}` at its own socket, which is not on this host: run it as root on the host of \
                     the engine {}",
                    self.shown()
                ),
                _ => format!("the plugin `{name}` does not answer at `{path}`: {error}; the engine starts it again if it has ended"),
            })
        })?;
        Ok(Operator { client, plugin: name.clone() })
    }
}

/// The plugin's socket.
pub struct Operator {
    pub client: Client,
    pub plugin: String,
}

// === impl Operator ===

impl Operator {
    pub fn failure(&self, error: ClientError) -> Failure {
        explain(&self.plugin, error)
    }
}

/// Whether a 404 is of the call itself, and not of what it names.
fn is_unknown_call(message: &str) -> bool {
    message.is_empty() || message.starts_with("status ") || message == "dso has no such call"
}

/// What the plugin's answer means.
pub fn explain(plugin: &str, error: ClientError) -> Failure {
    Failure::Failed(match error {
        ClientError::Refused { status: 404, message } if is_unknown_call(&message) => {
            format!("the plugin `{plugin}` does not know this call: it is older than this command, upgrade it")
        }
        ClientError::Refused { message, .. } => message,
        error => format!("the plugin `{plugin}` did not answer to the end: {error}"),
    })
}

// === impl Plugin ===

impl Plugin {
    /// `None` if it is another plugin. A plugin's name is its owner's choice; its socket is dso's.
    fn of(plugin: &Value) -> Option<Self> {
        let interface = &plugin["Config"]["Interface"];
        // `{"Prefix": "docker", "Capability": "volumedriver", "Version": "1.0"}`, or the same in one word.
        let is_driver = |kind: &Value| kind["Capability"] == "volumedriver" || kind == "docker.volumedriver/1.0";
        let is_dso = interface["Socket"] == "dso.sock" && interface["Types"].as_array()?.iter().any(is_driver);
        is_dso.then(|| Self {
            name: plugin["Name"].as_str().unwrap_or_default().into(),
            id: plugin["Id"].as_str().unwrap_or_default().into(),
            enabled: plugin["Enabled"] == true,
        })
    }

    /// `dso` is also `dso:latest`.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.name.strip_suffix(":latest") == Some(name)
    }

    /// As people write it for a driver.
    pub fn short(&self) -> &str {
        self.name.strip_suffix(":latest").unwrap_or(&self.name)
    }

    pub fn disabled(&self) -> Failure {
        Failure::Failed(format!("the plugin `{0}` is disabled: `docker plugin enable {0}`", self.name))
    }
}

/// Of the engine's list: the volumes of these plugins, and its warnings of them.
fn of_plugins(all: &Value, plugins: &[Plugin]) -> (Vec<String>, Vec<String>) {
    let is_ours = |volume: &&Value| plugins.iter().any(|plugin| volume["Driver"] == *plugin.name);
    let ours = all["Volumes"].as_array().into_iter().flatten().filter(is_ours);
    let mut names: Vec<String> = ours.filter_map(|volume| volume["Name"].as_str().map(str::to_owned)).collect();
    names.sort();
    let warnings = all["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let warnings = warnings.filter(|text| plugins.iter().any(|plugin| text.contains(&plugin.name)));
    (names, warnings.map(str::to_owned).collect())
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn unreachable(endpoint: &Endpoint, error: ClientError) -> Failure {
    let shown = &endpoint.shown;
    Failure::Failed(match &error {
        ClientError::Refused { message, .. } => format!("the engine {shown} refuses: {message}"),
        ClientError::Absent { kind: ErrorKind::PermissionDenied, .. } => {
            format!(
                "you may not use the engine {shown}: use `sudo`, or let an administrator add you to its group (`docker`)"
            )
        }
        ClientError::Absent { error, .. } if matches!(endpoint.dial, Dial::Socket(_)) => format!(
            "no engine answers {shown} ({error}): start it, or name another by `docker --context`, `docker --host` or DOCKER_HOST"
        ),
        error => format!("the engine {shown} is out of reach: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plugin(name: &str, socket: &str, kinds: Value) -> Value {
        json!({"Id": "1", "Name": name, "Enabled": true, "Config": {"Interface": {"Socket": socket, "Types": kinds}}})
    }

    #[test]
    fn a_plugin_is_known_by_its_socket_and_what_it_serves() {
        let kinds = json!([{"Prefix": "docker", "Capability": "volumedriver", "Version": "1.0"}]);
        let ours = Plugin::of(&plugin("secrets:v1", "dso.sock", kinds.clone())).unwrap();
        assert_eq!((&*ours.name, &*ours.id, ours.enabled), ("secrets:v1", "1", true));
        assert!(Plugin::of(&plugin("x", "dso.sock", json!(["docker.volumedriver/1.0"]))).is_some());
        assert_eq!(Plugin::of(&plugin("dso", "other.sock", kinds)), None);
        assert_eq!(Plugin::of(&plugin("dso", "dso.sock", json!(["docker.networkdriver/1.0"]))), None);
        let plugin = |name: &str| Plugin { name: name.into(), id: String::new(), enabled: true };
        assert!(plugin("dso:latest").is_called("dso") && plugin("dso:latest").is_called("dso:latest"));
        assert!(!plugin("dso:v1").is_called("dso"));
    }

    #[test]
    fn a_plugin_that_does_not_know_a_call_is_older() {
        let said =
            |status, message: &str| match explain("dso", ClientError::Refused { status, message: message.into() }) {
                Failure::Failed(text) => text,
                _ => String::new(),
            };
        for message in ["", "status 404 Not Found", "dso has no such call"] {
            assert!(said(404, message).contains("it is older than this command"), "{message}");
        }
        assert_eq!(said(404, "there is no volume `v`"), "there is no volume `v`");
    }

    #[test]
    fn what_the_engine_could_not_list_is_told_of_our_plugins_alone() {
        let ours = [Plugin { name: "dso:latest".into(), id: "1".into(), enabled: true }];
        let all = json!({
            "Volumes": [{"Name": "b", "Driver": "dso:latest"}, {"Name": "x", "Driver": "local"}, {"Name": "a", "Driver": "dso:latest"}],
            "Warnings": ["list dso:latest: deadline exceeded", "list nfs:latest: deadline exceeded"],
        });
        let (names, warnings) = of_plugins(&all, &ours);
        assert_eq!(
            (names, warnings),
            (vec!["a".into(), "b".into()], vec!["list dso:latest: deadline exceeded".to_owned()])
        );
        assert_eq!(of_plugins(&json!({"Volumes": null, "Warnings": null}), &ours), (Vec::new(), Vec::new()));
    }
}
