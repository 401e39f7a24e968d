//! The engine and its containers, as the reconcile loop speaks of them: what is observed, and what may be done.
//!
//! # Guarantees
//! - No call is made in the way of a Mount: the engine holds the container's lock there, and at boot its API does not answer yet.
//! - Nothing here keeps or shows what a container prints, but for the first bytes of a command's stderr, which a person asked for.
//!
//! # Assumptions
//! - An engine that is not there, or is starting, is normal: every call may fail with [`RuntimeError::Unreachable`], and
//!   succeed later.

mod call;
pub mod client;
mod engine;
mod error;
mod events;
mod exclusive;
mod exec;
mod inspected;
mod membership;
mod replica;
#[cfg(test)]
pub(crate) mod scripted;
mod signal;
mod swarm;
mod wire;

use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};
use tokio::sync::mpsc;

pub use engine::Engine;
pub use error::RuntimeError;
pub use swarm::{Labels, Role, Service, Swarm, SwarmSecret, SwarmView, UpdateState, Written};

/// A container that mounts volumes, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// The full ID.
    pub id: String,
    /// Without the leading `/`.
    pub name: String,
    /// The digest of its image.
    pub image: String,
    pub labels: BTreeMap<String, String>,
    pub state: State,
    /// `None` where the container has no health check.
    pub health: Option<Health>,
    /// When its first process was last started; `None` if it never was.
    pub started: Option<SystemTime>,
    /// How often the engine has restarted it by itself since a person or dso started it.
    pub restarts: u64,
    pub exit_code: i64,
    /// Why its last start failed; empty if it did not.
    pub error: String,
    /// Whether the engine starts it again by itself: any restart policy but `no`.
    pub restarted_by_engine: bool,
    /// `--rm`: it is gone once it has stopped.
    pub auto_remove: bool,
    /// The first process, as the host numbers it; 0 if it does not run.
    pub pid: u32,
    pub mounts: Vec<VolumeMount>,
    /// Why a second one of it cannot live beside it, in words for a person; `None` where it can.
    pub exclusive: Option<String>,
    /// Containers that share its namespaces (`network_mode: container:…`) by ID: it cannot be replaced without them.
    pub dependents: Vec<String>,
}

/// A volume of any driver in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    pub volume: String,
    /// Where the container has it.
    pub destination: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Paused,
    /// Between an exit and the engine's next start of it.
    Restarting,
    Removing,
    Exited,
    Dead,
}

/// What the engine's health checks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub status: HealthStatus,
    /// The last ones that have ended, oldest first. The engine keeps five.
    pub checks: Vec<HealthCheck>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

/// One run of a health check. Its output may be anything, and is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub began: SystemTime,
    pub passed: bool,
}

/// How a command in a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    pub exit_code: i64,
    /// The first [`Executed::STDERR_MAX`] bytes, as text.
    pub stderr: String,
}

/// What the engine has told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The stream of events has begun, anew after it had been cut: whatever came before may be outdated. Look at everything.
    Connected,
    /// The engine is out of reach; it is asked again and again.
    Lost,
    /// Something happened to the container with this ID: look at it.
    Container(String),
    /// A container mounted or unmounted the volume.
    Volume(String),
}

/// The edge to the engine. Containers are named by ID.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + 'static {
    /// Every container, in whatever state, that mounts one of `volumes`.
    async fn containers(&self, volumes: &BTreeSet<String>) -> Result<Vec<Container>, RuntimeError>;

    /// One container by ID or name; `None` if there is none.
    async fn inspect(&self, container: &str) -> Result<Option<Container>, RuntimeError>;

    /// Sends a signal to the first process. Unlike the engine's own call for it, this leaves the restart policy as it is.
    async fn signal(&self, id: &str, signal: &str) -> Result<(), RuntimeError>;

    /// Runs a command in the container, as the container's user, and waits for its end, at most for `limit`.
    async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<Executed, RuntimeError>;

    /// Stops it as the container wants to be stopped, and starts it again.
    async fn restart(&self, id: &str) -> Result<(), RuntimeError>;

    /// Starts it; one that runs already is left as it is.
    async fn start(&self, id: &str) -> Result<(), RuntimeError>;

    /// Stops it as it wants to be stopped; one that does not run is left as it is.
    async fn stop(&self, id: &str) -> Result<(), RuntimeError>;

    /// Gives it another name.
    async fn rename(&self, id: &str, name: &str) -> Result<(), RuntimeError>;

    /// Removes it, and kills it first if it runs. Its volumes stay, the anonymous ones too. One that is gone is removed already.
    async fn remove(&self, id: &str) -> Result<(), RuntimeError>;

    /// Creates, without starting it, a container equal to `id` in everything that the API lets one set, but for its `name`
    /// and the `labels` added to those of `id`. Where `aliased` is false it does not answer to the aliases of `id` on
    /// its networks until [`ContainerRuntime::take_aliases`]. Returns its ID.
    async fn replicate(
        &self,
        id: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
        aliased: bool,
    ) -> Result<String, RuntimeError>;

    /// Gives the running container `id` the aliases of `from` on their networks, and `name` as one more. Does nothing where
    /// there are none to give.
    async fn take_aliases(&self, id: &str, from: &str, name: &str) -> Result<(), RuntimeError>;

    /// Tells `to` of everything that concerns containers with volumes, until `to` is closed. Never ends by itself: where
    /// the engine is out of reach it is tried again, less and less often.
    async fn watch(&self, to: mpsc::Sender<Observed>);
}

// === impl Container ===

impl Container {
    /// Whether it has processes now, or will have by itself.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Running | State::Paused | State::Restarting)
    }

    pub fn mounts(&self, volume: &str) -> bool {
        self.mounts.iter().any(|mount| mount.volume == volume)
    }
}

// === impl Executed ===

impl Executed {
    pub const STDERR_MAX: usize = 256;
}
