//! What `docker volume inspect` shows of a volume. Never waits for work on it, and asks no provider.

use super::{Driver, DriverError, Outcome, Seen, User, Volume, lock, rfc3339};
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::SystemTime};

/// A volume, as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub state: State,
    /// Grows with each set of files that was published; 0 before the first mount.
    pub generation: u64,
    /// The provider's version behind each file.
    pub versions: BTreeMap<String, String>,
    /// When the provider last confirmed the oldest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<String>,
    /// When the files that it shows were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_check: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often it is mounted.
    pub mounts: u32,
    /// Who mounts it, as far as the engine has told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<User>,
    /// What became of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rotation: Option<Outcome>,
}

/// A volume's status, with what the driver's protocol shows beside it.
#[derive(Clone, Debug)]
pub struct Inspected {
    pub mountpoint: Option<PathBuf>,
    pub created: String,
    pub status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not mounted.
    Idle,
    /// Mounted, and the last checks succeeded.
    Current,
    /// Mounted with the last known good files: the last check or refresh failed, or what came after them was taken back.
    Stale,
    /// The last mount failed.
    Failed,
    /// Containers have it mounted, but from an earlier process, and it could not be taken back.
    Orphaned,
}

/// What a volume's state depends on, of what was seen of it.
#[derive(Clone, Copy)]
struct Trouble {
    is_live: bool,
    mounts: u32,
    has_error: bool,
    left_behind: bool,
}

// === impl Trouble ===

impl Trouble {
    fn of(seen: &Seen) -> Self {
        Self {
            is_live: seen.live.is_some(),
            mounts: seen.mounts,
            has_error: seen.error.is_some(),
            left_behind: seen.left_behind.is_some(),
        }
    }
}

// === impl State ===

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Current => "current",
            Self::Stale => "stale",
            Self::Failed => "failed",
            Self::Orphaned => "orphaned",
        }
    }
}

impl Driver {
    /// What there is to see of a volume.
    pub fn inspect(&self, name: &str) -> Result<Inspected, DriverError> {
        let volume = self.get(name)?;
        let (mountpoint, status) = (volume.mountpoint(self), self.status(&volume));
        Ok(Inspected { mountpoint, created: volume.created.clone(), status })
    }

    pub(super) fn status(&self, volume: &Arc<Volume>) -> Status {
        let seen = lock(&volume.seen).clone();
        let mut status = Status {
            state: self.state_with(volume, Trouble::of(&seen)),
            generation: seen.generation,
            versions: BTreeMap::new(),
            checked: None,
            rotated: None,
            next_check: None,
            error: volume.spec.as_ref().err().cloned(),
            mounts: seen.mounts,
            containers: seen.users.clone(),
            last_rotation: seen.outcome.clone(),
        };
        match &seen.live {
            Some(live) => {
                status.generation = live.generation;
                status.versions = live.files.clone();
                status.rotated = Some(rfc3339(live.rotated));
                self.add_checks(volume, &seen, &mut status);
            }
            None => {
                status.error = status.error.or(seen.error);
                if status.state == State::Orphaned && status.error.is_none() {
                    status.error = Some(ORPHANED.into());
                }
            }
        }
        status
    }

    /// The state alone, and the generation that is shown: without the copies and texts of [`Driver::status`].
    pub(super) fn state(&self, volume: &Volume) -> (State, u64) {
        let seen = lock(&volume.seen);
        let generation = seen.live.as_ref().map_or(seen.generation, |live| live.generation);
        let trouble = Trouble::of(&seen);
        // The files may be at work, and nobody who only looks is kept waiting for them by this.
        drop(seen);
        (self.state_with(volume, trouble), generation)
    }

    fn state_with(&self, volume: &Volume, trouble: Trouble) -> State {
        if !trouble.is_live {
            return match (trouble.mounts, trouble.has_error || volume.spec.is_err()) {
                (1.., _) => State::Orphaned,
                (0, true) => State::Failed,
                (0, false) => State::Idle,
            };
        }
        // What was taken back is not what the provider has.
        let refusing = || lock(&volume.projection).as_ref().is_some_and(|projection| !projection.refused().is_empty());
        let unchecked = || volume.secrets().iter().any(|id| self.parts.cache.known(id).error.is_some());
        match trouble.has_error || trouble.left_behind || unchecked() || refusing() {
            true => State::Stale,
            false => State::Current,
        }
    }

    /// When providers last confirmed the oldest of the versions that the volume shows; `None` if one has not yet.
    pub(super) fn confirmed(&self, volume: &Volume) -> Option<SystemTime> {
        let confirmed = volume.secrets().into_iter().map(|id| self.parts.cache.known(&id).confirmed);
        let oldest = confirmed.collect::<Option<Vec<_>>>()?.into_iter().min()?;
        Some(SystemTime::now() - oldest.elapsed())
    }

    fn add_checks(&self, volume: &Volume, seen: &Seen, status: &mut Status) {
        let mut errors = Vec::new();
        for id in volume.secrets() {
            let known = self.parts.cache.known(&id);
            if let Some(error) = known.error {
                errors.push(format!("`{id}`: {error}"));
            }
            let next = self.users.next(&id).map(rfc3339);
            status.next_check = match (status.next_check.take(), next) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        status.checked = self.confirmed(volume).map(rfc3339);
        if errors.is_empty() {
            errors.extend(seen.error.clone());
        }
        errors.extend(seen.left_behind.clone());
        // That containers were not told yet is told too, but the files are current.
        errors.extend(seen.explained.clone());
        status.error = (!errors.is_empty()).then(|| errors.join("; "));
    }
}

const ORPHANED: &str = "its containers still have the files that an earlier process mounted, which are out of reach of \
    this one and are not refreshed any more: restart the containers";
