//! What a rotation does to a volume's files: they stay on trial until it is known what the containers make of them.
//!
//! A refresh publishes; whoever looks after the containers then says [`Driver::commit`] or [`Driver::revert`]. Until then the
//! last committed generation is kept, over any number of refreshes.

use super::{Driver, DriverError, Event, Seen, lock, mount};
use crate::{
    projection::{Projection, ProjectionError},
    volume::{MountId, OnRotate, VolumeName},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

/// The mount ID, and the run of an engine, by which a rotation keeps a volume mounted. The engine's own are hexadecimal.
pub(super) const KEEPER: &str = "dso-rotation";

/// What a mounted volume shows, for whoever looks after its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub generation: u64,
    pub published: SystemTime,
    /// The generation to go back to, while what is shown is on trial.
    pub base: Option<u64>,
    /// The versions' labels by secret.
    pub versions: BTreeMap<String, String>,
}

/// A container that mounts the volume, as `docker volume inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    pub name: String,
    pub id: String,
    /// `running`, `exited`, …, or what its health check says where it has one and runs.
    pub state: String,
    pub destination: String,
    /// What is done to it after a change.
    pub on_rotate: String,
    /// What is wrong with its labels, which are then taken as none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// What became of the last change of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// `verified`, `rolled back`, …
    pub result: String,
    pub cause: String,
    pub from: u64,
    pub to: u64,
    /// RFC 3339.
    pub at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Driver {
    /// The volumes that exist.
    pub fn names(&self) -> BTreeSet<VolumeName> {
        lock(&self.volumes).keys().cloned().collect()
    }

    pub fn has(&self, name: &VolumeName) -> bool {
        self.find(name).is_some()
    }

    /// What the volume shows; `None` while nobody has it mounted.
    pub fn shown(&self, name: &VolumeName) -> Option<Shown> {
        let volume = self.find(name)?;
        let projection = lock(&volume.projection);
        let projection = projection.as_ref()?;
        let versions = projection.versions().iter().map(|(id, version)| (id.clone(), version.label().to_owned()));
        Some(Shown {
            generation: projection.generation(),
            published: projection.rotated(),
            base: projection.base(),
            versions: versions.collect(),
        })
    }

    /// How often the engine has the volume mounted, if the last time was within `time`. It mounts before a container's process
    /// begins, and tells of the container after.
    pub fn mounts_within(&self, name: &VolumeName, time: Duration) -> u32 {
        let Some(volume) = self.find(name) else { return 0 };
        let seen = lock(&volume.seen);
        if seen.entered.is_some_and(|at| at.elapsed() < time) { seen.mounts } else { 0 }
    }

    /// What the volume's options say of its containers.
    pub fn on_rotate(&self, name: &VolumeName) -> Option<OnRotate> {
        self.find(name)?.spec.as_ref().ok()?.on_rotate.clone()
    }

    /// Whether a refresh would publish new files, as far as the last checks tell.
    pub fn is_behind(&self, name: &VolumeName) -> bool {
        self.find(name).is_some_and(|volume| volume.is_live() && !self.shows_newest(&volume))
    }

    /// What the volume shows is good.
    pub async fn commit(&self, name: &VolumeName) -> Result<(), DriverError> {
        self.on_shown(name, Projection::commit).await
    }

    /// Takes `base` for the generation to go back to: a process before this one published what came after it, and
    /// did not see it verified. False if it is not there any more.
    pub async fn hold(&self, name: &VolumeName, base: u64) -> Result<bool, DriverError> {
        self.on_shown(name, move |projection| projection.hold(base)).await
    }

    /// Shows the last committed generation again. What was shown is refused from now on, until a provider has another version
    /// or [`Driver::forgive`] is called; `why` is for the volume's status.
    pub async fn revert(&self, name: &VolumeName, why: &str) -> Result<Shown, DriverError> {
        self.on_shown(name, Projection::revert).await?;
        self.explain(name, Some(why.to_owned()));
        self.shown(name).ok_or_else(|| DriverError::NoSuchVolume { volume: name.to_string() })
    }

    /// Lets a person try again what was refused.
    pub async fn forgive(&self, name: &VolumeName) -> Result<(), DriverError> {
        self.explain(name, None);
        self.on_shown(name, Projection::forgive).await
    }

    /// Has the volume looked at now. With `force`, also what was taken back is tried again. When all that came of it has ended, an
    /// event `refreshed` says so to whoever listens for `request`, a number that [`crate::events::Events::request`] gave.
    pub async fn ask(&self, name: &str, force: bool, request: u64) -> Result<(), DriverError> {
        let volume = self.get(name)?;
        if force {
            self.forgive(&volume.name).await?;
        }
        // The queue has no check for what is never checked by itself (`refresh=0`).
        let unfollowed = volume.secrets().into_iter().filter(|id| self.users.interval(id).is_none());
        for id in unfollowed.filter(|_| volume.is_live()) {
            self.parts.cache.check(&[id]).await;
        }
        self.tell(Event::Forced(volume.name.clone(), request));
        Ok(())
    }

    /// Whether some of its containers have files that this process does not show.
    pub fn is_left_behind(&self, name: &VolumeName) -> bool {
        self.find(name).is_some_and(|volume| {
            let seen = lock(&volume.seen);
            seen.mounts > 0 && (seen.live.is_none() || seen.left_behind.is_some())
        })
    }

    /// Keeps the files of a mounted volume while its containers are stopped and started, until [`Driver::let_go`]: with
    /// the last unmount the generation to go back to would be gone. False if nobody has the volume mounted.
    pub async fn keep(&self, name: &VolumeName) -> Result<bool, DriverError> {
        let Some(volume) = self.find(name) else { return Ok(false) };
        let mut work = volume.work.lock().await;
        let id = MountId::new(KEEPER);
        if !volume.is_live() || work.removed {
            return Ok(false);
        }
        if !work.record.ledger.holds(&id) {
            self.enter(&volume, &mut work, &id, KEEPER, false)?;
        }
        Ok(true)
    }

    /// Ends [`Driver::keep`]; takes the files away where nobody else has the volume mounted.
    pub async fn let_go(&self, name: &VolumeName) -> Result<(), DriverError> {
        let Some(volume) = self.find(name) else { return Ok(()) };
        let id = MountId::new(KEEPER);
        let held = volume.work.lock().await.record.ledger.holds(&id);
        if held { self.unmount_now(&volume, &id).await } else { Ok(()) }
    }

    /// Whether the newest versions were shown once, and taken back.
    pub fn is_refusing(&self, name: &VolumeName) -> bool {
        self.find(name).is_some_and(|volume| {
            lock(&volume.projection).as_ref().is_some_and(|projection| !projection.refused().is_empty())
        })
    }

    /// Why what the volume shows is not what its provider has, or why its containers were not told; for its status.
    /// Whether that is news.
    pub fn explain(&self, name: &VolumeName, why: Option<String>) -> bool {
        let Some(volume) = self.find(name) else { return false };
        let mut seen = lock(&volume.seen);
        let is_news = seen.explained != why;
        seen.explained = why;
        is_news
    }

    /// Which containers mount the volume; for its status.
    pub fn set_users(&self, name: &VolumeName, users: Vec<User>) {
        self.see(name, |seen| seen.users = users);
    }

    /// What became of the last change; for the volume's status.
    pub fn set_outcome(&self, name: &VolumeName, outcome: Outcome) {
        self.see(name, |seen| (seen.outcome, seen.decisions) = (Some(outcome), seen.decisions + 1));
    }

    /// How many changes of the volume had an outcome in this process.
    pub fn decisions(&self, name: &VolumeName) -> u64 {
        self.find(name).map_or(0, |volume| lock(&volume.seen).decisions)
    }

    fn see(&self, name: &VolumeName, change: impl FnOnce(&mut Seen)) {
        if let Some(volume) = self.find(name) {
            change(&mut lock(&volume.seen));
        }
    }

    /// Work on what is shown; there is none where nobody has the volume mounted.
    async fn on_shown<T: Default + Send + 'static>(
        &self,
        name: &VolumeName,
        work: impl FnOnce(&mut Projection) -> Result<T, ProjectionError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let Some(volume) = self.find(name) else { return Ok(T::default()) };
        let _work = volume.work.lock().await;
        let done = self.on_files(&volume, 0, move |projection| match projection {
            Some(projection) => work(projection),
            None => Ok(T::default()),
        });
        let done = done.await;
        lock(&volume.seen).live = mount::live(&volume);
        done
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
