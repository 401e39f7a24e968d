//! Provider `vault`: HashiCorp Vault and OpenBao, over their HTTP API.
//!
//! [`settings`] are what a person configured; [`session`] holds the token that [`auth`] logs in for;
//! [`mounts`] tells which engine serves a path, and [`kv`] reads what it answers; [`checks`] compares
//! versions with as few calls as the server and the policy allow. Every request goes through [`http`],
//! whose certificates are [`trust`]'s, and every failure through [`failure`].

mod auth;
mod checks;
mod examine;
mod failure;
mod http;
mod kv;
mod mounts;
mod session;
mod settings;
mod token;
mod trust;

use super::{ErrorKind, Observed, Provider, ProviderError, Pushes, files, refusals::Refusals};
use crate::{
    faults::{self, Faults},
    findings::Finding,
    host::HostFiles,
    secret::{Secret, SecretId, SecretVersion},
};
use async_trait::async_trait;
use failure::Asked;
use http::{Answer, Http, Request};
use mounts::{Engine, Mounts, Place};
use session::Session;
use settings::VaultSettings;
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// One server, and what dso is logged in with there.
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    http: Arc<Http>,
    session: Arc<Session>,
    mounts: Mounts,
    refusals: Refusals,
    leases: Mutex<HashMap<SecretId, HeldLease>>,
}

/// A dynamic secret that was read: it is what it was until two thirds of its lease have passed.
struct HeldLease {
    version: SecretVersion,
    read_again: Instant,
    ends: Instant,
}

// === impl Vault ===

impl Vault {
    pub fn build(name: &str, table: toml::Table, host: &HostFiles) -> Result<Arc<dyn Provider>, Faults> {
        let settings = VaultSettings::parse(name, table, host)?;
        let http = Arc::new(Http::new(&settings, host.clone()));
        let session = Arc::new(Session::new(settings.name, Arc::clone(&http), settings.login));
        let (mounts, refusals, leases) = Default::default();
        Ok(Arc::new(Self { inner: Arc::new(Inner { http, session, mounts, refusals, leases }) }))
    }
}

#[async_trait]
impl Provider for Vault {
    fn validate(&self, id: &SecretId) -> Result<(), String> {
        if let Some(name) = id.params().keys().find(|name| *name != "version") {
            return Err(faults::unknown("parameter", name, ["version"]));
        }
        if id.param("version").is_some() && pin_of(id).is_none() {
            return Err("`version` must be a whole number from 1 up".into());
        }
        if !id.path().contains('/') {
            return Err(
                "the path names a secrets engine only: write <engine>/<secret>, as `vault kv get` takes it".into()
            );
        }
        Ok(())
    }

    async fn read(&self, id: &SecretId) -> Result<Secret, ProviderError> {
        self.inner.bounded(self.inner.read(id)).await
    }

    fn batch(&self, id: &SecretId) -> Option<String> {
        self.inner.batch(id)
    }

    async fn versions(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        Inner::versions(&self.inner, ids).await
    }

    fn identity(&self) -> String {
        format!("a login by {}", self.inner.session.method())
    }

    async fn examine(&self) -> Vec<Finding> {
        self.inner.examine().await
    }

    async fn run(&self, _pushes: Pushes, cancel: CancellationToken) {
        self.inner.session.run(cancel).await
    }
}

// === impl Inner ===

impl Inner {
    /// A whole operation takes no longer than one request may, whatever it has to do before.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
        let late = |_| {
            self.http.error(ErrorKind::Timeout, "no answer in time: is the server up and reachable from this host?")
        };
        time::timeout(self.http.timeout(), work).await.map_err(late)?
    }

    async fn read(&self, id: &SecretId) -> Result<Secret, ProviderError> {
        let place = self.place(id.path()).await?;
        match place.engine {
            Engine::Kv2 => self.read_versioned(id, &place).await,
            Engine::Kv1 | Engine::Logical => self.read_logical(id, &place).await,
        }
    }

    async fn read_versioned(&self, id: &SecretId, place: &Place) -> Result<Secret, ProviderError> {
        let path = format!("{}data/{}", place.mount, place.rest);
        let pin = id.param("version").map(|version| ("version", version));
        let answer = self.call(|| Request { query: pin, ..Request::get(&path) }).await?;
        if answer.is_success() {
            return kv::versioned(&self.http, id.path(), &answer.body);
        }
        self.doubt(place, &answer);
        match answer.status.as_u16() {
            404 => Err(kv::missing(&self.http, id.path(), pin_of(id), &answer.body)),
            _ => Err(failure::of_answer(&self.http, &answer, Asked { path: &path, capability: "read" })),
        }
    }

    async fn read_logical(&self, id: &SecretId, place: &Place) -> Result<Secret, ProviderError> {
        if id.param("version").is_some() {
            let text = format!("`?version=` needs an engine of type kv, version 2, and {} is none", id.path());
            return Err(self.http.error(ErrorKind::Misconfigured, text));
        }
        let answer = self.call(|| Request::get(id.path())).await?;
        if !answer.is_success() {
            self.doubt(place, &answer);
            return Err(match answer.status.as_u16() {
                404 => kv::no_version(&self.http, id.path(), None),
                _ => failure::of_answer(&self.http, &answer, Asked { path: id.path(), capability: "read" }),
            });
        }
        let read = kv::logical(&self.http, id.path(), &answer.body)?;
        // Without a version of its own: the cache makes one of the content.
        let unversioned = SecretVersion::new("", "");
        let version = read.lease.map_or(unversioned, |lease| self.hold(id, lease));
        Ok(Secret { version, value: read.value })
    }

    fn hold(&self, id: &SecretId, lease: kv::Lease) -> SecretVersion {
        let now = Instant::now();
        let held = HeldLease {
            version: lease.version.clone(),
            read_again: now + lease.duration * 2 / 3,
            ends: now + lease.duration,
        };
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, held| now < held.ends);
        leases.insert(id.clone(), held);
        lease.version
    }

    /// The version of a dynamic secret whose lease is young enough.
    fn held(&self, id: &SecretId) -> Option<SecretVersion> {
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let held = leases.get(id).filter(|held| Instant::now() < held.read_again)?;
        Some(held.version.clone())
    }

    /// Where a secret is. Asks the server once for each mount.
    async fn place(&self, path: &str) -> Result<Place, ProviderError> {
        if let Some(place) = self.mounts.find(path) {
            return Ok(place);
        }
        let turn = self.mounts.asking(path);
        let _turn = turn.lock().await;
        if let Some(place) = self.mounts.find(path) {
            return Ok(place);
        }
        let asked = format!("sys/internal/ui/mounts/{path}");
        let answer = self.call(|| Request::get(&asked)).await?;
        if !answer.is_success() {
            return Err(self.no_mount(path, &asked, &answer));
        }
        match self.mounts.learn(path, &answer.body) {
            Some(place) if place.rest.is_empty() => {
                let text = format!("{path} is a secrets engine: name a secret in it, as `vault kv get` takes it");
                Err(self.http.error(ErrorKind::NotFound, text))
            }
            Some(place) => Ok(place),
            None => Err(kv::malformed(&self.http, &asked, &answer.body)),
        }
    }

    fn no_mount(&self, path: &str, asked: &str, answer: &Answer) -> ProviderError {
        match answer.status.as_u16() {
            403 => self.http.error(
                ErrorKind::Forbidden,
                format!("403 permission denied for {path}: no secrets engine is mounted there, or the token's policies grant nothing under it"),
            ),
            404 => failure::no_server(&self.http, asked),
            _ => failure::of_answer(&self.http, answer, Asked { path: asked, capability: "read" }),
        }
    }

    /// After a refusal the mount is looked up again: another engine may have taken its place.
    fn doubt(&self, place: &Place, answer: &Answer) {
        if matches!(answer.status.as_u16(), 400 | 403 | 404 | 405) {
            self.mounts.forget(place);
        }
    }

    /// Sends a request with the token; where the token proves dead, once more with a new one.
    async fn call<'a>(&self, request: impl Fn() -> Request<'a>) -> Result<Answer, ProviderError> {
        let token = self.session.token().await?;
        let answer = self.http.send(Request { token: Some(token.value()), ..request() }).await?;
        if answer.status != 403 || !self.session.is_dead(&token).await? {
            return Ok(answer);
        }
        let token = self.session.token().await?;
        let answer = self.http.send(Request { token: Some(token.value()), ..request() }).await?;
        if answer.status == 403 {
            self.session.vouch_for_new(&token);
        }
        Ok(answer)
    }
}

/// The version that a reference pins.
fn pin_of(id: &SecretId) -> Option<u64> {
    let text = id.param("version")?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(id: &str) -> Result<(), String> {
        let host = HostFiles::on_host("/nowhere");
        let vault = Vault::build("vault", "address = 'http://a'".parse().unwrap(), &host).unwrap();
        vault.validate(&id.parse().unwrap())
    }

    #[test]
    fn a_reference_is_checked_without_a_server() {
        assert_eq!(validate("vault://secret/app?version=3"), Ok(()));
        for version in ["0", "-1", "+1", "01", "latest", "99999999999999999999"] {
            let fault = validate(&format!("vault://secret/app?version={version}")).unwrap_err();
            assert_eq!(fault, "`version` must be a whole number from 1 up", "{version}");
        }
        assert_eq!(
            validate("vault://secret/app?versoin=3").unwrap_err(),
            "unknown parameter `versoin`: did you mean `version`?"
        );
        assert!(validate("vault://secret").unwrap_err().starts_with("the path names a secrets engine only"));
    }
}
