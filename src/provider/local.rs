//! Provider `local`: the embedded store, one age-encrypted file on the host.
//!
//! # Guarantees
//! - The file's state is compared at every call, so a change that no event told of is never answered with an old value.
//! - A damaged, empty or unreadable store is an error, never an empty store.
//!
//! # Caveats
//! Whoever is root on the host reads the store: the identity lies beside it. age does not sign, so whoever may
//! write the store and knows its public key can put another in its place.

mod document;
mod edit;
mod error;
mod file;
mod object;
mod place;
mod seal;
mod store;

use super::{ErrorKind, Observed, Provider, ProviderError, Pushes};
use crate::{
    faults::Faults,
    findings::Finding,
    host::HostFiles,
    secret::{Secret, SecretId, SecretValue},
    watch,
};
use async_trait::async_trait;
use std::sync::Arc;
use store::Loaded;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use edit::{Done, Listed, LocalStore, Target, VALUE_LIMIT};
pub use error::StoreError;
use place::Place;

/// One embedded store.
pub struct Local {
    instance: String,
    place: Place,
    /// What was read last. Locked while it is read anew, so that many callers make one read.
    loaded: Arc<Mutex<Option<Loaded>>>,
}

// === impl Local ===

impl Local {
    pub fn build(instance: &str, table: toml::Table, host: &HostFiles) -> Result<Arc<dyn Provider>, Faults> {
        let place = Place::read(instance, table, host)?;
        Ok(Arc::new(Self { instance: instance.into(), place, loaded: Arc::default() }))
    }

    /// Calls `look` with the store as it is now.
    ///
    /// The read goes on if the caller is dropped, and the next caller finds its result.
    async fn with<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Loaded) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let mut loaded = self.loaded.clone().lock_owned().await;
        let place = self.place.clone();
        let done = tokio::task::spawn_blocking(move || look(current(&place, &mut loaded)?)).await;
        match done {
            Ok(result) => result.map_err(|error| (&error).into()),
            Err(_) => Err(ProviderError::new(ErrorKind::Unavailable, "reading the local store was interrupted")),
        }
    }
}

/// What was read last if the file is still the same, or what it holds now.
fn current<'a>(place: &Place, loaded: &'a mut Option<Loaded>) -> Result<&'a Loaded, StoreError> {
    let files = place.files()?;
    // Dropped before the new one is read: of two copies in memory the old one serves nobody.
    match loaded.take().filter(|loaded| loaded.is_current(&files)) {
        Some(same) => Ok(loaded.insert(same)),
        None => Ok(loaded.insert(Loaded::read(&files)?)),
    }
}

#[async_trait]
impl Provider for Local {
    fn validate(&self, id: &SecretId) -> Result<(), String> {
        match id.params().keys().next() {
            Some(name) => Err(format!("provider `{}` knows no parameter, and `{name}` was given", self.instance)),
            None => Ok(()),
        }
    }

    async fn read(&self, id: &SecretId) -> Result<Secret, ProviderError> {
        let name = id.path().to_owned();
        self.with(move |Loaded { document, .. }| {
            let entry = document.get(&name).ok_or_else(|| store::missing(document, &name))?;
            Ok(Secret { version: document.version(entry), value: entry.value.clone() })
        })
        .await
    }

    fn identity(&self) -> String {
        format!("the identity file {}", self.place.identity().display())
    }

    /// All secrets are in one file.
    fn batch(&self, _id: &SecretId) -> Option<String> {
        Some("store".into())
    }

    async fn versions(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        let asked = ids.to_vec();
        let answers = self.with(move |Loaded { document, .. }| {
            let version = |id: &Arc<SecretId>| match document.get(id.path()) {
                Some(entry) => Ok(Observed::Version(document.version(entry))),
                None => Err(ProviderError::from(&store::missing(document, id.path()))),
            };
            Ok(asked.iter().map(version).collect())
        });
        answers.await.unwrap_or_else(|error| ids.iter().map(|_| Err(error.clone())).collect())
    }

    async fn examine(&self) -> Vec<Finding> {
        let counted = self.with(|Loaded { document, .. }| Ok(document.entries().count())).await;
        vec![match counted {
            Ok(count) => Finding::ok("provider", "", format!("the store opens, and holds {count} secrets")),
            // Whoever uses another provider has none, and needs none.
            Err(error) if error.kind() == ErrorKind::NotFound => Finding::ok("provider", "", error.to_string()),
            Err(error) => Finding::error("provider", "", error.to_string(), error.kind().advice()),
        }]
    }

    async fn run(&self, pushes: Pushes, cancel: CancellationToken) {
        let files = || {
            let files = self.place.files().map_err(std::io::Error::other)?;
            Ok(vec![files.store.path, files.identity.path])
        };
        let watching = watch::watch(&self.instance, files, || {
            let _ = pushes.send(self.instance.clone());
        });
        tokio::select! {
            () = cancel.cancelled() => {}
            () = watching => {}
        }
    }
}

impl Target {
    /// A value as a person gave it, for [`LocalStore::set`].
    pub fn value(bytes: Zeroizing<Vec<u8>>) -> SecretValue {
        SecretValue::new(bytes)
    }
}

#[cfg(test)]
mod tests;
