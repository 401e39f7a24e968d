//! What the driver tells of, for whoever looks.

use super::{Driver, DriverError, State, Volume, lock, rotation::KEEPER};
use crate::{
    metrics::{Metrics, VolumeSample},
    volume::{MountId, VolumeName},
};
use serde_json::json;
use std::sync::Arc;

impl Driver {
    pub(super) fn tell_mounted(&self, volume: &Arc<Volume>, id: &MountId, fresh: bool) {
        self.record_mount(volume, id, None);
        let (mount, (state, generation)) = (if fresh { "fresh" } else { "joined" }, self.state(volume));
        self.metrics().mounted(mount);
        let fields = json!({"generation": generation, "mount": mount, "stale": state == State::Stale});
        self.happenings.tell("mounted", Some(volume.name.as_str()), fields);
    }

    pub(super) fn tell_mount_failed(&self, volume: &Volume, id: &MountId, error: &DriverError) {
        self.record_mount(volume, id, Some(error.class()));
        self.metrics().mount_failed(error.class());
        let fields = json!({"class": error.class(), "error": error.to_string()});
        self.happenings.tell("mount_failed", Some(volume.name.as_str()), fields);
    }

    pub(super) fn tell_unmounted(&self, volume: &Volume, id: &MountId, left: u32) {
        if *id != MountId::new(KEEPER) {
            self.happenings.tell("unmounted", Some(volume.name.as_str()), json!({ "left": left }));
        }
    }

    /// What is measured.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.parts.cache.metrics()
    }

    /// Everything that is measured, in Prometheus' text format.
    pub fn exposition(&self) -> String {
        let volumes: Vec<_> = lock(&self.volumes).values().cloned().collect();
        let samples = volumes.iter().map(|volume| {
            // What is never checked is confirmed by nobody, and that is no fault.
            let is_checked = volume.spec().is_ok_and(|spec| self.interval(spec).is_some());
            let confirmed = self.confirmed(volume).filter(|_| is_checked);
            let published = lock(&volume.seen).live.as_ref().map(|live| live.rotated);
            VolumeSample { name: volume.name.to_string(), state: self.state(volume).0.as_str(), published, confirmed }
        });
        self.metrics().exposition(samples.collect(), self.happenings.lost())
    }

    /// Tells if the volume has become stale, or is current again, since this was last called for it.
    pub fn tell_state(&self, name: &VolumeName) {
        let Some(volume) = self.find(name) else { return };
        let (state, _) = self.state(&volume);
        let why = (state == State::Stale).then(|| self.status(&volume).error.unwrap_or_default());
        let before = std::mem::replace(&mut lock(&volume.seen).told_stale, why.clone());
        match (before, why) {
            (None, Some(why)) => self.happenings.tell("stale", Some(name.as_str()), json!({ "error": why })),
            (Some(_), None) if state == State::Current => {
                self.happenings.tell("current", Some(name.as_str()), json!({}));
            }
            _ => {}
        }
    }
}
