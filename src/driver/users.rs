//! Which mounted volumes use which secrets, and when each secret is checked next.

use super::{check::CheckKey, lock};
use crate::{secret::SecretId, volume::VolumeName};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

/// The secrets that mounted volumes use.
pub struct Users {
    uses: Mutex<HashMap<Arc<SecretId>, Use>>,
    /// How often a secret is checked where a volume does not say; zero for never.
    refresh: Mutex<Duration>,
}

#[derive(Default)]
struct Use {
    /// How often each volume wants it checked, if it says so.
    volumes: BTreeMap<VolumeName, Option<Duration>>,
    next: Option<SystemTime>,
    /// The check that it is a part of.
    key: Option<CheckKey>,
}

// === impl Users ===

impl Users {
    pub fn new(refresh: Duration) -> Self {
        Self { uses: Mutex::default(), refresh: Mutex::new(refresh) }
    }

    pub fn set_refresh(&self, refresh: Duration) {
        *lock(&self.refresh) = refresh;
    }

    /// `refresh` is how often the volume wants its secrets checked, if it says so.
    pub fn add(
        &self,
        volume: &VolumeName,
        secrets: impl IntoIterator<Item = Arc<SecretId>>,
        refresh: Option<Duration>,
    ) {
        let mut uses = lock(&self.uses);
        for id in secrets {
            uses.entry(id).or_default().volumes.insert(volume.clone(), refresh);
        }
    }

    /// The interval of a volume that says this; `None` for never.
    pub fn interval_of(&self, refresh: Option<Duration>) -> Option<Duration> {
        Some(refresh.unwrap_or_else(|| *lock(&self.refresh))).filter(|interval| !interval.is_zero())
    }

    pub fn remove(&self, volume: &VolumeName, secrets: impl IntoIterator<Item = Arc<SecretId>>) {
        let mut uses = lock(&self.uses);
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
        lock(&self.uses).get(id)?.volumes.values().filter_map(|refresh| self.interval_of(*refresh)).min()
    }

    /// The volumes that want to follow the secret's changes.
    pub fn followers(&self, id: &Arc<SecretId>) -> Vec<VolumeName> {
        let uses = lock(&self.uses);
        let volumes = uses.get(id).into_iter().flat_map(|found| &found.volumes);
        volumes.filter(|(_, refresh)| self.interval_of(**refresh).is_some()).map(|(volume, _)| volume.clone()).collect()
    }

    /// Secrets in use for which `wanted` holds.
    pub fn secrets(&self, wanted: impl Fn(&SecretId) -> bool) -> Vec<Arc<SecretId>> {
        lock(&self.uses).keys().filter(|id| wanted(id)).cloned().collect()
    }

    pub fn contains(&self, id: &SecretId) -> bool {
        lock(&self.uses).contains_key(id)
    }

    /// Notes which check the secret is a part of.
    pub fn plan(&self, id: &Arc<SecretId>, key: &CheckKey) {
        if let Some(found) = lock(&self.uses).get_mut(id).filter(|found| found.key.as_ref() != Some(key)) {
            found.key = Some(key.clone());
        }
    }

    /// The secrets that are a part of the check by `key`.
    pub fn planned(&self, key: &CheckKey) -> Vec<Arc<SecretId>> {
        let uses = lock(&self.uses);
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
        if let Some(found) = lock(&self.uses).get_mut(id) {
            found.next = Some(next);
        }
    }

    pub fn next(&self, id: &Arc<SecretId>) -> Option<SystemTime> {
        lock(&self.uses).get(id)?.next
    }
}
