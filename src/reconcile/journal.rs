//! What rollouts are doing and did, so that the next process finishes or undoes what this one could not.
//!
//! One file for each volume that had a rollout, `<dir>/<volume>.json`, replaced by atomic rename.
//!
//! # Guarantees
//! - What was written is on disk when [`Journal::write`] returns; a crash leaves the old log or the new one.
//! - A file that cannot be read is set aside as `<volume>.json.unreadable-<n>` and reported; the others are loaded.
//!
//! # Caveats
//! - A rollout whose file was set aside is forgotten: what it left must be cleaned up by a person.

mod log;

use crate::volume::VolumeName;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

pub use log::{Baseline, Course, Decision, Entry, Log, Rollout, Step, Told, Trial};

/// The logs, in memory as they are on disk.
pub struct Journal {
    dir: PathBuf,
    logs: Mutex<BTreeMap<VolumeName, Log>>,
    #[cfg(test)]
    gate: Option<std::sync::Arc<crate::docker::scripted::Gate>>,
}

// === impl Journal ===

impl Journal {
    /// Opens the folder, makes it if it is missing, and reads every log.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir)?;
        let mut logs = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(".new") {
                // Left by a crash in the middle of a write: the log itself is untouched.
                fs::remove_file(&path)?;
            } else if let Some(name) = name.strip_suffix(".json") {
                match read(&path, name) {
                    Ok(log) => drop(logs.insert(log.volume.clone(), log)),
                    Err(reason) => set_aside(&path, &reason)?,
                }
            }
        }
        Ok(Self {
            dir,
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
        let (path, text) = (self.path(volume), serde_json::to_vec(&log)?);
        // Waits for the disk, and so where that keeps nobody else waiting.
        let saved = tokio::task::spawn_blocking(move || replace(&path, &text));
        saved.await.map_err(io::Error::other)??;
        self.lock().insert(volume.clone(), log.clone());
        #[cfg(test)]
        self.pass("written").await;
        Ok(log)
    }

    /// The volume's log, if it has one.
    pub fn read(&self, volume: &VolumeName) -> Option<Log> {
        self.lock().get(volume).cloned()
    }

    /// Every log.
    pub fn all(&self) -> Vec<Log> {
        self.lock().values().cloned().collect()
    }

    /// Whether something of the volume is to be finished.
    pub fn is_open(&self, volume: &VolumeName) -> bool {
        self.lock().get(volume).is_some_and(is_open)
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
        match fs::remove_file(self.path(volume)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, volume: &VolumeName) -> PathBuf {
        self.dir.join(format!("{volume}.json"))
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

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("json.new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn read(path: &Path, name: &str) -> Result<Log, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    if format != Some(log::FORMAT.into()) {
        return Err(format!("its format is {format:?}, and this version reads {}", log::FORMAT));
    }
    let log: Log = serde_json::from_value(value).map_err(|error| error.to_string())?;
    match log.volume.as_str() == name {
        true => Ok(log),
        false => Err(format!("it is the log of `{}`", log.volume)),
    }
}

fn set_aside(path: &Path, reason: &str) -> io::Result<()> {
    let mut file = path.to_owned();
    for n in 1.. {
        file = path.with_extension(format!("json.unreadable-{n}"));
        if !file.try_exists()? {
            break;
        }
    }
    fs::rename(path, &file)?;
    tracing::error!(file = %file.display(), reason, "a rollout's journal cannot be read: set aside");
    Ok(())
}

#[cfg(test)]
mod tests;
