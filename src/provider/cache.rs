//! The seam between the providers and everyone who needs secrets: last known values, single flight, and
//! what the last check of each secret found.
//!
//! # Guarantees
//! - However many ask at once, one call is made for a distinct secret, and all get its outcome.
//! - A value is read once for each change: version checks go before reads where the provider has versions.
//! - Secrets that are needed together are read together where the provider has a call for that.
//! - A failure never removes a value: it is remembered beside it, and the value stays until it is
//!   evicted, at the earliest when `max-stale` has passed since the provider last confirmed it.
//!
//! # Caveats
//! - A secret without versions is read for every check, and told apart by a keyed digest of its content.
//!   The key is random in each process, so that the digest, which is shown, cannot be used to guess the value.

mod many;

use super::{ErrorKind, Observed, ProviderError, Registry};
use crate::{
    metrics::{Metrics, Served},
    secret::{Secret, SecretId, SecretVersion},
};
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

pub use many::Secrets;

/// Last known values and the outcome of the last check, for each distinct secret in use.
pub struct Cache {
    registry: Mutex<Arc<Registry>>,
    entries: Mutex<HashMap<Arc<SecretId>, Arc<Entry>>>,
    digest: [RandomState; 2],
    metrics: Arc<Metrics>,
}

/// What is known of a secret without asking anyone.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The newest version that the provider told.
    pub latest: Option<SecretVersion>,
    /// Why the last check or read failed; `None` after one that succeeded.
    pub error: Option<ProviderError>,
    /// When the provider last confirmed that `latest` is the newest.
    pub confirmed: Option<Instant>,
    /// How many checks failed one after the other.
    pub failures: u32,
}

/// What one round of checks says of when to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// The provider answered, be it with a refusal.
    Answered,
    /// It was out of reach: try again sooner, after this many failures, but not before `delay`.
    Unreachable { failures: u32, delay: Option<Duration> },
}

struct Entry {
    id: Arc<SecretId>,
    state: Mutex<State>,
    /// Held by the one who asks the provider.
    flight: Arc<AsyncMutex<()>>,
}

/// A value, and when the provider last said that it is the newest.
#[derive(Clone)]
struct Held {
    secret: Arc<Secret>,
    confirmed: Instant,
}

#[derive(Default)]
struct State {
    known: Known,
    held: Option<Held>,
    /// How many calls have ended: whoever waited while one did takes its outcome.
    ended: u64,
    not_before: Option<Instant>,
}

// === impl Cache ===

impl Cache {
    pub fn new(registry: Registry) -> Self {
        let registry = Mutex::new(Arc::new(registry));
        let digest = [RandomState::new(), RandomState::new()];
        Self { registry, entries: Mutex::default(), digest, metrics: Arc::default() }
    }

    /// What is measured, here and by those who have the cache.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub fn registry(&self) -> Arc<Registry> {
        lock(&self.registry).clone()
    }

    /// Takes other instances into use. What is held of those that changed is confirmed anew before it is given out, and the
    /// pauses that their servers asked for do not bind those that took their place.
    pub fn replace(&self, registry: Registry) {
        let changed = registry.changed_since(&self.registry());
        *lock(&self.registry) = Arc::new(registry);
        let entries: Vec<_> = lock(&self.entries).values().cloned().collect();
        for entry in entries.iter().filter(|entry| changed.contains(entry.id.provider())) {
            entry.doubt();
        }
    }

    /// The secret as its provider has it now; a value confirmed within `fresh` is taken as it is.
    pub async fn get(&self, id: &Arc<SecretId>, fresh: Duration) -> Result<Arc<Secret>, ProviderError> {
        let entry = self.entry(id);
        let seen = entry.state().ended;
        if let Some(held) = entry.newest_held(fresh) {
            return Ok(self.hit(held));
        }
        let _flight = entry.flight.lock().await;
        if let Some(outcome) = entry.outcome_since(seen) {
            self.metrics.served(Served::Shared);
            return outcome;
        }
        entry.refuse_early_call()?;
        self.metrics.served(Served::Miss);
        entry.note(self.ask(&entry).await)
    }

    /// The newest value, if it is held and was confirmed within `time`; asks nobody.
    pub fn fresh(&self, id: &Arc<SecretId>, time: Duration) -> Option<Arc<Secret>> {
        self.find(id)?.newest_held(time).map(|held| self.hit(held))
    }

    /// Whether it is.
    pub fn is_fresh(&self, id: &Arc<SecretId>, time: Duration) -> bool {
        self.find(id).is_some_and(|entry| entry.newest_held(time).is_some())
    }

    /// The newest version of the secret that a check has told of, read if it is not held yet.
    pub async fn current(&self, id: &Arc<SecretId>) -> Result<Arc<Secret>, ProviderError> {
        let entry = self.entry(id);
        if let Some(held) = entry.newest_held(Duration::MAX) {
            return Ok(self.hit(held));
        }
        let seen = entry.state().ended;
        let _flight = entry.flight.lock().await;
        if let Some(held) = entry.newest_held(Duration::MAX) {
            self.metrics.served(Served::Shared);
            return Ok(held);
        }
        if let Some(outcome) = entry.outcome_since(seen) {
            self.metrics.served(Served::Shared);
            return outcome;
        }
        entry.refuse_early_call()?;
        self.metrics.served(Served::Miss);
        entry.note(self.read(id).await)
    }

    /// The value last confirmed, if that was within `max_stale`.
    pub fn last_known(&self, id: &Arc<SecretId>, max_stale: Duration) -> Option<Arc<Secret>> {
        self.find(id)?.confirmed_within(max_stale).inspect(|_| self.metrics.served(Served::LastKnown))
    }

    /// What is known of a secret without asking.
    pub fn known(&self, id: &Arc<SecretId>) -> Known {
        self.find(id).map(|entry| entry.state().known.clone()).unwrap_or_default()
    }

    /// What is checked together with `id`: the name of its provider's batch, or the secret itself.
    pub fn batch(&self, id: &SecretId) -> Option<String> {
        self.registry().get(id.provider())?.batch(id)
    }

    /// Asks for the versions of `ids`, all of one batch, and notes what is found. A secret without versions is read.
    /// One for which the server asked for a pause is left out until that is over.
    pub async fn check(&self, ids: &[Arc<SecretId>]) -> Round {
        let Some(first) = ids.first() else { return Round::Answered };
        let mut round = RoundSoFar::default();
        let mut ask = Vec::with_capacity(ids.len());
        for id in ids {
            match self.find(id).and_then(|entry| entry.pause()) {
                Some((known, rest)) => round.fail(&known, Some(rest)),
                None => ask.push(id.clone()),
            }
        }
        if ask.is_empty() {
            return round.end();
        }
        let answers = match self.provider(first) {
            Ok(provider) => self.versions(&*provider, first.provider(), &ask).await,
            // Mounted before the settings changed: whoever looks shall see that nobody follows the secret.
            Err(error) => ask.iter().map(|_| Err(error.clone())).collect(),
        };
        let (mut unversioned, mut changed) = (Vec::new(), Vec::new());
        for (id, answer) in ask.iter().zip(answers) {
            let entry = self.entry(id);
            match answer {
                Ok(Observed::Version(version)) => {
                    entry.confirm(version);
                    if entry.is_outdated() {
                        changed.push(id.clone());
                    }
                }
                Ok(Observed::Unversioned) => unversioned.push(id.clone()),
                Err(error) => drop(entry.note(Err(error))),
            }
        }
        // The outcomes are in the entries, for whoever needs them.
        self.read_anew(&unversioned).await;
        self.read_changed(&changed).await;
        for id in &ask {
            round.add(&self.entry(id).state().known);
        }
        round.end()
    }

    /// Drops the values that are neither in use nor confirmed within the time that `keep` gives for them.
    pub fn evict(&self, keep: impl Fn(&SecretId) -> Option<Duration>) {
        lock(&self.entries).retain(|id, entry| {
            // Somebody is waiting on it.
            Arc::strong_count(entry) > 1
                || keep(id).is_some_and(|keep| keep == Duration::MAX || entry.confirmed_within(keep).is_some())
        });
    }

    /// Whether any value is held for `id`.
    #[cfg(test)]
    fn holds(&self, id: &Arc<SecretId>) -> bool {
        self.find(id).is_some_and(|entry| entry.state().held.is_some())
    }

    /// A version check where a value is held, and a read where it is not, or not any more the newest.
    async fn ask(&self, entry: &Entry) -> Result<Arc<Secret>, ProviderError> {
        match self.confirmed(entry).await? {
            Some(held) => Ok(held),
            None => self.read(&entry.id).await,
        }
    }

    /// The value that is held, if its provider says that it is the newest. One without a version is not asked for.
    async fn confirmed(&self, entry: &Entry) -> Result<Option<Arc<Secret>>, ProviderError> {
        let held = entry.state().held.clone().map(|held| held.secret);
        let Some(held) = held.filter(|held| !is_digest(&held.version)) else { return Ok(None) };
        let provider = self.provider(&entry.id)?;
        let ids = std::slice::from_ref(&entry.id);
        let mut answers = self.versions(&*provider, entry.id.provider(), ids).await;
        match answers.pop() {
            Some(Ok(Observed::Version(version))) if version == held.version => Ok(Some(held)),
            Some(Err(error)) => Err(error),
            _ => Ok(None),
        }
    }

    async fn versions(
        &self,
        provider: &dyn super::Provider,
        name: &str,
        ids: &[Arc<SecretId>],
    ) -> Vec<Result<Observed, ProviderError>> {
        let began = Instant::now();
        let answers = provider.versions(ids).await;
        self.metrics.checked(name, began.elapsed());
        answers.iter().filter_map(|answer| answer.as_ref().err()).for_each(|error| self.failed(name, error));
        answers
    }

    fn failed(&self, provider: &str, error: &ProviderError) {
        self.metrics.provider_failed(provider, error.kind().as_str());
    }

    fn hit(&self, held: Arc<Secret>) -> Arc<Secret> {
        self.metrics.served(Served::Hit);
        held
    }

    async fn read(&self, id: &SecretId) -> Result<Arc<Secret>, ProviderError> {
        let (provider, began) = (self.provider(id)?, Instant::now());
        let read = provider.read(id).await;
        self.metrics.read(id.provider(), began.elapsed());
        Ok(self.versioned(read.inspect_err(|error| self.failed(id.provider(), error))?))
    }

    fn versioned(&self, mut secret: Secret) -> Arc<Secret> {
        if secret.version.label().is_empty() {
            secret.version = self.content_version(&secret);
        }
        Arc::new(secret)
    }

    fn provider(&self, id: &SecretId) -> Result<Arc<dyn super::Provider>, ProviderError> {
        let (registry, missing) = (self.registry(), |fault| ProviderError::new(ErrorKind::Misconfigured, fault));
        registry.validate(id).map_err(missing)?;
        registry.get(id.provider()).cloned().ok_or_else(|| missing("unknown provider".into()))
    }

    /// 128 bits of SipHash under two random keys: enough to notice a change, no use to guess a value.
    fn content_version(&self, secret: &Secret) -> SecretVersion {
        let [high, low] = self.digest.each_ref().map(|key| key.hash_one(secret.value.expose()));
        SecretVersion::new(format!("{DIGEST}{high:016x}{low:016x}"), "")
    }

    fn find(&self, id: &Arc<SecretId>) -> Option<Arc<Entry>> {
        lock(&self.entries).get(id).cloned()
    }

    fn entry(&self, id: &Arc<SecretId>) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        let new = || Arc::new(Entry { id: id.clone(), state: Mutex::default(), flight: Arc::default() });
        entries.entry(id.clone()).or_insert_with(new).clone()
    }
}

/// How the version of a secret without versions begins.
const DIGEST: &str = "content-";

/// Whether the version means something in this process alone.
pub fn is_digest(version: &SecretVersion) -> bool {
    version.label().starts_with(DIGEST)
}

#[derive(Default)]
struct RoundSoFar {
    answered: bool,
    failures: u32,
    delay: Option<Duration>,
}

impl RoundSoFar {
    fn add(&mut self, known: &Known) {
        match &known.error {
            Some(error) if error.kind().is_transient() => self.fail(known, error.delay()),
            _ => self.answered = true,
        }
    }

    fn fail(&mut self, known: &Known, delay: Option<Duration>) {
        self.failures = self.failures.max(known.failures);
        self.delay = self.delay.max(delay);
    }

    fn end(self) -> Round {
        match self.answered {
            true => Round::Answered,
            false => Round::Unreachable { failures: self.failures, delay: self.delay },
        }
    }
}

// === impl Entry ===

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The value that the provider confirmed within `time`, be there a newer one by now or not.
    fn confirmed_within(&self, time: Duration) -> Option<Arc<Secret>> {
        let held = self.state().held.clone()?;
        (held.confirmed.elapsed() <= time).then_some(held.secret)
    }

    /// The value, if it is the newest that is known of and was confirmed within `time`.
    fn newest_held(&self, time: Duration) -> Option<Arc<Secret>> {
        let state = self.state();
        let held = state.held.clone()?;
        let newest = state.known.latest.as_ref() == Some(&held.secret.version);
        (newest && held.confirmed.elapsed() <= time).then_some(held.secret)
    }

    /// Whether a value is held, and a newer one is known of.
    fn is_outdated(&self) -> bool {
        let state = self.state();
        state.held.as_ref().is_some_and(|held| state.known.latest.as_ref() != Some(&held.secret.version))
    }

    fn outcome_since(&self, seen: u64) -> Option<Result<Arc<Secret>, ProviderError>> {
        let error = {
            let state = self.state();
            (state.ended > seen).then(|| state.known.error.clone())?
        };
        match error {
            Some(error) => Some(Err(error)),
            None => self.newest_held(Duration::MAX).map(Ok),
        }
    }

    /// The server asked for a pause that is not over: it is not called.
    fn refuse_early_call(&self) -> Result<(), ProviderError> {
        match self.pause().and_then(|(known, _)| known.error) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// What is left of the pause that the server asked for, and what is known meanwhile.
    fn pause(&self) -> Option<(Known, Duration)> {
        let state = self.state();
        let rest = state.not_before?.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())?;
        Some((state.known.clone(), rest))
    }

    /// Notes the outcome of a read or of a check that found the held value to be the newest.
    fn note(&self, result: Result<Arc<Secret>, ProviderError>) -> Result<Arc<Secret>, ProviderError> {
        match &result {
            Ok(secret) => {
                self.state().held = Some(Held { secret: secret.clone(), confirmed: Instant::now() });
                self.confirm(secret.version.clone());
            }
            Err(error) => {
                let mut state = self.state();
                state.ended += 1;
                state.known.failures = state.known.failures.saturating_add(1);
                state.not_before = error.delay().map(|delay| Instant::now() + delay);
                state.known.error = Some(error.clone());
            }
        }
        result
    }

    /// Another instance answers from now on: the next who asks hears what it says.
    fn doubt(&self) {
        let mut state = self.state();
        state.known.latest = None;
        state.not_before = None;
    }

    fn confirm(&self, version: SecretVersion) {
        let mut state = self.state();
        state.ended += 1;
        state.not_before = None;
        if let Some(held) = state.held.as_mut().filter(|held| held.secret.version == version) {
            held.confirmed = Instant::now();
        }
        state.known = Known { latest: Some(version), error: None, confirmed: Some(Instant::now()), failures: 0 };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks can leave their contents half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
