//! moto, the gate before it, a container's endpoint, the host's `/etc/dso`, and instances of the provider.

use crate::{
    capture,
    support::{
        aws::{gate::Gate, identity::Identity, moto::Moto},
        bao::unique,
    },
};
use dso::{
    host::HostFiles,
    provider::{ErrorKind, Observed, Provider, ProviderError, aws::Aws},
    secret::{Secret, SecretId, SecretVersion},
};
use std::{
    fs,
    ops::Deref,
    sync::{Arc, Mutex},
};

pub struct World {
    pub moto: Moto,
    pub gate: Arc<Gate>,
    /// Gives the instances of [`World::aws`] their credentials.
    pub identity: Identity,
    pub etc: tempfile::TempDir,
    /// What must be in no log line and in no error.
    secrets: Mutex<Vec<String>>,
}

pub struct Instance(Arc<dyn Provider>);

// === impl World ===

impl World {
    pub async fn new() -> Self {
        capture::start();
        let moto = Moto::start().await;
        let gate = Arc::new(Gate::before(&moto.address).await);
        let etc = tempfile::tempdir().unwrap();
        let identity = Identity::container(&gate, Some(etc.path().join("token"))).await;
        let world = Self { moto, gate, identity, etc, secrets: Mutex::default() };
        world.write("token", &world.guard(&format!("token-{}", unique())));
        world
    }

    /// A text that must not be seen anywhere but in the value it is part of.
    pub fn canary(&self) -> String {
        self.guard(&format!("canary-{}", unique()))
    }

    pub fn guard(&self, secret: &str) -> String {
        self.secrets.lock().unwrap().push(secret.to_owned());
        secret.to_owned()
    }

    /// Writes a file of `/etc/dso` as provisioning does: whole or not at all.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.etc.path().join(".new"), content).unwrap();
        fs::rename(self.etc.path().join(".new"), self.etc.path().join(name)).unwrap();
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
        Instance(Aws::build("aws", settings.parse().unwrap(), &HostFiles::on_host(self.etc.path())).unwrap())
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
        let mut secrets = self.secrets.lock().unwrap().clone();
        secrets.extend(self.gate.secrets());
        secrets.extend(self.identity.tokens());
        secrets
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
