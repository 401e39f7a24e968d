//! A server, a counting proxy before it, the host's `/etc/dso`, and instances of the provider.

use crate::{
    capture,
    support::{bao::Bao, etc::Etc, proxy::Proxy},
};
use dso::{
    provider::{ErrorKind, Observed, Provider, ProviderError, vault::Vault},
    secret::Secret,
};
use serde_json::{Value, json};
use std::{ops::Deref, path::Path, sync::Arc};
use tokio_util::sync::CancellationToken;

pub use crate::support::instance::id;

pub struct World {
    pub bao: Bao,
    pub proxy: Proxy,
    etc: Etc,
}

/// An instance, with its own work running.
pub struct Instance {
    provider: Arc<dyn Provider>,
    cancel: CancellationToken,
}

// === impl World ===

impl World {
    pub async fn new() -> Self {
        Self::with(Bao::start().await).await
    }

    pub async fn with(bao: Bao) -> Self {
        capture::start();
        let proxy = Proxy::before(&bao.address).await;
        let world = Self { etc: Etc::new(), bao, proxy };
        world.write("vault-token", &world.guard(&world.bao.root));
        world
    }

    /// The folder that stands for `/etc/dso`.
    pub fn etc(&self) -> &Path {
        self.etc.path()
    }

    /// A token with this policy, which the instances then use.
    pub async fn log_in_with(&self, hcl: &str) -> String {
        self.bao.policy("p", hcl).await;
        let token = self.guard(&self.bao.token(&["p"], json!({})).await);
        self.write("vault-token", &token);
        token
    }

    /// An instance at the proxy; `more` are further settings.
    pub fn vault(&self, more: &str) -> Instance {
        self.vault_at(self.proxy.address(), more)
    }

    pub fn vault_at(&self, address: &str, more: &str) -> Instance {
        self.named("vault", address, more)
    }

    /// One whose lines in the log are told apart by its name.
    pub fn named(&self, name: &str, address: &str, more: &str) -> Instance {
        let table = format!("address = '{address}'\n{more}").parse().unwrap();
        let provider = Vault::build(name, table, &self.host()).unwrap();
        Instance { provider, cancel: CancellationToken::new() }
    }

    /// The message of an error, with the proxy's address written as `ADDRESS`; and no secret may be in it.
    pub fn message(&self, error: &ProviderError) -> String {
        let (shown, debug) = (error.to_string(), format!("{error:?}"));
        for secret in self.guarded().iter().chain(&self.proxy.tokens()) {
            assert!(!shown.contains(secret) && !debug.contains(secret), "a secret is in an error");
        }
        shown.replace(self.proxy.address(), "ADDRESS")
    }

    /// No secret may be in a text that is shown.
    pub fn hides(&self, shown: &str) {
        for secret in self.guarded().iter().chain(&self.proxy.tokens()) {
            assert!(!shown.contains(secret), "a secret is shown");
        }
    }

    /// The class and the message of a read that must fail.
    pub async fn refused(&self, vault: &Instance, reference: &str) -> (ErrorKind, String) {
        let error = vault.read(&id(reference)).await.expect_err(reference);
        (error.kind(), self.message(&error))
    }
}

impl Deref for World {
    type Target = Etc;

    fn deref(&self) -> &Etc {
        &self.etc
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for secret in self.guarded().iter().chain(&self.proxy.tokens()) {
            assert!(!capture::contains(secret), "a secret is in the log");
        }
    }
}

// === impl Instance ===

impl Instance {
    /// Does what the plugin does for an instance: runs its own work.
    pub fn running(self) -> Self {
        let (provider, cancel) = (Arc::clone(&self.provider), self.cancel.clone());
        let (pushes, _) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move { provider.run(pushes, cancel).await });
        self
    }

    /// The value of a secret that must be there.
    pub async fn value(&self, reference: &str) -> Value {
        serde_json::from_slice(self.secret(reference).await.value.expose()).unwrap()
    }

    pub async fn secret(&self, reference: &str) -> Secret {
        self.read(&id(reference)).await.unwrap_or_else(|error| panic!("{reference}: {error}"))
    }

    pub async fn version(&self, reference: &str) -> Result<Observed, ProviderError> {
        self.versions(&[id(reference)]).await.remove(0)
    }
}

impl Deref for Instance {
    type Target = dyn Provider;

    fn deref(&self) -> &Self::Target {
        &*self.provider
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
