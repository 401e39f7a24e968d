//! Swarm, as the manager that leads it has it: services, and the secrets that drivers give them.
//!
//! # Guarantees
//! - An update sends back the whole specification as the engine gave it, in the engine's own version of the API: nothing that
//!   dso does not know is lost, nor is the registry login that goes with it.
//! - Whoever wrote meanwhile is not overwritten: an update names the version that it was made from ([`Written::Outdated`]).

use super::{RuntimeError, call::Call, engine::Engine, wire::Connection};
use async_trait::async_trait;
use bollard::errors::Error;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Labels as Swarm has them.
pub type Labels = BTreeMap<String, String>;

/// What this node is in a Swarm.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// In no Swarm.
    Alone,
    /// A worker, or a manager that does not lead now.
    Follower,
    Leader(SwarmView),
}

/// Services, and the secrets whose values a driver gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SwarmView {
    pub services: Vec<Service>,
    pub secrets: Vec<SwarmSecret>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub id: String,
    pub name: String,
    /// Of its specification; every change of anybody's raises it.
    pub index: u64,
    pub labels: Labels,
    /// IDs of the Swarm secrets that its tasks get.
    pub secrets: BTreeSet<String>,
    /// Whether it is a job: any update would run it once more.
    pub is_job: bool,
    /// The labels before the last update, if Swarm still knows them.
    pub previous: Option<Labels>,
    /// How its last update stands; `None` if it ended by itself without a task being replaced, or there was none.
    pub update: Option<UpdateState>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SwarmSecret {
    pub id: String,
    pub name: String,
    pub index: u64,
    pub labels: Labels,
}

/// What Swarm says of an update of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Yes,
    /// Somebody else has changed or removed it since it was looked at: look again.
    Outdated,
}

/// The edge to Swarm: the engine's, for the node that it runs on.
#[async_trait]
pub trait Swarm: Send + Sync + 'static {
    async fn role(&self) -> Result<Role, RuntimeError>;

    /// Sets `labels` on the service, removes those without a value, and replaces its tasks as its own `update_config` says
    /// if `replace`.
    async fn update_service(
        &self,
        id: &str,
        index: u64,
        labels: &BTreeMap<String, Option<String>>,
        replace: bool,
    ) -> Result<Written, RuntimeError>;

    /// Sets a label on a secret. Swarm lets nothing else of it be changed.
    async fn label_secret(&self, id: &str, index: u64, name: &str, value: &str) -> Result<Written, RuntimeError>;
}

const QUICK: Duration = Duration::from_secs(10);

#[async_trait]
impl Swarm for Engine {
    async fn role(&self) -> Result<Role, RuntimeError> {
        let engine = Connection::to_newest(self.socket()).await?;
        let info = get(&engine, "/info", "tell of its Swarm").await?;
        let swarm = &info["Swarm"];
        let node = text(&swarm["NodeID"]);
        if node.is_empty() {
            return Ok(Role::Alone);
        }
        if swarm["ControlAvailable"] != true {
            return Ok(Role::Follower);
        }
        let node = get(&engine, &format!("/nodes/{node}"), "tell who leads its Swarm").await?;
        if node["ManagerStatus"]["Leader"] != true {
            return Ok(Role::Follower);
        }
        let services = get(&engine, "/services", "list services").await?;
        let secrets = get(&engine, "/secrets", "list secrets").await?;
        Ok(Role::Leader(SwarmView {
            services: list(&services).map(service).collect(),
            secrets: list(&secrets).filter(|secret| secret["Spec"]["Driver"].is_object()).map(secret).collect(),
        }))
    }

    async fn update_service(
        &self,
        id: &str,
        index: u64,
        labels: &BTreeMap<String, Option<String>>,
        replace: bool,
    ) -> Result<Written, RuntimeError> {
        let path = format!("/services/{id}");
        self.write(&path, index, "update a service", |spec| {
            relabel(spec, labels.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
            if replace {
                let force = &mut spec["TaskTemplate"]["ForceUpdate"];
                *force = (force.as_u64().unwrap_or_default() + 1).into();
            }
        })
        .await
    }

    async fn label_secret(&self, id: &str, index: u64, name: &str, value: &str) -> Result<Written, RuntimeError> {
        self.write(&format!("/secrets/{id}"), index, "label a secret", |spec| relabel(spec, [(name, Some(value))]))
            .await
    }
}

// === impl Engine ===

impl Engine {
    /// Changes the specification of what is at `path`, if nobody did since it had `index`.
    async fn write(
        &self,
        path: &str,
        index: u64,
        doing: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Written, RuntimeError> {
        let engine = Connection::to_newest(self.socket()).await?;
        let write = async {
            let mut found: Value = match engine.get(path).await {
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(Written::Outdated),
                found => serde_json::from_slice(&found?)?,
            };
            if found["Version"]["Index"] != index {
                return Ok(Written::Outdated);
            }
            let mut spec = found["Spec"].take();
            change(&mut spec);
            match engine.post(&format!("{path}/update?version={index}"), &spec).await {
                Err(Error::DockerResponseServerError { message, .. }) if message.contains("out of sequence") => {
                    Ok(Written::Outdated)
                }
                done => done.map(|_| Written::Yes),
            }
        };
        Call::new(doing, QUICK).run(write).await
    }
}

async fn get(engine: &Connection, path: &str, doing: &str) -> Result<Value, RuntimeError> {
    let get = async { Ok(serde_json::from_slice(&engine.get(path).await?)?) };
    Call::new(doing, QUICK).run(get).await
}

fn relabel<'a>(spec: &mut Value, labels: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) {
    if !spec["Labels"].is_object() {
        spec["Labels"] = Map::new().into();
    }
    for (name, value) in labels {
        match value {
            Some(value) => spec["Labels"][name] = value.into(),
            None => drop(spec["Labels"].as_object_mut().and_then(|labels| labels.remove(name))),
        }
    }
}

fn service(value: &Value) -> Service {
    let (id, name, index, labels) = head(value);
    let is_job = ["ReplicatedJob", "GlobalJob"].iter().any(|mode| value["Spec"]["Mode"][mode].is_object());
    let previous = value["PreviousSpec"].as_object().map(|spec| spec.get("Labels").map(labels_of).unwrap_or_default());
    let secrets = list(&value["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"]);
    let secrets = secrets.map(|secret| text(&secret["SecretID"])).collect();
    let update = update_state(&text(&value["UpdateStatus"]["State"]));
    Service { id, name, index, labels, secrets, is_job, previous, update }
}

fn secret(value: &Value) -> SwarmSecret {
    let (id, name, index, labels) = head(value);
    SwarmSecret { id, name, index, labels }
}

fn head(value: &Value) -> (String, String, u64, Labels) {
    let labels = labels_of(&value["Spec"]["Labels"]);
    (text(&value["ID"]), text(&value["Spec"]["Name"]), value["Version"]["Index"].as_u64().unwrap_or_default(), labels)
}

fn labels_of(value: &Value) -> Labels {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// A state that is not known is one in which a service is left alone.
fn update_state(text: &str) -> Option<UpdateState> {
    Some(match text {
        "" => return None,
        "paused" => UpdateState::Paused,
        "completed" => UpdateState::Completed,
        "rollback_started" => UpdateState::RollbackStarted,
        "rollback_paused" => UpdateState::RollbackPaused,
        "rollback_completed" => UpdateState::RollbackCompleted,
        _ => UpdateState::Updating,
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_set_and_removed_and_the_rest_of_a_specification_stays() {
        let mut spec = json!({"Name": "app", "Labels": {"theirs": "1", "old": "2"}, "Unknown": {"kept": [1]}});
        relabel(&mut spec, [("new", Some("3")), ("old", None), ("never", None)]);
        assert_eq!(spec, json!({"Name": "app", "Labels": {"theirs": "1", "new": "3"}, "Unknown": {"kept": [1]}}));
        let mut bare = json!({"Name": "app"});
        relabel(&mut bare, [("new", Some("3"))]);
        assert_eq!(bare["Labels"], json!({"new": "3"}));
    }

    #[test]
    fn a_service_is_read_with_its_secrets_and_how_its_update_stands() {
        let found = service(&json!({
            "ID": "s1", "Version": {"Index": 7},
            "Spec": {"Name": "app", "TaskTemplate": {"ContainerSpec": {"Secrets": [{"SecretID": "x", "SecretName": "pin"}]}}},
            "UpdateStatus": {"State": "rollback_completed"},
        }));
        assert_eq!((found.id.as_str(), found.name.as_str(), found.index), ("s1", "app", 7));
        assert_eq!((found.secrets, found.update), (["x".to_owned()].into(), Some(UpdateState::RollbackCompleted)));
        assert_eq!(update_state("some day"), Some(UpdateState::Updating));
        assert_eq!((found.is_job, found.previous), (false, None));
    }

    #[test]
    fn jobs_are_told_from_services_that_run_on_and_the_labels_before_the_last_update_are_read() {
        let mode = |mode: Value| service(&json!({"Spec": {"Name": "app", "Mode": mode}})).is_job;
        assert!(mode(json!({"ReplicatedJob": {"MaxConcurrent": 1}})) && mode(json!({"GlobalJob": {}})));
        assert!(!mode(json!({"Replicated": {"Replicas": 1}})) && !mode(json!({"Global": {}})) && !mode(Value::Null));
        let before = |spec: Value| service(&json!({"Spec": {"Name": "app"}, "PreviousSpec": spec})).previous;
        assert_eq!(before(json!({"Labels": {"a": "1"}})), Some([("a".to_owned(), "1".to_owned())].into()));
        assert_eq!((before(json!({"Name": "app"})), before(Value::Null)), (Some(Labels::new()), None));
    }
}
