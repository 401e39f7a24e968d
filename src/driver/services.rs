//! What is known of the secrets that services use: the other half of what [`super::serve`] gives them.

use super::{Driver, Followed, mount::FRESH, serve};
use crate::{
    provider::cache::is_digest,
    secret::{Secret, SecretId},
    volume::{ServiceSecret, Versions},
};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

impl Driver {
    /// How often the secrets of services are checked; `None` for never.
    pub fn services_interval(&self) -> Option<Duration> {
        self.users.interval_of(None)
    }

    /// What services use from now on: it is kept for them.
    pub fn follow(&self, followed: Followed) {
        self.served.follow(followed);
    }

    /// Services that are not among these are gone.
    pub fn forget_services(&self, but: &BTreeSet<&str>) {
        self.served.forget_services(but);
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
        let interval = self.services_interval().unwrap_or_default().mul_f64(0.9);
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
        // At the same time: a provider that hangs holds up no other.
        let check = |((_, batch), ids): ((_, Option<String>), Vec<_>)| async move {
            match batch {
                Some(_) => drop(cache.check(&ids).await),
                None => drop(join_all(ids.iter().map(|id| cache.check(std::slice::from_ref(id)))).await),
            }
        };
        join_all(batches.into_iter().map(check)).await;
        for (id, error) in cache.get_all(unread, FRESH).await.failed {
            tracing::debug!(secret = %id, %error, "a secret of services cannot be read");
        }
        let mut newest = Versions::default();
        for id in ids {
            if let Some(version) = cache.known(id).latest.filter(|version| !is_digest(version)) {
                newest.note(id, &version);
            }
            if let Some(secret) = cache.last_known(id, Duration::MAX) {
                self.keep_newest(id, &secret);
            }
        }
        newest
    }

    /// Keeps it for services that are on this version later, if it is the newest that its provider has told of.
    pub(super) fn keep_newest(&self, id: &Arc<SecretId>, secret: &Arc<Secret>) {
        let known = self.parts.cache.known(id);
        let is_newest = known.latest.as_ref() == Some(&secret.version) && !is_digest(&secret.version);
        if let Some(confirmed) = known.confirmed.filter(|_| is_newest) {
            self.served.keep(id, secret, confirmed);
        }
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

#[cfg(test)]
mod tests {
    use super::{super::workbench::Bench, *};
    use crate::provider::{Provider, registry::Registry, scripted::Scripted};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_is_slow_holds_up_no_check_of_another() {
        let (bench, other) = (Bench::new().await, Scripted::versioned());
        let both = [("p", bench.provider.clone()), ("q", other.clone())];
        let instances = both.map(|(name, provider)| (name.to_owned(), provider as Arc<dyn Provider>));
        bench.driver.parts.cache.replace(Registry::of(instances));
        for provider in [&bench.provider, &other] {
            provider.put("app", "1", b"x");
        }
        let ids: BTreeSet<Arc<SecretId>> = ["p://app", "q://app"].map(|id| Arc::new(id.parse().unwrap())).into();
        bench.driver.newest(&ids, &BTreeSet::new()).await;
        for provider in [&bench.provider, &other] {
            provider.delay(Duration::from_secs(5));
        }
        tokio::time::advance(Duration::from_secs(30)).await;
        let (began, calls) = (Instant::now(), (bench.provider.calls(), other.calls()));
        assert_eq!(bench.driver.newest(&ids, &BTreeSet::new()).await.0.len(), 2);
        assert_eq!((calls, bench.provider.calls(), other.calls()), (((1, 0), (1, 0)), (0, 1), (0, 1)));
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    }
}
