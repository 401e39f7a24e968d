//! Makes what a mounted volume shows equal to what its providers have.

use super::{Driver, DriverError, Volume, heal::Before, lock, mount};
use crate::{
    projection::{Change, FileSet, ProjectionError, Versions},
    provider::cache,
    volume::VolumeName,
};
use std::{io, sync::Arc};

/// What a refresh did.
#[derive(Debug)]
pub enum Refreshed {
    /// Nobody has the volume mounted, or it is gone.
    NotMounted,
    /// What it shows is what the last checks have told of.
    Current,
    /// New files were published.
    Rotated { generation: u64 },
    /// What had been lost of the files was written again.
    Restored,
}

impl Driver {
    /// Compares the versions that a volume shows with those that the last checks have told of, and publishes
    /// a new generation if its files differ. Asks a provider only for values that are new.
    ///
    /// Level-triggered: what was missed is done by the next call, and a second call does nothing.
    pub async fn refresh(&self, name: &VolumeName) -> Result<Refreshed, DriverError> {
        let Some(volume) = self.find(name) else { return Ok(Refreshed::NotMounted) };
        // Mounts are not kept waiting by a provider: values are read before the volume is taken.
        if !volume.is_live() {
            return Ok(Refreshed::NotMounted);
        }
        if self.shows_newest(&volume) && !is_damaged(&volume) {
            lock(&volume.seen).error = None;
            return Ok(Refreshed::Current);
        }
        let before = Before::of(&volume);
        let result = self.rotate(&volume).await.map(|published| before.judge(&volume, published));
        match &result {
            Ok(Refreshed::Rotated { generation }) => {
                // Who asked for it makes a record of what came of it.
                tracing::debug!(volume = %name, generation, "published")
            }
            Ok(_) => {}
            Err(error) => tracing::error!(volume = %name, %error, "not refreshed: the files stay as they are"),
        }
        let mut seen = lock(&volume.seen);
        if seen.live.is_some() {
            seen.error = result.as_ref().err().map(ToString::to_string);
        }
        drop(seen);
        result
    }

    async fn rotate(&self, volume: &Arc<Volume>) -> Result<Refreshed, DriverError> {
        let spec = volume.spec()?;
        let cache::Secrets { found, failed } = self.parts.cache.current_all(spec.secrets()).await;
        let (set, versions) = self.assemble(volume, spec, found, &failed)?;
        self.publish(volume, set, versions, None).await
    }

    /// Serves `set`, unless that is what the volume shows. With `over`, only in place of these versions: others may have been
    /// published since the set was made.
    pub(super) async fn publish(
        &self,
        volume: &Arc<Volume>,
        set: FileSet,
        versions: Versions,
        over: Option<Versions>,
    ) -> Result<Refreshed, DriverError> {
        let mut work = volume.work.lock().await;
        if work.removed || !volume.is_live() {
            return Ok(Refreshed::NotMounted);
        }
        let change = self
            .on_files(volume, mount::bytes_of(&set), move |projection| match projection {
                Some(projection) if over.is_some_and(|over| *projection.versions() != over) => {
                    Ok((Change::Same, projection.generation()))
                }
                Some(projection) => projection.replace(&set, versions).map(|change| (change, projection.generation())),
                None => {
                    Err(ProjectionError::Io { doing: "find the tmpfs".into(), error: io::ErrorKind::NotFound.into() })
                }
            })
            .await;
        let (change, generation) = change?;
        lock(&volume.seen).live = mount::live(volume);
        match change {
            Change::Same => Ok(Refreshed::Current),
            Change::Rotated => {
                // Not written to the disk for itself, which takes longer than all the rest: while the volume is mounted its own marker
                // has the number, and what is saved at the unmount takes it along.
                work.record.generation = generation;
                lock(&volume.seen).generation = generation;
                Ok(Refreshed::Rotated { generation })
            }
        }
    }

    /// Whether every secret's newest known version is the one that the files were made of, or all of them are those that
    /// were shown and taken back. A secret that no check has told of yet is taken to be unchanged.
    pub(super) fn shows_newest(&self, volume: &Volume) -> bool {
        let projection = lock(&volume.projection);
        let Some(projection) = projection.as_ref() else { return true };
        let secrets = volume.secrets();
        let newest_are = |versions: &Versions| {
            secrets.iter().all(|id| match self.parts.cache.known(id).latest {
                Some(latest) => versions.get(&id.to_string()) == Some(&latest),
                None => true,
            })
        };
        newest_are(projection.versions()) || (!projection.refused().is_empty() && newest_are(projection.refused()))
    }
}

/// Whether something of the files is missing or has another shape. What was taken back cannot be written again: the values are
/// not held any more.
fn is_damaged(volume: &Volume) -> bool {
    let projection = lock(&volume.projection);
    projection.as_ref().is_some_and(|projection| projection.refused().is_empty() && !projection.intact())
}
