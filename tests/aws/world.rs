//! moto, the gate before it, a container's endpoint, the host's `/etc/dso`, and instances of the provider.

use crate::{
    capture,
    support::{
        aws::{gate::Gate, identity::Identity, moto::Moto},
        bao::unique,
        etc::Etc,
    },
};
use dso::provider::{ErrorKind, ProviderError, aws::Aws};
use std::{ops::Deref, sync::Arc};

pub use crate::support::instance::{Instance, id};

pub struct World {
    pub moto: Moto,
    pub gate: Arc<Gate>,
    /// Gives the instances of [`World::aws`] their credentials.
    pub identity: Identity,
    pub etc: Etc,
}

// === impl World ===

impl World {
    pub async fn new() -> Self {
        capture::start();
        let moto = Moto::start().await;
        let gate = Arc::new(Gate::before(&moto.address).await);
        let etc = Etc::new();
        let identity = Identity::container(&gate, Some(etc.path().join("token"))).await;
        let world = Self { moto, gate, identity, etc };
        world.write("token", &world.guard(&format!("token-{}", unique())));
        world
    }

    /// An instance at the gate with a container's credentials; `more` are further settings.
    pub fn aws(&self, more: &str) -> Instance {
        self.at(self.gate.address(), more)
    }

    /// The same at another endpoint.
    pub fn at(&self, endpoint: &str, more: &str) -> Instance {
        self.instance(&self.settings(endpoint, more))
    }

    /// What such an instance's table holds.
    pub fn settings(&self, endpoint: &str, more: &str) -> String {
        let (gate, identity) = (self.gate.address(), self.identity.address());
        format!(
            "region = 'eu-central-1'\nendpoint = '{endpoint}'\nsts_endpoint = '{gate}'\n\
             container_uri = '{identity}/credentials'\ncontainer_token_file = '/etc/dso/token'\n{more}"
        )
    }

    /// An instance at the gate, without an identity but for what `more` says.
    pub fn plain(&self, more: &str) -> Instance {
        let gate = self.gate.address();
        self.instance(&format!("endpoint = '{gate}'\nsts_endpoint = '{gate}'\n{more}"))
    }

    fn instance(&self, settings: &str) -> Instance {
        Instance(Aws::build("aws", settings.parse().unwrap(), &self.host()).unwrap())
    }

    /// The class and the message of a read that must fail; no secret may be in it.
    pub async fn refused(&self, aws: &Instance, reference: &str) -> (ErrorKind, String) {
        let error = aws.read(&id(reference)).await.expect_err(reference);
        (error.kind(), self.message(&error))
    }

    pub fn message(&self, error: &ProviderError) -> String {
        let (shown, debug) = (error.to_string(), format!("{error:?}"));
        for secret in self.all_secrets() {
            assert!(!shown.contains(&secret) && !debug.contains(&secret), "a secret is in an error");
        }
        shown
    }

    fn all_secrets(&self) -> Vec<String> {
        let mut secrets = self.guarded();
        secrets.extend(self.gate.secrets());
        secrets.extend(self.identity.tokens());
        secrets
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
        for secret in self.all_secrets() {
            assert!(!capture::contains(&secret), "a secret is in the log");
        }
    }
}
