//! Who was given which secret: one line of JSON for each delivery of a secret to a container.
//!
//! A secret is delivered when a volume is mounted, before it is known for which container: the engine's word of that follows. A
//! mount waits here for its container, for a bounded time, and is then recorded without one, which the record says. What Swarm asks
//! for is recorded at once, with the service and the task that it names.
//!
//! # Guarantees
//! - No value: references, versions, names.
//! - What `DSO_LOG` lets through makes no difference to it.
//!
//! # Caveats
//! - Of two containers that start within the same moment with the same volume, the records may have each other's mount ID; both
//!   have been given the same.
//! - Mounts that wait are in memory alone: of a process that is killed (SIGKILL, no memory left) or that crashes, those of the last
//!   moments have no record. One that is told to end records them first.

mod log_file;

use log_file::LogFile;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// How long a mount waits for the engine's word of its container.
pub const WORD: Duration = Duration::from_secs(10);
/// Mounts that wait; the oldest is recorded without its container when there are more.
const WAITING: usize = 1024;
/// How long it waits while the engine's containers are not known: after the start, and while the engine is out of reach.
const UNHEARD: Duration = Duration::from_secs(300);
/// A container's start is noted by the engine's clock, after the mount.
const BLUR: Duration = Duration::from_secs(1);

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// stdout, which the engine puts into its own log: the journal, on most machines.
    Log,
    /// `audit/audit.jsonl` in the plugin's data folder.
    File,
}

/// Does nothing until it is opened.
#[derive(Default)]
pub struct Audit {
    state: Mutex<State>,
}

/// Secrets that were given to a container, or were not because of a failure.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub volume: String,
    pub generation: u64,
    pub cause: &'static str,
    /// The engine's ID of the mount.
    pub mount: Option<String>,
    pub secrets: Vec<Delivered>,
    /// The class of the failure, if it failed.
    pub failure: Option<&'static str>,
}

/// A Swarm secret that was given to a task, or was not because of a failure.
#[derive(Clone, Debug, Default)]
pub struct Handed {
    pub task: Task,
    pub secrets: Vec<Delivered>,
    /// The class of the failure, if it failed.
    pub failure: Option<&'static str>,
}

/// For whom Swarm asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Task {
    pub swarm_secret: String,
    pub service: String,
    pub task: String,
}

/// One secret, and the files that are made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivered {
    pub secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whom the provider's settings make dso there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    pub files: Vec<String>,
}

/// A container, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recipient {
    pub name: String,
    pub id: String,
    /// The digest of its image.
    pub image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose_project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose_service: Option<String>,
    #[serde(skip)]
    pub started: Option<SystemTime>,
}

type Sink = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

#[derive(Default)]
struct State {
    sink: Option<Sink>,
    waiting: VecDeque<Mounted>,
    /// Starts of containers that have a record already, by volume and container.
    recorded: BTreeMap<(String, String), SystemTime>,
    /// Whether all of the engine's containers were looked at, and its events have been followed since.
    is_heard: bool,
}

struct Mounted {
    delivery: Delivery,
    at: SystemTime,
    since: Instant,
}

/// What a delivery is of.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
enum Of<'a> {
    Volume {
        volume: &'a str,
        generation: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        mount: Option<&'a str>,
    },
    Task(&'a Task),
}

#[derive(Serialize)]
struct Record<'a> {
    audit: &'static str,
    time: String,
    #[serde(flatten)]
    of: Of<'a>,
    cause: &'static str,
    #[serde(flatten)]
    secret: &'a Delivered,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    container: Option<&'a Recipient>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

// === impl Audit ===

impl Audit {
    /// Records from now on; `data` is the plugin's data folder.
    pub fn open(&self, to: Destination, data: &Path) -> io::Result<()> {
        let sink: Sink = match to {
            Destination::Log => Box::new(|line| {
                let mut out = io::stdout().lock();
                writeln!(out, "{line}")?;
                out.flush()
            }),
            Destination::File => {
                let mut log = LogFile::open(data.join("audit"))?;
                Box::new(move |line| log.write(line))
            }
        };
        self.record_to(sink);
        Ok(())
    }

    pub fn record_to(&self, sink: Sink) {
        self.lock().sink = Some(sink);
    }

    pub fn is_open(&self) -> bool {
        self.lock().sink.is_some()
    }

    /// A volume was mounted, for a container that is not known yet.
    pub fn mounted(&self, delivery: Delivery) {
        let mut state = self.lock();
        if state.sink.is_none() {
            return;
        }
        if state.waiting.len() == WAITING
            && let Some(oldest) = state.waiting.pop_front()
        {
            state.write(&oldest.delivery, oldest.at, None, Some("too many mounts waited for the engine's word"));
        }
        state.waiting.push_back(Mounted { delivery, at: SystemTime::now(), since: Instant::now() });
    }

    /// A mount failed: there is no container to wait for.
    pub fn failed(&self, delivery: &Delivery) {
        self.lock().write(delivery, SystemTime::now(), None, None);
    }

    /// Swarm has asked for a task.
    pub fn handed(&self, handed: &Handed) {
        let (mut state, now) = (self.lock(), SystemTime::now());
        for secret in &handed.secrets {
            state.write_one(Of::Task(&handed.task), "swarm", now, secret, (handed.failure, None, None));
        }
    }

    /// Containers that have the volume were given this while they run.
    pub fn changed(&self, delivery: &Delivery, recipients: &[Recipient]) {
        let (mut state, now) = (self.lock(), SystemTime::now());
        for recipient in recipients {
            state.write(delivery, now, Some(recipient), None);
        }
        if recipients.is_empty() {
            state.write(delivery, now, None, Some("the engine has not told of a container that has the volume"));
        }
    }

    /// These containers have the volume, as the engine says: those that began after a mount are whom it was for.
    pub fn seen(&self, volume: &str, recipients: &[Recipient]) {
        let mut state = self.lock();
        let mut started: Vec<_> = recipients.iter().filter_map(|one| Some((one.started?, one))).collect();
        started.sort_by_key(|(at, _)| *at);
        for (at, recipient) in started {
            let key = (volume.to_owned(), recipient.id.clone());
            let is_recorded = state.recorded.get(&key).is_some_and(|recorded| *recorded >= at);
            let is_for = |mounted: &Mounted| mounted.delivery.volume == volume && mounted.at <= at + BLUR;
            let found = state.waiting.iter().position(is_for).filter(|_| !is_recorded);
            let Some(mounted) = found.and_then(|found| state.waiting.remove(found)) else { continue };
            state.recorded.insert(key, at);
            state.write(&mounted.delivery, mounted.at, Some(recipient), None);
        }
    }

    /// Forgets containers that are not there any more.
    pub fn keep(&self, containers: &BTreeSet<String>) {
        self.lock().recorded.retain(|(_, id), _| containers.contains(id));
    }

    /// Whether the engine's containers are known: all were looked at, or the stream of its events was cut.
    pub fn heard(&self, is_heard: bool) {
        self.lock().is_heard = is_heard;
    }

    /// Records what has waited long enough.
    pub fn expire(&self) {
        let mut state = self.lock();
        let (limit, reason) = match state.is_heard {
            true => (WORD, "the engine has not told of its container within 10s"),
            false => (UNHEARD, "the engine was out of reach for 5m, and has not told of its container"),
        };
        state.give_up(limit, reason);
    }

    /// Records all that waits, at the end of the process.
    pub fn end(&self) {
        self.lock().give_up(Duration::ZERO, "the plugin ended first");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn give_up(&mut self, limit: Duration, reason: &str) {
        while self.waiting.front().is_some_and(|oldest| oldest.since.elapsed() >= limit) {
            let Some(oldest) = self.waiting.pop_front() else { return };
            self.write(&oldest.delivery, oldest.at, None, Some(reason));
        }
    }

    fn write(&mut self, of: &Delivery, at: SystemTime, container: Option<&Recipient>, reason: Option<&str>) {
        let volume = Of::Volume { volume: &of.volume, generation: of.generation, mount: of.mount.as_deref() };
        for secret in &of.secrets {
            self.write_one(volume, of.cause, at, secret, (of.failure, container, reason));
        }
    }

    fn write_one(
        &mut self,
        of: Of<'_>,
        cause: &'static str,
        at: SystemTime,
        secret: &Delivered,
        (class, container, reason): (Option<&'static str>, Option<&Recipient>, Option<&str>),
    ) {
        let Some(sink) = &mut self.sink else { return };
        let record = Record {
            audit: "delivery",
            time: humantime::format_rfc3339_millis(at).to_string(),
            of,
            cause,
            secret,
            result: if class.is_some() { "failed" } else { "delivered" },
            class,
            container,
            reason,
        };
        if let Err(error) = sink(&serde_json::to_string(&record).unwrap_or_default()) {
            tracing::error!(secret = secret.secret, %error, "a delivery could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests;
