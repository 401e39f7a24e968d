//! Which secrets a volume gives to whom, for the record.

use super::{Driver, Volume, lock, serve::Labelled};
use crate::{
    audit::{Audit, Delivered, Delivery, Handed, Task},
    secret::SecretId,
    volume::{MountId, ServiceSecret, VolumeName, VolumeSpec},
};
use std::{collections::BTreeMap, sync::Arc};

impl Driver {
    /// Where deliveries are recorded.
    pub fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    pub(super) fn record_mount(&self, volume: &Volume, mount: &MountId, failure: Option<&'static str>) {
        if !self.audit.is_open() {
            return;
        }
        let Some(delivery) = self.delivery(volume, "mount", Some(mount), failure, |_| true) else { return };
        match failure {
            None => self.audit.mounted(delivery),
            Some(_) => self.audit.failed(&delivery),
        }
    }

    /// What Swarm was given for a task, with the versions of it; or the class of the failure.
    pub(super) fn record_handed(&self, task: Task, spec: &ServiceSecret, result: Result<&Labelled, &'static str>) {
        if !self.audit.is_open() {
            return;
        }
        let secrets = spec.secrets().into_iter().map(|id| Delivered {
            secret: id.to_string(),
            version: result.ok().and_then(|versions| versions.get(&id.to_string()).cloned()),
            identity: self.identity_for(&id),
            files: Vec::new(),
        });
        self.audit.handed(&Handed { task, secrets: secrets.collect(), failure: result.err() });
    }

    /// What a change from the versions `before` has given to whoever has the volume mounted; `None` where nothing is recorded.
    pub fn change(&self, name: &VolumeName, before: &BTreeMap<String, String>) -> Option<Delivery> {
        let volume = self.find(name).filter(|_| self.audit.is_open())?;
        let after = self.shown(name)?.versions;
        let has_changed = |id: &SecretId| before.get(&id.to_string()) != after.get(&id.to_string());
        self.delivery(&volume, "rotation", None, None, has_changed).filter(|delivery| !delivery.secrets.is_empty())
    }

    fn identity_for(&self, id: &SecretId) -> Option<String> {
        Some(self.parts.cache.registry().get(id.provider())?.identity())
    }

    fn delivery(
        &self,
        volume: &Volume,
        cause: &'static str,
        mount: Option<&MountId>,
        failure: Option<&'static str>,
        is_wanted: impl Fn(&SecretId) -> bool,
    ) -> Option<Delivery> {
        let spec = volume.spec.as_ref().ok()?;
        let projection = lock(&volume.projection);
        let projection = projection.as_ref().filter(|_| failure.is_none());
        let secrets = spec.secrets().into_iter().filter(|id| is_wanted(id)).map(|id| Delivered {
            secret: id.to_string(),
            version: projection.and_then(|shown| Some(shown.versions().get(&id.to_string())?.label().to_owned())),
            identity: self.identity_for(&id),
            files: files(spec, projection.into_iter().flat_map(|shown| shown.files()), &id),
        });
        let secrets = secrets.collect();
        let generation = projection.map_or(0, |shown| shown.generation());
        let mount = mount.map(ToString::to_string);
        Some(Delivery { volume: volume.name.to_string(), generation, cause, mount, secrets, failure })
    }
}

/// Those of `paths` that are made of the secret.
fn files<'a>(spec: &VolumeSpec, paths: impl Iterator<Item = &'a str>, id: &SecretId) -> Vec<String> {
    let is_of = |path: &&str| match spec.files.get(*path) {
        Some(source) => source.references().iter().any(|reference| *reference.id == *id),
        None => spec.from.as_ref().is_some_and(|from| *from.id == *id),
    };
    paths.filter(is_of).map(str::to_owned).collect()
}
