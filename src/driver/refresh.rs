//! Makes what a mounted volume shows equal to what its providers have.

use super::{Driver, DriverError, Volume, lock, mount};
use crate::{
    projection::{Change, ProjectionError},
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
        if self.shows_newest(&volume) {
            lock(&volume.seen).error = None;
            return Ok(Refreshed::Current);
        }
        let result = self.rotate(&volume).await;
        match &result {
            Ok(Refreshed::Rotated { generation }) => {
                tracing::info!(volume = %name, generation, cause = "version changed", "rotated")
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
        let cache = self.parts.cache.clone();
        let read = cache::all(spec.secrets(), |id| {
            let cache = cache.clone();
            async move { cache.current(&id).await }
        });
        let cache::Secrets { found, failed } = read.await;
        let (set, versions) = self.assemble(volume, spec, found, &failed)?;
        let mut work = volume.work.lock().await;
        if work.removed || !volume.is_live() {
            return Ok(Refreshed::NotMounted);
        }
        let change = self
            .on_files(volume, mount::bytes_of(&set), move |projection| match projection {
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
                let mut record = work.record.clone();
                record.generation = generation;
                // The files are published; that the number could not be noted matters to no container.
                if let Err(error) = self.save(volume, &mut work, record) {
                    tracing::error!(volume = %volume.name, %error, "the generation's number was not saved");
                }
                Ok(Refreshed::Rotated { generation })
            }
        }
    }

    /// Whether every secret's newest known version is the one that the files were made of. A secret that no
    /// check has told of yet is taken to be unchanged.
    fn shows_newest(&self, volume: &Volume) -> bool {
        let projection = lock(&volume.projection);
        let Some(projection) = projection.as_ref() else { return true };
        volume.secrets().iter().all(|id| match self.parts.cache.known(id).latest {
            Some(latest) => projection.versions().get(&id.to_string()) == Some(&latest),
            None => true,
        })
    }
}
