//! What services were given, and what is kept for the next time.

use super::{lock, render::Secrets};
use crate::{
    provider::cache::is_digest,
    secret::{Secret, SecretId},
    volume::{ServiceSecret, Versions},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

/// A secret in one version, in [`SecretVersion::key`](crate::secret::SecretVersion::key)'s words.
type Version = (Arc<SecretId>, String);

#[derive(Default)]
pub(super) struct Ledger {
    /// By the secret's name in Swarm.
    given: Mutex<BTreeMap<String, Given>>,
    /// What each service was given last.
    services: Mutex<BTreeMap<String, Versions>>,
    /// Versions that a service is on may be the newest no more, and not every provider keeps them.
    kept: Mutex<HashMap<Version, (Arc<Secret>, Instant)>>,
    followed: Mutex<Followed>,
    /// What was not there in time, and when that was.
    late: Mutex<HashMap<Arc<SecretId>, Instant>>,
}

/// How long a secret counts as late.
const LATE: Duration = Duration::from_secs(30);

struct Given {
    spec: ServiceSecret,
    at: Instant,
}

/// What the services of the Swarm use, while this node leads it.
#[derive(Debug, Default)]
pub struct Followed {
    /// How long the last known value of each may serve.
    pub secrets: BTreeMap<Arc<SecretId>, Duration>,
    /// The versions that services are on.
    pub versions: BTreeSet<(String, String)>,
}

// === impl Ledger ===

impl Ledger {
    pub fn note(&self, secret: String, service: String, spec: ServiceSecret, found: &Secrets) {
        let mut services = lock(&self.services);
        let versions = services.entry(service).or_default();
        for (id, secret) in found.iter().filter(|(_, secret)| !is_digest(&secret.version)) {
            versions.note(id, &secret.version);
        }
        drop(services);
        lock(&self.given).insert(secret, Given { spec, at: Instant::now() });
    }

    /// `confirmed` is when its provider last said that it has this version.
    pub fn keep(&self, id: &Arc<SecretId>, secret: &Arc<Secret>, confirmed: Instant) {
        let mut kept = lock(&self.kept);
        let (_, at) = kept.entry((id.clone(), secret.version.key())).or_insert_with(|| (secret.clone(), confirmed));
        *at = confirmed.max(*at);
    }

    /// One version, if its provider confirmed it within `time`.
    pub fn kept(&self, id: &Arc<SecretId>, version: &str, time: Duration) -> Option<Arc<Secret>> {
        let kept = lock(&self.kept);
        let (secret, confirmed) = kept.get(&(id.clone(), version.to_owned()))?;
        (confirmed.elapsed() <= time).then(|| secret.clone())
    }

    pub fn forget_services(&self, but: &BTreeSet<&str>) {
        lock(&self.services).retain(|service, _| but.contains(service.as_str()));
    }

    /// The versions that this process gave a service last.
    pub fn versions_of(&self, service: &str) -> Versions {
        lock(&self.services).get(service).cloned().unwrap_or_default()
    }

    pub fn note_late(&self, secrets: &BTreeSet<Arc<SecretId>>) {
        lock(&self.late).extend(secrets.iter().map(|id| (id.clone(), Instant::now())));
    }

    pub fn note_arrived(&self, found: &Secrets) {
        lock(&self.late).retain(|id, _| !found.contains_key(id));
    }

    /// Whether one of them was late a moment ago, and was not there since.
    pub fn was_late(&self, secrets: &BTreeSet<Arc<SecretId>>) -> bool {
        let mut late = lock(&self.late);
        late.retain(|_, at| at.elapsed() < LATE);
        secrets.iter().any(|id| late.contains_key(id))
    }

    pub fn follow(&self, followed: Followed) {
        *lock(&self.followed) = followed;
    }

    /// How long each secret's last known value may serve. What nobody has asked for in that time is forgotten.
    pub fn secrets(&self) -> HashMap<Arc<SecretId>, Duration> {
        let (mut all, mut given, followed) = (HashMap::new(), lock(&self.given), lock(&self.followed));
        // What has not been asked for in that time may not serve any more, and the secret may be gone from Swarm.
        given.retain(|_, given| given.at.elapsed() <= given.spec.max_stale);
        let given =
            given.values().flat_map(|given| given.spec.secrets().into_iter().map(|id| (id, given.spec.max_stale)));
        for (id, max_stale) in given.chain(followed.secrets.iter().map(|(id, time)| (id.clone(), *time))) {
            let longest = all.entry(id).or_insert(max_stale);
            *longest = max_stale.max(*longest);
        }
        lock(&self.kept).retain(|(id, version), (_, at)| {
            let is_followed = followed.versions.contains(&(id.to_string(), version.clone()));
            is_followed || all.get(id).is_some_and(|max_stale| at.elapsed() <= *max_stale)
        });
        all
    }
}
