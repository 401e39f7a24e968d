//! Version checks: one for each distinct secret and interval, whatever the number of volumes and containers.

use super::{Driver, mount::FRESH};
use crate::{provider::cache::Round, secret::SecretId, volume::VolumeName};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// What is checked by one call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckKey {
    /// Secrets whose versions their provider tells together.
    Batch {
        provider: String,
        batch: String,
    },
    One(Arc<SecretId>),
}

/// First pause after a check that found the provider out of reach; it doubles up to the interval.
const BACK_OFF: Duration = Duration::from_secs(1);

/// How soon a volume's checks are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// When they are due.
    AsPlanned,
    /// At once, but for what was confirmed a moment ago.
    Soon,
    /// At once, whatever was confirmed before: there is word of a change.
    Now,
}

/// What a check says of what to do next.
#[derive(Debug, Default)]
pub struct Checked {
    /// Volumes to look at.
    pub volumes: BTreeSet<VolumeName>,
    /// When to check the same secrets again; not always by the same key, since a provider learns what its
    /// server can tell together. Empty where nobody follows them any more.
    pub next: Vec<(CheckKey, Duration)>,
}

impl Driver {
    /// The checks that keep a mounted volume current, and how soon each is due.
    pub fn checks(&self, name: &VolumeName, wanted: Wanted) -> Vec<(CheckKey, Duration)> {
        let Some(volume) = self.find(name).filter(|volume| volume.is_live()) else { return Vec::new() };
        let mut due = Vec::<(CheckKey, Duration)>::new();
        for id in volume.secrets() {
            let Some(interval) = self.users.interval(&id) else { continue };
            let at_once = match wanted {
                Wanted::AsPlanned => false,
                Wanted::Soon => !self.parts.cache.is_fresh(&id, FRESH),
                Wanted::Now => true,
            };
            let delay = if at_once { Duration::ZERO } else { self.until_next(&id, interval) };
            let key = self.key(&id);
            self.users.plan(&id, &key);
            match due.iter_mut().find(|(known, _)| *known == key) {
                Some((_, soonest)) => *soonest = delay.min(*soonest),
                None => due.push((key, delay)),
            }
        }
        due
    }

    /// The checks of all secrets of a provider that are in use: it told of a change.
    pub fn checks_of_provider(&self, provider: &str) -> BTreeSet<VolumeName> {
        let ids = self.users.secrets(|id| id.provider() == provider);
        ids.iter().flat_map(|id| self.users.followers(id)).collect()
    }

    /// Checks the versions behind `key`.
    ///
    /// Every secret that somebody follows is planned under one key, and that key is due at some time: what
    /// `key` stands for no more is handed on to the key that does.
    pub async fn check(&self, key: &CheckKey) -> Checked {
        let mut checked = Checked::default();
        for id in self.users.planned(key) {
            let current = self.key(&id);
            if current != *key {
                self.users.plan(&id, &current);
                checked.add(current, Duration::ZERO);
            }
        }
        let ids: Vec<_> = self.ids(key).into_iter().filter(|id| self.users.interval(id).is_some()).collect();
        let Some(interval) = ids.iter().filter_map(|id| self.users.interval(id)).min() else { return checked };
        ids.iter().for_each(|id| self.users.plan(id, key));
        let round = self.parts.cache.check(&ids).await;
        let delay = match round {
            Round::Answered => jittered(interval),
            Round::Unreachable { failures, delay } => {
                let doubled = BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
                jittered(doubled.min(interval)).max(delay.unwrap_or_default())
            }
        };
        let next = SystemTime::now() + delay;
        for id in &ids {
            let key = self.key(id);
            self.users.plan(id, &key);
            self.users.set_next(id, next);
            checked.add(key, delay);
            checked.volumes.extend(self.users.followers(id));
        }
        checked
    }

    /// Drops values that are neither mounted nor young enough to serve a mount during an outage.
    pub fn evict(&self) {
        let mut keep = std::collections::HashMap::new();
        let volumes: Vec<_> = super::lock(&self.volumes).values().cloned().collect();
        for spec in volumes.iter().filter_map(|volume| volume.spec.as_ref().ok()) {
            for id in spec.secrets() {
                let longest = keep.entry(id).or_insert(spec.max_stale);
                *longest = spec.max_stale.max(*longest);
            }
        }
        for (id, max_stale) in self.served.secrets() {
            let longest = keep.entry(id).or_insert(max_stale);
            *longest = max_stale.max(*longest);
        }
        self.parts.cache.evict(|id| match self.users.contains(id) {
            true => Some(Duration::MAX),
            false => keep.get(id).copied(),
        });
    }

    fn until_next(&self, id: &Arc<SecretId>, interval: Duration) -> Duration {
        let planned = self.users.next(id).and_then(|next| next.duration_since(SystemTime::now()).ok());
        let delay = planned.unwrap_or_else(|| jittered(interval)).min(interval);
        self.users.set_next(id, SystemTime::now() + delay);
        delay
    }

    fn key(&self, id: &Arc<SecretId>) -> CheckKey {
        match self.parts.cache.batch(id) {
            Some(batch) => CheckKey::Batch { provider: id.provider().to_owned(), batch },
            None => CheckKey::One(id.clone()),
        }
    }

    /// The secrets in use that `key` stands for now.
    fn ids(&self, key: &CheckKey) -> Vec<Arc<SecretId>> {
        match key {
            CheckKey::One(id) => Some(id.clone()).filter(|id| self.key(id) == *key).into_iter().collect(),
            CheckKey::Batch { provider, batch } => {
                self.users.secrets(|id| id.provider() == provider && self.parts.cache.batch(id).as_ref() == Some(batch))
            }
        }
    }
}

impl Checked {
    fn add(&mut self, key: CheckKey, delay: Duration) {
        if !self.next.iter().any(|(known, _)| *known == key) {
            self.next.push((key, delay));
        }
    }
}

/// Nine to ten tenths of `interval`: many hosts that started together do not ask together for ever.
fn jittered(interval: Duration) -> Duration {
    // Without randomness there is no jitter, and nothing worse.
    let random = getrandom::u32().unwrap_or_default();
    interval.mul_f64(1.0 - 0.1 * f64::from(random) / f64::from(u32::MAX))
}
