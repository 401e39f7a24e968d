//! Taking over what an earlier process left: records, and the mounts that containers read from.

use super::{Driver, Volume, lock};
use crate::{
    projection::Projection,
    volume::{Record, VolumeSpec},
};
use std::{collections::BTreeSet, io, sync::Arc};

impl Driver {
    /// Loads all records, takes over live mounts, unmounts what belongs to nobody, and takes back what containers still have.
    ///
    /// No provider is asked: a plugin that starts rotates nothing that did not change.
    pub async fn start(&self) -> io::Result<()> {
        let (records, aside) = self.parts.store.load()?;
        for file in aside {
            tracing::error!(file = %file.file.display(), reason = %file.reason, "a state file cannot be read: set aside");
        }
        let mounted: BTreeSet<_> = self.parts.mounter.shared()?.into_iter().collect();
        let mut known = BTreeSet::new();
        for mut record in records {
            record.ledger.enter_boot(&self.parts.boot);
            known.insert(record.name.to_string());
            self.take_over(record, &mounted).await;
        }
        for stray in mounted.difference(&known) {
            self.unmount_stray(stray);
        }
        self.take_back(None).await;
        Ok(())
    }

    async fn take_over(&self, record: Record, mounted: &BTreeSet<String>) {
        let used = !record.ledger.is_empty();
        // Not checked against the providers of today: a volume does not cease to be when one is renamed.
        let spec = VolumeSpec::parse(&record.options).map_err(|faults| faults.to_string());
        let volume = Volume::new(record, spec);
        lock(&self.volumes).insert(volume.name.clone(), volume.clone());
        match (used, mounted.contains(volume.name.as_str())) {
            (true, true) => self.adopt(&volume).await,
            (false, true) => self.unmount_stray(volume.name.as_str()),
            // What containers have of it is taken back when all records are known.
            (_, false) => {}
        }
    }

    async fn adopt(&self, volume: &Arc<Volume>) {
        let Ok(spec) = volume.spec() else { return };
        let (mounter, size, name) = (self.parts.mounter.clone(), spec.size, volume.name.clone());
        let adopted = self.on_files(volume, 0, move |projection| {
            *projection = Some(Projection::adopt(mounter, name.as_str(), size)?);
            Ok(())
        });
        match adopted.await {
            Ok(()) => {
                self.took_over(volume, &mut *volume.work.lock().await, spec);
                tracing::info!(volume = %volume.name, "taken over");
            }
            Err(error) => {
                tracing::error!(volume = %volume.name, %error, "cannot take over what an earlier process mounted");
                lock(&volume.seen).error = Some(error.to_string());
            }
        }
    }

    fn unmount_stray(&self, volume: &str) {
        match self.parts.mounter.destroy(volume) {
            Ok(()) => tracing::warn!(volume, "unmounted: nobody uses it"),
            Err(error) => tracing::error!(volume, %error, "cannot unmount what nobody uses"),
        }
    }
}
