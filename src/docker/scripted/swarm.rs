//! A Swarm for unit tests: services and secrets in memory, with Swarm's lock, its updates and its rollback.

use crate::docker::{Labels, Role, RuntimeError, Service, Swarm, SwarmSecret, SwarmView, UpdateState, Written};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

#[derive(Default)]
pub struct ScriptedSwarm(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Whether this node leads.
    leads: bool,
    services: BTreeMap<String, (Service, Labels)>,
    secrets: BTreeMap<String, SwarmSecret>,
    /// Replacements of tasks: service, and its labels.
    replaced: Vec<(String, Labels)>,
    writes: usize,
    /// How many writes are let through before one is lost, with the process that makes it, before or after its effect.
    lose: Option<(usize, bool)>,
    /// Somebody else is always quicker.
    contended: bool,
    /// What Swarm refuses to write.
    refused: BTreeSet<String>,
}

// === impl ScriptedSwarm ===

impl ScriptedSwarm {
    pub fn leading() -> Self {
        let swarm = Self::default();
        swarm.lead(true);
        swarm
    }

    pub fn lead(&self, leads: bool) {
        self.0.lock().unwrap().leads = leads;
    }

    pub fn contend(&self, contended: bool) {
        self.0.lock().unwrap().contended = contended;
    }

    /// Swarm refuses to write this service or secret, or no more.
    pub fn refuse(&self, name: &str, refuses: bool) {
        let refused = &mut self.0.lock().unwrap().refused;
        if refuses {
            refused.insert(name.into())
        } else {
            refused.remove(name)
        };
    }

    /// After `writes` more, the next write fails: before it has an effect, or after.
    pub fn lose(&self, lose: Option<(usize, bool)>) {
        self.0.lock().unwrap().lose = lose;
    }

    pub fn secret(&self, name: &str, labels: &[(&str, &str)]) {
        let secret = SwarmSecret { id: name.into(), name: name.into(), index: 1, labels: owned(labels) };
        self.0.lock().unwrap().secrets.insert(name.into(), secret);
    }

    pub fn service(&self, name: &str, secrets: &[&str], labels: &[(&str, &str)]) {
        let secrets: BTreeSet<_> = secrets.iter().map(ToString::to_string).collect();
        let (id, labels) = (name.to_owned(), owned(labels));
        let service =
            Service { name: id.clone(), id, index: 1, labels, secrets, is_job: false, previous: None, update: None };
        self.0.lock().unwrap().services.insert(name.into(), (service, Labels::new()));
    }

    /// The update under way ends: well, or with a rollback to the labels of before.
    pub fn end(&self, name: &str, well: bool) {
        let mut inner = self.0.lock().unwrap();
        let (service, before) = inner.services.get_mut(name).unwrap();
        assert_eq!(service.update, Some(UpdateState::Updating), "nothing is under way");
        service.index += 1;
        service.update = Some(if well { UpdateState::Completed } else { UpdateState::RollbackCompleted });
        if !well {
            (service.labels, service.previous) = (before.clone(), None);
        }
    }

    /// A person changes the service; Swarm forgets how the last update ended.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut inner = self.0.lock().unwrap();
        let (service, before) = inner.services.get_mut(name).unwrap();
        *before = service.labels.clone();
        (service.index, service.update, service.previous) = (service.index + 1, None, Some(before.clone()));
        change(service);
    }

    pub fn look(&self, name: &str) -> Service {
        self.0.lock().unwrap().services[name].0.clone()
    }

    pub fn labels_of_secret(&self, name: &str) -> Labels {
        self.0.lock().unwrap().secrets[name].labels.clone()
    }

    /// The labels with which tasks of the service were replaced, in order.
    pub fn replaced(&self, name: &str) -> Vec<Labels> {
        let inner = self.0.lock().unwrap();
        inner.replaced.iter().filter(|(service, _)| service == name).map(|(_, labels)| labels.clone()).collect()
    }

    pub fn remove(&self, name: &str) {
        self.0.lock().unwrap().services.remove(name);
    }

    /// Writes since the last call of this.
    pub fn writes(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }

    fn write(&self, id: &str, effect: impl FnOnce(&mut Inner) -> Option<Written>) -> Result<Written, RuntimeError> {
        let mut inner = self.0.lock().unwrap();
        if inner.refused.contains(id) {
            return Err(RuntimeError::Refused { doing: "write it".into(), answer: "not this one".into() });
        }
        let lost = inner.lose.map(|(left, after)| (left == 0).then_some(after));
        inner.lose = inner.lose.map(|(left, after)| (left.saturating_sub(1), after));
        let gone = || Err(RuntimeError::Unreachable("the process is gone".into()));
        if lost == Some(Some(false)) {
            return gone();
        }
        if inner.contended {
            return Ok(Written::Outdated);
        }
        let written = effect(&mut inner).unwrap_or(Written::Outdated);
        inner.writes += usize::from(written == Written::Yes);
        if lost == Some(Some(true)) { gone() } else { Ok(written) }
    }
}

#[async_trait]
impl Swarm for ScriptedSwarm {
    async fn role(&self) -> Result<Role, RuntimeError> {
        let inner = self.0.lock().unwrap();
        if !inner.leads {
            return Ok(Role::Follower);
        }
        let services = inner.services.values().map(|(service, _)| service.clone()).collect();
        Ok(Role::Leader(SwarmView { services, secrets: inner.secrets.values().cloned().collect() }))
    }

    async fn update_service(
        &self,
        id: &str,
        index: u64,
        labels: &BTreeMap<String, Option<String>>,
        replace: bool,
    ) -> Result<Written, RuntimeError> {
        self.write(id, |inner| {
            let (service, before) = inner.services.get_mut(id).filter(|(service, _)| service.index == index)?;
            assert_ne!(service.update, Some(UpdateState::Updating), "one update at a time");
            *before = service.labels.clone();
            service.previous = Some(before.clone());
            for (name, value) in labels {
                match value {
                    Some(value) => drop(service.labels.insert(name.clone(), value.clone())),
                    None => drop(service.labels.remove(name)),
                }
            }
            (service.index, service.update) = (service.index + 1, replace.then_some(UpdateState::Updating));
            let labels = service.labels.clone();
            inner.replaced.extend(replace.then_some((id.to_owned(), labels)));
            Some(Written::Yes)
        })
    }

    async fn label_secret(&self, id: &str, index: u64, name: &str, value: &str) -> Result<Written, RuntimeError> {
        self.write(id, |inner| {
            let secret = inner.secrets.get_mut(id).filter(|secret| secret.index == index)?;
            secret.index += 1;
            secret.labels.insert(name.into(), value.into());
            Some(Written::Yes)
        })
    }
}

fn owned(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}
