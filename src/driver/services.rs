//! What is known of the secrets that services use: the other half of what [`super::serve`] gives them.

use super::{Driver, Followed, mount::FRESH, serve};
use crate::{
    provider::cache::is_digest,
    secret::SecretId,
    volume::{ServiceSecret, Versions},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

impl Driver {
    /// How often the secrets of services are checked; `None` for never.
    pub fn services_interval(&self) -> Option<Duration> {
        Some(self.parts.refresh).filter(|interval| !interval.is_zero())
    }

    /// What services use from now on: it is kept for them.
    pub fn follow(&self, followed: Followed) {
        self.served.follow(followed);
    }

    /// The versions that this process gave a service last.
    pub fn versions_served(&self, service: &str) -> Versions {
        self.served.versions_of(service)
    }

    /// Why the secret could not be given, as far as its labels and the settings tell.
    pub fn validate_service_secret(&self, spec: &ServiceSecret) -> Result<(), String> {
        let registry = self.parts.cache.registry();
        for id in spec.secrets() {
            registry.validate(&id).map_err(|fault| format!("`{}://{}`: {fault}", id.provider(), id.path()))?;
        }
        Ok(())
    }

    /// The newest versions, of those that are known. What was not confirmed for an interval is checked: one check for each
    /// secret or batch, and one read for a secret that this process does not have yet. Versions that mean nothing to
    /// another process are left out.
    pub async fn newest(&self, ids: &BTreeSet<Arc<SecretId>>, hurried: &BTreeSet<String>) -> Versions {
        let cache = &self.parts.cache;
        // A little less: a run that comes just in time for its interval would else find everything fresh.
        let interval = self.parts.refresh.mul_f64(0.9);
        let (mut batches, mut unread) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for id in ids {
            let known = cache.known(id);
            let fresh = if hurried.contains(id.provider()) { FRESH } else { interval };
            if cache.last_known(id, Duration::MAX).is_none() {
                unread.push(id.clone());
            } else if known.latest.as_ref().is_some_and(is_digest)
                || known.confirmed.is_some_and(|at| at.elapsed() < fresh)
            {
                continue;
            } else {
                batches.entry((id.provider(), cache.batch(id))).or_default().push(id.clone());
            }
        }
        for ((_, batch), ids) in batches {
            match batch {
                Some(_) => drop(cache.check(&ids).await),
                None => drop(
                    futures_util::future::join_all(ids.iter().map(|id| cache.check(std::slice::from_ref(id)))).await,
                ),
            }
        }
        for (id, error) in cache.get_all(unread, FRESH).await.failed {
            tracing::debug!(secret = %id, %error, "a secret of services cannot be read");
        }
        let mut newest = Versions::default();
        for id in ids {
            if let Some(version) = cache.known(id).latest.filter(|version| !is_digest(version)) {
                newest.note(id, &version);
            }
            if let Some(secret) = cache.last_known(id, Duration::MAX).filter(|secret| !is_digest(&secret.version)) {
                self.served.keep(id, &secret);
            }
        }
        newest
    }

    /// Why a service could not be given the newest of this secret.
    pub async fn rehearse(&self, spec: &ServiceSecret) -> Result<(), String> {
        let read = self.parts.cache.current_all(spec.secrets()).await;
        if let Some((id, error)) = read.failed.first() {
            return Err(format!("`{}://{}`: {error}", id.provider(), id.path()));
        }
        serve::contents(spec, &read.found).map(drop)
    }
}
