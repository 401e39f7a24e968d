//! Which mounted volumes use which secrets, and when each secret is checked next.

use super::{check::CheckKey, lock};
use crate::{secret::SecretId, volume::VolumeName};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

/// The secrets that mounted volumes use.
#[derive(Default)]
pub struct Users(Mutex<HashMap<Arc<SecretId>, Use>>);

#[derive(Default)]
struct Use {
    /// How often each volume wants it checked; `None` for never.
    volumes: BTreeMap<VolumeName, Option<Duration>>,
    next: Option<SystemTime>,
    /// The check that it is a part of.
    key: Option<CheckKey>,
}

// === impl Users ===

impl Users {
    pub fn add(
        &self,
        volume: &VolumeName,
        secrets: impl IntoIterator<Item = Arc<SecretId>>,
        interval: Option<Duration>,
    ) {
        let mut uses = lock(&self.0);
        for id in secrets {
            uses.entry(id).or_default().volumes.insert(volume.clone(), interval);
        }
    }

    pub fn remove(&self, volume: &VolumeName, secrets: impl IntoIterator<Item = Arc<SecretId>>) {
        let mut uses = lock(&self.0);
        for id in secrets {
            if let Some(found) = uses.get_mut(&id) {
                found.volumes.remove(volume);
                if found.volumes.is_empty() {
                    uses.remove(&id);
                }
            }
        }
    }

    /// How often the secret is to be checked: as often as the most demanding of its volumes wants.
    pub fn interval(&self, id: &Arc<SecretId>) -> Option<Duration> {
        lock(&self.0).get(id)?.volumes.values().flatten().min().copied()
    }

    /// The volumes that want to follow the secret's changes.
    pub fn followers(&self, id: &Arc<SecretId>) -> Vec<VolumeName> {
        let uses = lock(&self.0);
        let volumes = uses.get(id).into_iter().flat_map(|found| &found.volumes);
        volumes.filter(|(_, interval)| interval.is_some()).map(|(volume, _)| volume.clone()).collect()
    }

    /// Secrets in use for which `wanted` holds.
    pub fn secrets(&self, wanted: impl Fn(&SecretId) -> bool) -> Vec<Arc<SecretId>> {
        lock(&self.0).keys().filter(|id| wanted(id)).cloned().collect()
    }

    pub fn contains(&self, id: &SecretId) -> bool {
        lock(&self.0).contains_key(id)
    }

    /// Notes which check the secret is a part of.
    pub fn plan(&self, id: &Arc<SecretId>, key: &CheckKey) {
        if let Some(found) = lock(&self.0).get_mut(id).filter(|found| found.key.as_ref() != Some(key)) {
            found.key = Some(key.clone());
        }
    }

    /// The secrets that are a part of the check by `key`.
    pub fn planned(&self, key: &CheckKey) -> Vec<Arc<SecretId>> {
        let uses = lock(&self.0);
        let is_planned = |found: &Use| found.key.as_ref() == Some(key);
        match key {
            CheckKey::One(id) => {
                uses.get(id).filter(|found| is_planned(found)).map(|_| id.clone()).into_iter().collect()
            }
            CheckKey::Batch { .. } => {
                uses.iter().filter(|(_, found)| is_planned(found)).map(|(id, _)| id.clone()).collect()
            }
        }
    }

    pub fn set_next(&self, id: &Arc<SecretId>, next: SystemTime) {
        if let Some(found) = lock(&self.0).get_mut(id) {
            found.next = Some(next);
        }
    }

    pub fn next(&self, id: &Arc<SecretId>) -> Option<SystemTime> {
        lock(&self.0).get(id)?.next
    }
}
