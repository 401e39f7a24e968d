//! What rollouts are doing and did, so that the next process finishes or undoes what this one could not.
//!
//! One file for each volume that had a rollout; the files are those of [`crate::volume::records`].
//!
//! # Guarantees
//! - What was written is on disk when [`Journal::write`] returns.
//!
//! # Caveats
//! - A rollout whose file was set aside is forgotten: what it left must be cleaned up by a person.

mod log;

use crate::volume::{VolumeName, records::Records};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

pub use log::{Baseline, Course, Decision, Entry, Log, Rollout, Step, Told, Trial};

/// The logs, in memory as they are on disk.
pub struct Journal {
    records: Records,
    logs: Mutex<BTreeMap<VolumeName, Log>>,
    #[cfg(test)]
    gate: Option<std::sync::Arc<crate::docker::scripted::Gate>>,
}

// === impl Journal ===

impl Journal {
    /// Opens the folder, makes it if it is missing, and reads every log.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let records = Records::open(dir)?;
        let (logs, aside) = records.load::<Log>()?;
        for file in aside {
            tracing::error!(file = %file.file.display(), reason = file.reason, "a rollout's journal cannot be read: set aside");
        }
        let logs = logs.into_iter().map(|log| (log.volume.clone(), log)).collect();
        Ok(Self {
            records,
            logs: Mutex::new(logs),
            #[cfg(test)]
            gate: None,
        })
    }

    /// Lets each write pass a gate before and after, for tests of a process that dies there.
    #[cfg(test)]
    pub fn guarded(mut self, gate: std::sync::Arc<crate::docker::scripted::Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Writes what `change` makes of the volume's log, and returns that. If it fails, the log is what it was.
    ///
    /// One at a time for one volume.
    pub async fn write(&self, volume: &VolumeName, change: impl FnOnce(&mut Log)) -> io::Result<Log> {
        let mut log = self.read(volume).unwrap_or_else(|| Log::new(volume.clone()));
        change(&mut log);
        #[cfg(test)]
        self.pass("write").await;
        let (records, name, text) = (self.records.clone(), volume.clone(), serde_json::to_vec(&log)?);
        // Waits for the disk, and so where that keeps nobody else waiting.
        let saved = tokio::task::spawn_blocking(move || records.replace(&name, &text, true));
        saved.await.map_err(io::Error::other)??;
        self.lock().insert(volume.clone(), log.clone());
        #[cfg(test)]
        self.pass("written").await;
        Ok(log)
    }

    /// The volume's log, if it has one.
    pub fn read(&self, volume: &VolumeName) -> Option<Log> {
        self.look(volume, Log::clone)
    }

    /// What `see` sees in the volume's log, if it has one. Copies nothing.
    pub fn look<T>(&self, volume: &VolumeName, see: impl FnOnce(&Log) -> T) -> Option<T> {
        self.lock().get(volume).map(see)
    }

    /// Whether a rollout of the volume has begun and is not ended.
    pub fn has_rollout(&self, volume: &VolumeName) -> bool {
        self.look(volume, |log| log.rollout.is_some()).unwrap_or_default()
    }

    /// Every log.
    pub fn all(&self) -> Vec<Log> {
        self.lock().values().cloned().collect()
    }

    /// Whether something of the volume is to be finished.
    pub fn is_open(&self, volume: &VolumeName) -> bool {
        self.look(volume, is_open).unwrap_or_default()
    }

    /// Volumes of which something is to be finished.
    pub fn open_ones(&self) -> Vec<VolumeName> {
        self.lock().values().filter(|log| is_open(log)).map(|log| log.volume.clone()).collect()
    }

    /// When a container was restarted, for whichever volume's sake.
    pub fn restarts_of(&self, container: &str) -> Vec<SystemTime> {
        self.lock().values().flat_map(|log| log.restarts.get(container).cloned().unwrap_or_default()).collect()
    }

    /// The volume, other than `than`, whose rollout has begun something with the container and not ended it.
    pub fn in_hand(&self, container: &str, than: &VolumeName) -> Option<VolumeName> {
        let begun = |entry: &Entry| entry.name == container && entry.is_begun();
        let logs = self.lock();
        let mut others = logs.values().filter(|log| log.volume != *than);
        let log = others.find(|log| log.rollout.iter().flat_map(|rollout| &rollout.entries).any(begun))?;
        Some(log.volume.clone())
    }

    /// Whether a rollout that is not ended made a container with these labels: it is nobody else's business yet.
    pub fn is_making(&self, rollout: Option<&String>, replaces: Option<&String>) -> bool {
        let (Some(id), Some(replaces)) = (rollout, replaces) else { return false };
        let logs = self.lock();
        let mut rollouts = logs.values().filter_map(|log| log.rollout.as_ref());
        rollouts.any(|rollout| {
            rollout.id == *id && rollout.entries.iter().any(|entry| entry.id == *replaces && entry.is_begun())
        })
    }

    /// Forgets a volume that is gone.
    pub fn forget(&self, volume: &VolumeName) -> io::Result<()> {
        if self.lock().remove(volume).is_none() {
            return Ok(());
        }
        self.records.remove(volume)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeName, Log>> {
        // Logs are replaced, never edited in part.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    async fn pass(&self, place: &str) {
        if let Some(gate) = &self.gate {
            gate.pass(&format!("journal {place}")).await;
        }
    }
}

fn is_open(log: &Log) -> bool {
    log.rollout.is_some() || log.trial.is_some()
}

#[cfg(test)]
mod tests;
