//! An instance of a provider, asked as tests ask.

use dso::{
    provider::{Observed, Provider, ProviderError},
    secret::{Secret, SecretId, SecretVersion},
};
use std::{ops::Deref, sync::Arc};

pub struct Instance(pub Arc<dyn Provider>);

// === impl Instance ===

impl Instance {
    pub fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.0)
    }

    pub async fn secret(&self, reference: &str) -> Secret {
        self.read(&id(reference)).await.unwrap_or_else(|error| panic!("{reference}: {error}"))
    }

    /// The value of a secret that must be there, as text.
    pub async fn text(&self, reference: &str) -> String {
        String::from_utf8(self.secret(reference).await.value.expose().to_vec()).unwrap()
    }

    pub async fn version(&self, reference: &str) -> Result<Observed, ProviderError> {
        self.versions(&[id(reference)]).await.remove(0)
    }
}

impl Deref for Instance {
    type Target = dyn Provider;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

pub fn id(reference: &str) -> Arc<SecretId> {
    Arc::new(reference.parse().unwrap())
}

pub fn version_of(observed: Result<Observed, ProviderError>) -> SecretVersion {
    match observed.unwrap() {
        Observed::Version(version) => version,
        Observed::Unversioned => panic!("unversioned"),
    }
}
