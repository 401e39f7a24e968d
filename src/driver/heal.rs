//! Making good what went wrong outside of dso: files that were lost, counts that no engine will take back, and mounts that
//! could not be made when they were asked for.

use super::{Driver, DriverError, Refreshed, Volume, lock, rotation::KEEPER};
use crate::{
    projection::Versions,
    volume::{Ledger, MountId, VolumeName},
};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// For how long after a mount its container may not be in the engine's list yet: the engine mounts first.
const UNLISTED: Duration = Duration::from_secs(10);
/// For how long it may be in the list and not run: the engine may be waiting for its other volumes, two minutes for each, or a
/// `docker cp` may be using a container that is stopped.
const UNSTARTED: Duration = Duration::from_secs(180);

/// Whether the engine knows of containers with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// Some run, or will by themselves.
    Up,
    /// There are some, and none of them runs.
    Down,
    No,
}

/// What a volume showed before something was published.
pub(super) struct Before {
    versions: Versions,
    on_trial: bool,
}

// === impl Before ===

impl Before {
    pub fn of(volume: &Volume) -> Self {
        let projection = lock(&volume.projection);
        let versions = projection.as_ref().map(|projection| projection.versions().clone()).unwrap_or_default();
        Self { versions, on_trial: projection.as_ref().is_some_and(|projection| projection.base().is_some()) }
    }

    /// The same versions once more are what was lost, written again: there is nothing to verify, and no container to tell.
    pub fn judge(self, volume: &Volume, published: Refreshed) -> Refreshed {
        let mut projection = lock(&volume.projection);
        match (published, projection.as_mut()) {
            (Refreshed::Rotated { generation }, Some(projection)) if *projection.versions() == self.versions => {
                if !self.on_trial
                    && let Err(error) = projection.commit()
                {
                    tracing::debug!(volume = %volume.name, %error, "what was there before is not removed yet");
                }
                tracing::warn!(volume = %volume.name, generation, "the volume's files were lost or altered: written again");
                Refreshed::Restored
            }
            (published, _) => published,
        }
    }
}

// === impl Driver ===

impl Driver {
    /// Whether a mount would get its files now: reads what it needs and keeps that in the cache, without mounting.
    pub async fn probe(&self, name: &VolumeName) -> Result<(), DriverError> {
        let volume = self.get(name.as_str())?;
        self.fetch(&volume, Duration::ZERO).await.map(drop)
    }

    /// How soon to look again whether a provider is back.
    pub fn interval_of(&self, name: &VolumeName) -> Option<Duration> {
        self.find(name)?.spec.as_ref().ok().and_then(|spec| self.interval(spec))
    }

    /// Compares what a mounted volume shows with the values that are held, byte by byte, and writes it again if it differs. Asks no
    /// provider: where the values are not held, nothing is compared.
    pub async fn mend(&self, name: &VolumeName) -> Result<Refreshed, DriverError> {
        let Some(volume) = self.find(name).filter(|volume| volume.is_live()) else { return Ok(Refreshed::NotMounted) };
        let spec = volume.spec()?;
        let mut found = HashMap::new();
        for id in spec.secrets() {
            let Some(secret) = self.parts.cache.fresh(&id, Duration::MAX) else { return Ok(Refreshed::Current) };
            found.insert(id, secret);
        }
        let (set, versions) = self.assemble(&volume, spec, found, &[])?;
        let before = Before::of(&volume);
        if before.versions != versions {
            // A rotation is due, or was taken back; it is not for here to decide.
            return Ok(Refreshed::Current);
        }
        let published = self.publish(&volume, set, versions, Some(before.versions.clone())).await?;
        Ok(before.judge(&volume, published))
    }

    /// Corrects the count of mounts by what the engine told of the volume's containers in a list that it was asked for at
    /// `listed`: mounts of which it knows nothing any more will never be ended by it.
    pub async fn correct(&self, name: &VolumeName, in_use: InUse, listed: Instant) {
        let quiet = match in_use {
            InUse::Up => return,
            InUse::Down => UNSTARTED,
            InUse::No => UNLISTED,
        };
        let Some(volume) = self.find(name) else { return };
        let mut work = volume.work.lock().await;
        let ledger = &work.record.ledger;
        if ledger.is_empty() || ledger.holds(&MountId::new(KEEPER)) || work.entered + quiet > listed {
            return;
        }
        let mut record = work.record.clone();
        let mounts = record.ledger.count();
        record.ledger = Ledger::default();
        record.ledger.enter_boot(&self.parts.boot);
        tracing::warn!(volume = %name, mounts, "counted as mounted, and no container has it: corrected");
        let saved = self.save(&volume, &mut work, record);
        if let Err(error) = saved.and(self.take_down(&volume).await) {
            tracing::error!(volume = %name, %error, "cannot take away what nobody uses");
        }
    }

    /// When a list of containers could tell that the volume's mounts are nobody's, at the earliest.
    pub fn correctable(&self, name: &VolumeName, in_use: InUse) -> Option<Duration> {
        let quiet = match in_use {
            InUse::Up => return None,
            InUse::Down => UNSTARTED,
            InUse::No => UNLISTED,
        };
        (lock(&self.find(name)?.seen).mounts > 0).then_some(quiet)
    }
}
