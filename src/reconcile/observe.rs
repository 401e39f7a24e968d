//! Keeps the table of containers as the engine has them, and does what only the sight of them asks for: counts of mounts are
//! corrected, and containers that could not start while a provider was down are started.
//!
//! An event names a container or a volume; what is true is then asked of the engine, so that events may come twice, late, or
//! not at all where a list came after them.

use super::{Key, recipients, rollout::Rollouts, table::Table};
use crate::{
    docker::{Container, ContainerRuntime, HealthStatus, RuntimeError, State},
    driver::{Driver, InUse, User},
    volume::VolumeName,
};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout},
};

/// How often everything is looked at although no event told of anything.
pub(super) const RESYNC: Duration = Duration::from_secs(600);
/// Pause before the engine is asked again for what it could not tell.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How soon a provider is asked again on behalf of a container that waits for it, if its volume does not say how often.
const WAITING: Duration = Duration::from_secs(30);
/// How the engine begins what it notes of a start that a volume driver refused: 20.10 to 28.5, moby's daemon/volumes_unix.go.
const MOUNT_FAILED: &str = "error while mounting volume";

/// What to do next, and how soon.
pub(super) type Then = Vec<(Key, Duration)>;

/// Looks at the engine on behalf of the loop.
pub(super) struct Observer {
    driver: Arc<Driver>,
    runtime: Arc<dyn ContainerRuntime>,
    table: Arc<Table>,
    rollouts: Arc<Rollouts>,
    /// Held from a question to the noting of its answer: an old answer must not follow a new one.
    asking: AsyncMutex<()>,
    /// Faults of labels that were told, by container.
    told: Mutex<HashSet<(String, String)>>,
}

// === impl Observer ===

impl Observer {
    pub fn new(
        driver: Arc<Driver>,
        runtime: Arc<dyn ContainerRuntime>,
        table: Arc<Table>,
        rollouts: Arc<Rollouts>,
    ) -> Self {
        Self { driver, runtime, table, rollouts, asking: AsyncMutex::default(), told: Mutex::default() }
    }

    /// The stream of events was cut: until the next list nothing is known for sure.
    pub fn lost(&self) {
        self.table.forget();
        self.driver.audit().heard(false);
        self.driver.note_engine(Err("the stream of its events was cut".into()));
    }

    /// Looks at every container of every volume.
    pub async fn survey(&self) -> (Option<Duration>, Then) {
        let names = self.driver.names();
        let asking = self.asking.lock().await;
        let listed = Instant::now();
        let wanted = names.iter().map(ToString::to_string).collect();
        let containers = match self.runtime.containers(&wanted).await {
            Ok(containers) => containers,
            Err(error) => {
                self.driver.note_engine(Err(error.to_string()));
                return (Some(again_after(&error)), Vec::new());
            }
        };
        self.driver.note_engine(Ok(()));
        self.table.set(containers.clone());
        self.driver.audit().keep(&containers.iter().map(|container| container.id.clone()).collect());
        drop(asking);
        let is_there = |id: &String| containers.iter().any(|container| container.id == *id);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| is_there(id));
        let mut then = Vec::new();
        if names.iter().any(|name| self.driver.is_left_behind(name)) {
            // One look for all of them.
            self.driver.take_back(None).await;
        }
        names.iter().for_each(|name| self.note(name));
        self.driver.audit().heard(true);
        for name in &names {
            then.extend(self.correct(name, listed).await);
        }
        then.extend(containers.iter().filter_map(|container| self.waiting(container)));
        then.extend(self.rollouts.unfinished().into_iter().map(|name| (Key::Volume(name), Duration::ZERO)));
        (Some(RESYNC), then)
    }

    /// Looks at the container with this ID.
    pub async fn look(&self, id: &str) -> (Option<Duration>, Then) {
        let asking = self.asking.lock().await;
        let before = self.table.get(id);
        let now = match self.runtime.inspect(id).await {
            Ok(now) => now,
            Err(error) => return (self.ask_again(&error), Vec::new()),
        };
        match &now {
            Some(container) => self.table.put(container.clone()),
            None => self.table.remove(id),
        }
        drop(asking);
        let mut then: Then = now.iter().filter_map(|container| self.waiting(container)).collect();
        let volumes: BTreeSet<_> = before.iter().chain(&now).flat_map(|container| self.volumes_of(container)).collect();
        for name in volumes {
            self.take_back(&name).await;
            self.note(&name);
            if let Some(delay) = self.driver.correctable(&name, self.in_use(&name)) {
                then.push((Key::Users(name), delay + Duration::from_secs(1)));
            }
        }
        if now.is_none() {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).retain(|(told, _)| told != id);
        }
        (None, then)
    }

    /// Looks at the containers of one volume.
    pub async fn users(&self, name: &VolumeName) -> (Option<Duration>, Then) {
        let asking = self.asking.lock().await;
        let listed = Instant::now();
        let found = match self.runtime.containers(&BTreeSet::from([name.to_string()])).await {
            Ok(found) => found,
            Err(error) => return (self.ask_again(&error), Vec::new()),
        };
        let gone = self.table.of(name.as_str()).into_iter().filter(|old| !found.iter().any(|new| new.id == old.id));
        gone.for_each(|old| self.table.remove(&old.id));
        let then = found.iter().filter_map(|container| self.waiting(container)).collect::<Then>();
        found.into_iter().for_each(|container| self.table.put(container));
        drop(asking);
        self.note(name);
        (None, then.into_iter().chain(self.correct(name, listed).await).collect())
    }

    /// Starts a container that waits for its volumes, once they could be mounted.
    pub async fn start(&self, id: &str) -> (Option<Duration>, Then) {
        let container = match self.runtime.inspect(id).await {
            Ok(Some(container)) if self.waits_for_us(&container) => container,
            // Somebody started it, or it is gone.
            Ok(_) => return (None, Vec::new()),
            Err(error) => return (Some(again_after(&error)), Vec::new()),
        };
        let volumes = self.volumes_of(&container);
        let interval = volumes.iter().filter_map(|name| self.driver.interval_of(name)).min().unwrap_or(WAITING);
        let interval = interval.min(WAITING);
        for name in &volumes {
            match timeout(interval, self.driver.probe(name)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(container = container.name, volume = %name, %error, "cannot be started yet");
                    return (Some(interval), Vec::new());
                }
                // A question that was put before the provider came back may never be answered.
                Err(_) => return (Some(Duration::ZERO), Vec::new()),
            }
        }
        match self.runtime.start(id).await {
            Ok(()) => {
                tracing::info!(
                    container = container.name,
                    cause = "its provider is back",
                    "started: it could not be when it was asked for"
                );
                (None, Vec::new())
            }
            Err(error) => {
                tracing::error!(container = container.name, %error, "cannot be started, although its secrets can be read");
                (Some(interval), Vec::new())
            }
        }
    }

    /// Makes what was seen of a volume's containers a part of its status, and tells once of labels that are wrong.
    fn note(&self, name: &VolumeName) {
        let mut users = Vec::new();
        for container in self.table.of(name.as_str()) {
            let (action, fault) = self.rollouts.describe(name, &container);
            if let Some(fault) = &fault {
                let first = self
                    .told
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert((container.id.clone(), fault.clone()));
                if first {
                    tracing::error!(volume = %name, container = container.name, fault, "nothing will be done to this container after a change");
                    let fields = json!({"container": container.name, "error": fault});
                    self.driver.events().tell("label_fault", Some(name.as_str()), fields);
                }
            }
            for mount in container.mounts.iter().filter(|mount| mount.volume == name.as_str()) {
                users.push(User {
                    name: container.name.clone(),
                    id: container.id.chars().take(12).collect(),
                    state: state_of(&container).to_owned(),
                    destination: mount.destination.clone(),
                    on_rotate: action.to_string(),
                    fault: fault.clone(),
                });
            }
        }
        users.sort_by(|a, b| (&a.name, &a.destination).cmp(&(&b.name, &b.destination)));
        self.driver.set_users(name, users);
        recipients::seen(&self.driver, &self.table, name);
    }

    /// Something came or went: what was out of reach may be in reach now, or nobody's any more.
    async fn take_back(&self, name: &VolumeName) {
        if self.driver.is_left_behind(name) {
            self.driver.take_back(Some(name)).await;
        }
    }

    async fn correct(&self, name: &VolumeName, listed: Instant) -> Option<(Key, Duration)> {
        let in_use = self.in_use(name);
        if in_use != InUse::Up
            && !self.rollouts.is_unfinished(name)
            && let Err(error) = self.driver.let_go(name).await
        {
            // Kept by a rollout whose journal was lost.
            tracing::error!(volume = %name, %error, "cannot take away what a rollout kept");
        }
        self.driver.correct(name, in_use, listed).await;
        let delay = self.driver.correctable(name, in_use)?;
        Some((Key::Users(name.clone()), delay + Duration::from_secs(1)))
    }

    /// Where its events are lost too, a list of everything follows as soon as the engine is back. Otherwise nobody would tell again
    /// of what it could not be asked for.
    fn ask_again(&self, error: &RuntimeError) -> Option<Duration> {
        let is_told_again = matches!(error, RuntimeError::Unreachable(_)) && !self.table.is_complete();
        (!is_told_again).then(|| again_after(error))
    }

    fn in_use(&self, name: &VolumeName) -> InUse {
        let containers = self.table.of(name.as_str());
        match containers.iter().any(Container::is_up) {
            true => InUse::Up,
            false if containers.is_empty() => InUse::No,
            false => InUse::Down,
        }
    }

    fn waiting(&self, container: &Container) -> Option<(Key, Duration)> {
        self.waits_for_us(container).then(|| (Key::Start(container.id.clone()), Duration::ZERO))
    }

    /// Another plugin's volumes are for that one to wait for.
    fn waits_for_us(&self, container: &Container) -> bool {
        is_waiting(container) && !self.volumes_of(container).is_empty()
    }

    fn volumes_of(&self, container: &Container) -> Vec<VolumeName> {
        let names = self.driver.names();
        let mounted = container.mounts.iter().filter_map(|mount| mount.volume.parse().ok());
        mounted.filter(|name| names.contains(name)).collect()
    }
}

/// Whether it ran once, would be kept running by the engine, and could not be started for a volume of ours. One that a
/// person has stopped has no failed start to its name.
fn is_waiting(container: &Container) -> bool {
    container.restarted_by_engine
        && container.started.is_some()
        && matches!(container.state, State::Created | State::Exited)
        && container.error.contains(MOUNT_FAILED)
        && container.error.contains("dso: ")
}

fn state_of(container: &Container) -> &'static str {
    match (container.state, &container.health) {
        (State::Running, Some(health)) => match health.status {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        },
        (State::Running, None) => "running",
        (State::Created, _) => "created",
        (State::Paused, _) => "paused",
        (State::Restarting, _) => "restarting",
        (State::Removing, _) => "removing",
        (State::Exited, _) => "exited",
        (State::Dead, _) => "dead",
    }
}

fn again_after(error: &RuntimeError) -> Duration {
    tracing::debug!(%error, "the engine does not tell of its containers");
    ASK_AGAIN
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
