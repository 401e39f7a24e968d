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
    provider::{ErrorKind, ProviderError, cache},
    secret::{Secret, SecretId, SecretValue, SecretVersion},
    volume::{
        ServiceSecret, Versions,
        service::{Encoding, Labels, NEXT},
    },
};
use futures_util::future::join_all;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::timeout;

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

impl Driver {
    /// The value of a Swarm secret for one task. The error names the secret, the service and what to do.
    pub async fn serve(self: &Arc<Self>, asked: Asked) -> Result<Served, String> {
        self.tell(Event::Served);
        let (secret, service, task) = (asked.secret.clone(), asked.service.clone(), asked.task.clone());
        let (served, versions) = match self.serve_now(asked).await {
            Ok(served) => served,
            Err(fault) => {
                tracing::error!(secret, service, task, error = fault, "not served");
                return Err(format!("secret `{secret}` of service `{service}`: {fault}"));
            }
        };
        tracing::info!(secret, service, task, versions = %serde_json::json!(versions), "served");
        Ok(served)
    }

    async fn serve_now(self: &Arc<Self>, asked: Asked) -> Result<(Served, BTreeMap<String, String>), String> {
        let spec = ServiceSecret::parse(&asked.labels).map_err(|faults| faults.to_string())?;
        for id in spec.secrets() {
            self.parts
                .cache
                .registry()
                .validate(&id)
                .map_err(|fault| format!("`{}://{}`: {fault}", id.provider(), id.path()))?;
        }
        if let Some(why) = spec.refused_to(&asked.service_labels) {
            return Err(why);
        }
        let wants = Wants {
            versions: spec.versions_for(&asked.service_labels),
            next: Versions::of(&asked.service_labels, NEXT),
        };
        let found = self.look_up(&spec, wants).await?;
        let value = contents(&spec, &found)?;
        let versions: BTreeMap<_, _> =
            found.iter().map(|(id, secret)| (id.to_string(), secret.version.label().to_owned())).collect();
        let served = Served { value, reusable: spec.is_pinned() };
        self.served.note(asked.secret, asked.service, spec, &found);
        Ok((served, versions))
    }

    /// Every secret, as its provider has it now or as it was known last.
    async fn look_up(self: &Arc<Self>, spec: &ServiceSecret, wants: Wants) -> Result<Secrets, String> {
        let (this, secrets, wants, max_stale) = (self.clone(), spec.secrets(), Arc::new(wants), spec.max_stale);
        let (all, wanted) = (secrets.clone(), wants.clone());
        let read = async move { this.read_for(all, &wanted, max_stale).await };
        // Detached: what comes too late for this call is there for the next.
        let read = self.parts.tasks.spawn(read);
        let limit = if self.served.was_late(&secrets) { LIMIT_AGAIN } else { LIMIT };
        let asked = match timeout(limit, read).await {
            Ok(asked) => asked.map_err(|_| "an internal fault, which the plugin's log tells of".to_owned())?,
            Err(_) => {
                self.served.note_late(&secrets);
                cache::Secrets { found: Secrets::new(), failed: self.overdue(secrets) }
            }
        };
        let mut found = asked.found;
        for (id, error) in asked.failed {
            let known = error.kind().is_transient().then(|| self.parts.cache.last_known(&id, spec.max_stale)).flatten();
            let wanted = wants.versions.get(&id);
            let known = match known {
                Some(known) if wanted.is_some_and(|version| *version != known.version.key()) => {
                    wanted.and_then(|version| self.served.kept(&id, version))
                }
                known => known,
            };
            let known = known.ok_or_else(|| format!("`{}://{}`: {error}", id.provider(), id.path()))?;
            tracing::warn!(secret = %id, %error, "out of reach: serving the last known good value");
            found.insert(id, known);
        }
        Ok(found)
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
    /// takes its place, but for one that is on trial or was rolled back.
    async fn version(
        &self,
        id: &Arc<SecretId>,
        version: &str,
        next: Option<&String>,
        max_stale: Duration,
    ) -> Result<Arc<Secret>, ProviderError> {
        let cache = &self.parts.cache;
        // A version does not change: it need not be asked for as often as it is given, only as often as it is checked.
        let checked = self.parts.refresh.max(FRESH);
        if let Some(held) = cache.last_known(id, checked).filter(|held| held.version.key() == version) {
            return Ok(held);
        }
        let newest = match cache.get(id, FRESH).await {
            Ok(newest) if newest.version.key() == version => return Ok(newest),
            Ok(newest) => Some(newest),
            Err(error) if error.kind().is_transient() => return Err(error),
            Err(_) => None,
        };
        if let Some(kept) = self.served.kept(id, version) {
            return Ok(kept);
        }
        let pinned = Arc::new(id.pinned(SecretVersion::label_of(version)));
        if cache.registry().validate(&pinned).is_ok() {
            match cache.get(&pinned, max_stale).await {
                Ok(found) if found.version.key() == version => return Ok(found),
                Err(error) if error.kind().is_transient() => return Err(error),
                _ => {}
            }
        }
        match newest {
            Some(newest) if next != Some(&newest.version.key()) => {
                tracing::warn!(secret = %id, version, "its provider has that version no more: serving the newest");
                Ok(newest)
            }
            _ => Err(ProviderError::new(
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
mod tests {
    use super::{super::workbench::Bench, *};
    use tokio::time::Instant;

    fn asked(labels: &[(&str, &str)]) -> Asked {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Asked { secret: "db".into(), labels: pairs(labels), service: "app".into(), ..Asked::default() }
    }

    async fn serve(bench: &Bench, labels: &[(&str, &str)]) -> Result<(String, bool), String> {
        let served = bench.driver.serve(asked(labels)).await?;
        Ok((String::from_utf8(served.value.expose().to_vec()).unwrap(), served.reusable))
    }

    const PIN: [(&str, &str); 1] = [("dso.ref", "p://app#pin")];

    #[tokio::test(start_paused = true)]
    async fn a_task_gets_the_value_of_its_time_with_one_read_for_all() {
        let bench = Bench::new().await;
        bench.provider.put("app", "1", br#"{"pin":"one","user":"u"}"#);
        for _ in 0..100 {
            assert_eq!(serve(&bench, &PIN).await.unwrap(), ("one".into(), false));
        }
        assert_eq!(bench.provider.calls(), (1, 0));
        bench.provider.put("app", "2", br#"{"pin":"two","user":"u"}"#);
        tokio::time::advance(FRESH * 2).await;
        assert_eq!(serve(&bench, &PIN).await.unwrap().0, "two");
        let template =
            [("dso.template", "[[ secret('p://app#user') ]]:[[ secret('p://app#pin') ]]"), ("dso.delimiters", "[[ ]]")];
        assert_eq!(serve(&bench, &template).await.unwrap().0, "u:two");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_bridged_for_as_long_as_the_label_says_and_told_within_two_seconds() {
        let bench = Bench::new().await;
        bench.provider.put("app", "1", br#"{"pin":"one"}"#);
        let labels = [PIN[0], ("dso.max-stale", "1m")];
        serve(&bench, &labels).await.unwrap();
        for how in ["refused", "hangs"] {
            match how {
                "refused" => bench.provider.fail(Some(ProviderError::new(ErrorKind::Unreachable, "refused"))),
                _ => bench.provider.delay(Duration::from_secs(60)),
            }
            tokio::time::advance(FRESH * 2).await;
            let began = Instant::now();
            assert_eq!(serve(&bench, &labels).await.unwrap().0, "one", "{how}");
            assert!(began.elapsed() <= LIMIT, "{how}: {:?}", began.elapsed());
        }
        bench.provider.delay(Duration::ZERO);
        bench.provider.fail(Some(ProviderError::new(ErrorKind::Unreachable, "refused")));
        tokio::time::advance(Duration::from_secs(61)).await;
        bench.driver.evict();
        assert_eq!(serve(&bench, &labels).await.unwrap_err(), "secret `db` of service `app`: `p://app`: refused");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_is_there_for_the_next_call() {
        let bench = Bench::new().await;
        bench.provider.put("app", "1", br#"{"pin":"one"}"#);
        bench.provider.delay(Duration::from_secs(9));
        let began = Instant::now();
        assert_eq!(
            serve(&bench, &PIN).await.unwrap_err(),
            "secret `db` of service `app`: `p://app`: no answer from provider `p` within 2 s"
        );
        assert_eq!(began.elapsed(), LIMIT);
        let again = Instant::now();
        serve(&bench, &PIN).await.unwrap_err();
        assert_eq!(again.elapsed(), LIMIT_AGAIN, "others are not held up as long for what was late a moment ago");
        while bench.driver.parts.cache.fresh(&Arc::new("p://app".parse().unwrap()), FRESH).is_none() {
            tokio::time::sleep(FRESH / 2).await;
        }
        assert_eq!(serve(&bench, &PIN).await.unwrap().0, "one");
        assert_eq!(bench.provider.calls(), (1, 0));
    }

    #[tokio::test]
    async fn swarms_limits_and_the_encoding_are_faults_with_their_reason() {
        let bench = Bench::new().await;
        bench.provider.put("empty", "1", b"");
        bench.provider.put("large", "1", &vec![b'x'; SIZE_MAX + 1]);
        bench.provider.put("most", "1", &vec![b'x'; SIZE_MAX]);
        bench.provider.put("binary", "1", b"\xff");
        let fault = async |reference: &str, more: &[(&str, &str)]| {
            serve(&bench, &[&[("dso.ref", reference)], more].concat()).await.unwrap_err()
        };
        assert!(fault("p://empty", &[]).await.ends_with("a Swarm secret has at least 1 byte"));
        assert!(
            fault("p://large", &[]).await.contains("the value has 512000 bytes, and a Swarm secret has at most 511999")
        );
        assert!(fault("p://binary", &[("dso.encoding", "text")]).await.contains("not UTF-8"));
        assert!(fault("q://x", &[]).await.contains("unknown provider `q`"));
        assert_eq!(serve(&bench, &[("dso.ref", "p://most")]).await.unwrap().0.len(), SIZE_MAX);
        assert_eq!(bench.driver.serve(asked(&[("dso.ref", "p://binary")])).await.unwrap().value.expose(), b"\xff");
    }

    #[tokio::test]
    async fn a_service_that_may_not_have_it_is_refused_without_a_read() {
        let bench = Bench::new().await;
        bench.provider.put("app", "1", br#"{"pin":"one"}"#);
        let mut asked = asked(&PIN);
        asked.service_labels.insert("dso.allow".into(), "p://other/*".into());
        let fault = bench.driver.serve(asked).await.unwrap_err();
        assert_eq!(fault, "secret `db` of service `app`: the service's label `dso.allow` does not name `p://app`");
        assert_eq!(bench.provider.calls(), (0, 0));
    }

    #[tokio::test]
    async fn only_a_pinned_version_may_be_reused() {
        let bench = Bench::new().await;
        bench.provider.put("app", "1", br#"{"pin":"one"}"#);
        assert!(serve(&bench, &[("dso.ref", "p://app?version=1#pin")]).await.unwrap().1);
        assert!(!serve(&bench, &[("dso.ref", "p://app?stage=x#pin")]).await.unwrap().1);
    }
}
