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
    provider::{ErrorKind, Observed, ProviderError, each},
    secret::SecretId,
};
use reqwest::Method;
use std::{collections::HashMap, sync::Arc};

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
        let version = |id: Arc<SecretId>| {
            let this = Arc::clone(this);
            async move { this.bounded(this.version(&id)).await }
        };
        each::of(ids, version, || this.http.error(ErrorKind::Unavailable, "the check was cut short")).await
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

fn metadata_of(place: &Place) -> String {
    format!("{}metadata/{}", place.mount, place.rest)
}

/// The API path that lists a secret's folder.
fn listing_of(place: &Place) -> String {
    format!("{}detailed-metadata/{}", place.mount, place.folder().0)
}
