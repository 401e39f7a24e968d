//! Gives Swarm the value of a secret of driver `dso`.
//!
//! # Guarantees
//! - Answers within 2 s, and sooner for what was late a moment ago: the engine waits without a limit, and holds up the other
//!   tasks of the node meanwhile.
//! - A call of the provider that takes longer goes on, and its answer is there when Swarm asks again.
//! - The last known value serves while the provider is out of reach, for at most `dso.max-stale`.
//! - A service that is rotated gets the versions that its label names, so that Swarm's rollback, which restores the labels,
//!   restores the values too. What the label says is about to come is never given in place of them.

use super::{
    Driver, Event,
    mount::FRESH,
    render::{self, Secrets},
};
use crate::{
    audit,
    provider::{ErrorKind, ProviderError, cache},
    secret::{Secret, SecretId, SecretValue, SecretVersion},
    volume::{
        ServiceSecret, Versions,
        service::{Encoding, Labels, NEXT},
    },
};
use futures_util::future::join_all;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(2);

/// For a secret that was not there in time a moment ago: Swarm tries again and again, and each time everybody waits.
const LIMIT_AGAIN: Duration = Duration::from_millis(200);

/// Swarm's own limit of a secret: less than 500 KiB.
const SIZE_MAX: usize = (500 << 10) - 1;

/// What Swarm asks for, and for whom.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub secret: String,
    pub labels: Labels,
    pub service: String,
    pub service_labels: Labels,
    pub task: String,
}

/// What Swarm is given.
#[derive(Debug)]
pub struct Served {
    pub value: SecretValue,
    /// Whether another task of the node may be given the same value without asking. Swarm reuses it as long as any task has
    /// it, so also in the middle of an update: only what is pinned stays the same.
    pub reusable: bool,
}

/// Which versions a service is to have.
struct Wants {
    versions: Versions,
    next: Versions,
}

/// Versions as people write them, by reference.
pub(super) type Labelled = BTreeMap<String, String>;

/// The class of a failure, and what is said of it.
type Unserved = (&'static str, String);

impl Driver {
    /// The value of a Swarm secret for one task. The error names the secret, the service and what to do.
    pub async fn serve(self: &Arc<Self>, asked: Asked) -> Result<Served, String> {
        self.tell(Event::Served);
        let (secret, service, task) = (asked.secret.clone(), asked.service.clone(), asked.task.clone());
        let handed = audit::Task { swarm_secret: secret.clone(), service: service.clone(), task: task.clone() };
        let result = match ServiceSecret::parse(&asked.labels) {
            Ok(spec) => {
                let result = self.serve_now(asked, spec.clone()).await;
                self.record_handed(
                    handed,
                    &spec,
                    result.as_ref().map(|(_, versions)| versions).map_err(|(class, _)| *class),
                );
                result.map_err(|(_, fault)| fault)
            }
            // Nothing is known that could have been delivered.
            Err(faults) => Err(faults.to_string()),
        };
        let (served, versions) = result.map_err(|fault| {
            tracing::error!(secret, service, task, error = fault, "not served");
            format!("secret `{secret}` of service `{service}`: {fault}")
        })?;
        tracing::info!(secret, service, task, versions = %serde_json::json!(versions), "served");
        Ok(served)
    }

    async fn serve_now(self: &Arc<Self>, asked: Asked, spec: ServiceSecret) -> Result<(Served, Labelled), Unserved> {
        for id in spec.secrets() {
            self.parts
                .cache
                .registry()
                .validate(&id)
                .map_err(|fault| ("options", format!("`{}://{}`: {fault}", id.provider(), id.path())))?;
        }
        if let Some(why) = spec.refused_to(&asked.service_labels) {
            return Err(("refused", why));
        }
        let wants = Wants {
            versions: spec.versions_for(&asked.service_labels),
            next: Versions::of(&asked.service_labels, NEXT),
        };
        let found = self.look_up(&spec, wants).await?;
        let value = contents(&spec, &found).map_err(|fault| ("render", fault))?;
        let versions: Labelled =
            found.iter().map(|(id, secret)| (id.to_string(), secret.version.label().to_owned())).collect();
        let served = Served { value, reusable: spec.is_pinned() };
        self.served.note(asked.secret, asked.service, spec, &found);
        Ok((served, versions))
    }

    /// Every secret, as its provider has it now or as it was known last.
    async fn look_up(self: &Arc<Self>, spec: &ServiceSecret, wants: Wants) -> Result<Secrets, Unserved> {
        let (this, secrets, wants, max_stale) = (self.clone(), spec.secrets(), Arc::new(wants), spec.max_stale);
        let (all, wanted) = (secrets.clone(), wants.clone());
        let read = async move {
            let read = this.read_for(all, &wanted, max_stale).await;
            read.found.iter().for_each(|(id, secret)| this.keep_newest(id, secret));
            this.served.note_arrived(&read.found);
            read
        };
        // Detached: what comes too late for this call is there for the next.
        let read = self.parts.tasks.spawn(read);
        let limit = if self.served.was_late(&secrets) { LIMIT_AGAIN } else { LIMIT };
        let asked = match timeout(limit, read).await {
            Ok(asked) => {
                asked.map_err(|_| ("internal", "an internal fault, which the plugin's log tells of".to_owned()))?
            }
            Err(_) => {
                self.served.note_late(&secrets);
                cache::Secrets { found: Secrets::new(), failed: self.overdue(secrets) }
            }
        };
        let mut found = asked.found;
        for (id, error) in asked.failed {
            let last = || self.last_served(&id, wants.versions.get(&id), spec.max_stale);
            let known = error.kind().is_transient().then(last).flatten();
            let known = known
                .ok_or_else(|| (error.kind().as_str(), format!("`{}://{}`: {error}", id.provider(), id.path())))?;
            tracing::warn!(secret = %id, %error, "out of reach: serving the last known good value");
            found.insert(id, known);
        }
        Ok(found)
    }

    /// What serves while the provider is out of reach: of a service that is on a version, that version alone.
    fn last_served(&self, id: &Arc<SecretId>, on: Option<&String>, max_stale: Duration) -> Option<Arc<Secret>> {
        let last = self.parts.cache.last_known(id, max_stale);
        let Some(version) = on else { return last };
        // As long as the provider gave the secret out, in whatever version, it had nothing against this one.
        let granted = self.parts.cache.known(id).confirmed.is_some_and(|at| at.elapsed() <= max_stale);
        let time = if granted { Duration::MAX } else { max_stale };
        last.filter(|last| last.version.key() == *version).or_else(|| self.served.kept(id, version, time))
    }

    /// Those secrets of which the service is on a version in that one, the others as their providers have them now.
    async fn read_for(
        &self,
        secrets: impl IntoIterator<Item = Arc<SecretId>>,
        wants: &Wants,
        max_stale: Duration,
    ) -> cache::Secrets {
        let is_on = |id: &Arc<SecretId>| wants.versions.get(id).filter(|_| id.param("version").is_none());
        let (on, newest): (Vec<_>, Vec<_>) = secrets.into_iter().partition(|id| is_on(id).is_some());
        let versions = on.into_iter().filter_map(|id| {
            let version = is_on(&id)?.clone();
            Some(async move { (id.clone(), self.version(&id, &version, wants.next.get(&id), max_stale).await) })
        });
        let (mut secrets, versions) = tokio::join!(self.parts.cache.get_all(newest, FRESH), join_all(versions));
        for (id, result) in versions {
            match result {
                Ok(secret) => drop(secrets.found.insert(id, secret)),
                Err(error) => secrets.failed.push((id, error)),
            }
        }
        secrets
    }

    /// One version of a secret: as it is held, as it was served, as its provider still has it. Where it is gone, the newest
    /// takes its place, but for one that is on trial or was rolled back. What the provider refuses is refused.
    async fn version(
        &self,
        id: &Arc<SecretId>,
        version: &str,
        next: Option<&String>,
        max_stale: Duration,
    ) -> Result<Arc<Secret>, ProviderError> {
        let cache = &self.parts.cache;
        // A version does not change: it need not be asked for as often as it is given, only as often as it is checked.
        let checked = self.services_interval().unwrap_or_default().max(FRESH);
        if let Some(held) = cache.last_known(id, checked).filter(|held| held.version.key() == version) {
            return Ok(held);
        }
        let newest = match cache.get(id, FRESH).await {
            Ok(newest) if newest.version.key() == version => return Ok(newest),
            Err(error) if error.kind().is_transient() => return Err(error),
            newest => newest,
        };
        if let Some(kept) = self.served.kept(id, version, Duration::MAX).filter(|_| newest.is_ok()) {
            return Ok(kept);
        }
        // Where the newest is refused, this one may be too by now.
        let fresh = if newest.is_ok() { max_stale } else { FRESH };
        let pinned = Arc::new(id.pinned(SecretVersion::label_of(version)));
        if cache.registry().validate(&pinned).is_ok() {
            match cache.get(&pinned, fresh).await {
                Ok(found) if found.version.key() == version => {
                    let confirmed = cache.known(&pinned).confirmed.unwrap_or_else(Instant::now);
                    self.served.keep(id, &found, confirmed);
                    return Ok(found);
                }
                Err(error) if error.kind().is_transient() || newest.is_err() => return Err(error),
                _ => {}
            }
        }
        match newest {
            Err(refusal) => Err(refusal),
            Ok(newest) if next != Some(&newest.version.key()) => {
                tracing::warn!(secret = %id, version, "its provider has that version no more: serving the newest");
                Ok(newest)
            }
            Ok(_) => Err(ProviderError::new(
                ErrorKind::NotFound,
                format!(
                    "version {} is gone, and the newest was rolled back, or is not taken by the service yet: write a new one",
                    SecretVersion::label_of(version)
                ),
            )),
        }
    }

    /// What is said of secrets that were not there in time; one that its provider refuses is refused.
    fn overdue(&self, secrets: impl IntoIterator<Item = Arc<SecretId>>) -> Vec<(Arc<SecretId>, ProviderError)> {
        let late = |id: Arc<SecretId>| {
            let refused = self.parts.cache.known(&id).error.filter(|error| !error.kind().is_transient());
            let error = refused.unwrap_or_else(|| {
                ProviderError::new(
                    ErrorKind::Timeout,
                    format!("no answer from provider `{}` within {} s", id.provider(), LIMIT.as_secs()),
                )
            });
            (id, error)
        };
        secrets.into_iter().map(late).collect()
    }
}

/// What a Swarm secret is given, if Swarm takes it.
pub(super) fn contents(spec: &ServiceSecret, found: &Secrets) -> Result<SecretValue, String> {
    let value = render::contents_of(&spec.source, found)?;
    check(&value, spec.encoding)?;
    Ok(value)
}

fn check(value: &SecretValue, encoding: Encoding) -> Result<(), String> {
    match value.len() {
        0 => Err("the value is empty, and a Swarm secret has at least 1 byte".into()),
        size if size > SIZE_MAX => Err(format!(
            "the value has {size} bytes, and a Swarm secret has at most {SIZE_MAX}: mount a volume of driver `dso` in its place"
        )),
        _ if encoding == Encoding::Text && std::str::from_utf8(value.expose()).is_err() => {
            Err("the value is not UTF-8 text, as label `dso.encoding` wants it".into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
