//! Version checks, with as few calls as the server and the policy allow.
//!
//! A folder of KV version 2 is one call where the server lists `detailed-metadata` (OpenBao does, Vault
//! does not) and the policy lets it; otherwise each secret's `metadata` is one; where that is forbidden
//! too, the secret is unversioned: it has to be read and compared. What was refused is remembered, so
//! that a check stays one call, and tried again now and then, since policies change.

use super::{
    Inner, failure,
    failure::Asked,
    http::Request,
    kv,
    mounts::{Engine, Place},
    pin_of,
};
use crate::{
    provider::{ErrorKind, Observed, ProviderError},
    secret::SecretId,
};
use reqwest::Method;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

/// How long a refusal is taken for granted.
const TRY_AGAIN: Duration = Duration::from_secs(600);
/// How many secrets of one batch are asked for at a time where each is a call.
const AT_ONCE: usize = 8;

/// API paths that were refused, and until when that is taken for granted.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<String, Instant>>);

// === impl Refusals ===

impl Refusals {
    fn has(&self, path: &str) -> bool {
        self.paths().get(path).is_some_and(|until| Instant::now() < *until)
    }

    fn note(&self, path: String) {
        let now = Instant::now();
        let mut paths = self.paths();
        paths.retain(|_, until| now < *until);
        paths.insert(path, now + TRY_AGAIN);
    }

    fn paths(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    /// Secrets of one folder are one batch, unless it is known that one call cannot tell their versions.
    pub(super) fn batch(&self, id: &SecretId) -> Option<String> {
        let (folder, _) = id.path().rsplit_once('/')?;
        match self.mounts.find(id.path()) {
            Some(place) if place.engine != Engine::Kv2 || self.refusals.has(&listing_of(&place)) => None,
            _ => Some(folder.into()),
        }
    }

    pub(super) async fn versions(this: &Arc<Self>, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        let Some(first) = ids.first() else { return Vec::new() };
        let place = match this.bounded(this.place(first.path())).await {
            Ok(place) => place,
            // The fault may be this secret's alone: a path that names the mount itself.
            Err(error) if ids.len() > 1 && !error.kind().is_transient() => return Self::one_by_one(this, ids).await,
            Err(error) => return ids.iter().map(|_| Err(error.clone())).collect(),
        };
        // A lone secret is cheaper to ask for by itself, since a folder may be large, unless that is forbidden.
        let alone = ids.len() == 1 && !this.refusals.has(&metadata_of(&place));
        if alone || place.engine != Engine::Kv2 || this.refusals.has(&listing_of(&place)) {
            return Self::one_by_one(this, ids).await;
        }
        match this.bounded(this.list(&place)).await {
            Ok(Some(found)) => ids.iter().map(|id| this.observe_in(&found, id)).collect(),
            Ok(None) => Self::one_by_one(this, ids).await,
            Err(error) => ids.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// What one call tells of a folder; `None` where no such call can be made.
    async fn list(&self, place: &Place) -> Result<Option<HashMap<String, kv::Metadata>>, ProviderError> {
        let path = listing_of(place);
        // `from_bytes` refuses only what is no word.
        let list = Method::from_bytes(b"LIST").unwrap_or(Method::GET);
        let answer = self.call(|| Request { method: list.clone(), ..Request::get(&path) }).await?;
        match answer.status.as_u16() {
            200 => kv::folder(&self.http, &path, &answer.body).map(Some),
            // Also what an empty folder answers: then each secret tells by itself that it is missing.
            404 if answer.says(b"\"errors\":[]") => Ok(None),
            400 | 403 | 404 | 405 => {
                self.refusals.note(path);
                Ok(None)
            }
            _ => Err(failure::of_answer(&self.http, &answer, Asked { path: &path, capability: "list" })),
        }
    }

    fn observe_in(&self, found: &HashMap<String, kv::Metadata>, id: &SecretId) -> Result<Observed, ProviderError> {
        let name = id.path().rsplit('/').next().unwrap_or_default();
        match found.get(name) {
            Some(metadata) => metadata.observe(&self.http, id.path(), pin_of(id)),
            None => Err(kv::no_version(&self.http, id.path(), None)),
        }
    }

    async fn one_by_one(this: &Arc<Self>, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        if let [id] = ids {
            return vec![this.bounded(this.version(id)).await];
        }
        let (turns, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        let lost = Arc::new(OnceLock::new());
        for (n, id) in ids.iter().cloned().enumerate() {
            let (this, turns, lost) = (Arc::clone(this), Arc::clone(&turns), Arc::clone(&lost));
            tasks.spawn(async move {
                let _turn = turns.acquire().await;
                if let Some(error) = lost.get() {
                    return (n, Err(ProviderError::clone(error)));
                }
                let result = this.bounded(this.version(&id)).await;
                if let Err(error) = &result
                    && concerns_all(error)
                {
                    let _ = lost.set(error.clone());
                }
                (n, result)
            });
        }
        let cut_short = || Err(this.http.error(ErrorKind::Unavailable, "the check was cut short"));
        let mut results: Vec<_> = ids.iter().map(|_| cut_short()).collect();
        while let Some(done) = tasks.join_next().await {
            if let Ok((n, result)) = done {
                results[n] = result;
            }
        }
        results
    }

    async fn version(&self, id: &SecretId) -> Result<Observed, ProviderError> {
        let place = self.place(id.path()).await?;
        if place.engine != Engine::Kv2 {
            return Ok(self.held(id).map_or(Observed::Unversioned, Observed::Version));
        }
        let path = metadata_of(&place);
        if self.refusals.has(&path) {
            return Ok(Observed::Unversioned);
        }
        let answer = self.call(|| Request::get(&path)).await?;
        match answer.status.as_u16() {
            200 => kv::metadata(&self.http, &path, &answer.body)?.observe(&self.http, id.path(), pin_of(id)),
            403 => {
                self.refusals.note(path);
                Ok(Observed::Unversioned)
            }
            404 => {
                self.doubt(&place, &answer);
                Err(kv::no_version(&self.http, id.path(), None))
            }
            _ => Err(failure::of_answer(&self.http, &answer, Asked { path: &path, capability: "read" })),
        }
    }
}

/// Whether the server fails, not the secret: then the others are not tried, so that a check ends in time.
fn concerns_all(error: &ProviderError) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unreachable | ErrorKind::Throttled)
}

fn metadata_of(place: &Place) -> String {
    format!("{}metadata/{}", place.mount, place.rest)
}

/// The API path that lists a secret's folder.
fn listing_of(place: &Place) -> String {
    format!("{}detailed-metadata/{}", place.mount, place.folder().0)
}
