//! A directory, the vaults that trust it, a machine's metadata service, the host's `/etc/dso`, and instances of the provider.

use crate::{
    capture,
    support::{
        azure::{directory::Directory, entra::Entra, identity::Identity, tls::Certificates, vault::KeyVault},
        bao::unique,
    },
};
use dso::{
    host::HostFiles,
    provider::{ErrorKind, Observed, Provider, ProviderError, azure::Azure},
    secret::{Secret, SecretId, SecretVersion},
};
use std::{
    fs,
    ops::Deref,
    sync::{Arc, Mutex},
};

pub struct World {
    pub directory: Arc<Directory>,
    pub vault: KeyVault,
    pub machine: Identity,
    pub certificates: Certificates,
    pub etc: tempfile::TempDir,
    /// What must be in no log line and in no error.
    secrets: Mutex<Vec<String>>,
}

pub struct Instance(Arc<dyn Provider>);

// === impl World ===

impl World {
    pub async fn new() -> Self {
        capture::start();
        let (directory, certificates) = (Arc::new(Directory::new()), Certificates::new());
        let vault = KeyVault::start(&directory, &certificates).await;
        let machine = Identity::machine(&directory).await;
        let etc = tempfile::tempdir().unwrap();
        let world = Self { directory, vault, machine, certificates, etc, secrets: Mutex::default() };
        world.write("ca.pem", &fs::read_to_string(world.certificates.ca_file()).unwrap());
        world
    }

    pub async fn entra(&self) -> Entra {
        Entra::start(&self.directory, &self.certificates).await
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

    /// An instance with the machine's identity; `more` are further settings.
    pub fn azure(&self, more: &str) -> Instance {
        self.plain(&format!("auth.metadata_endpoint = '{}'\n{more}", self.machine.address()))
    }

    /// An instance at these vaults, whose identity is what `more` says.
    pub fn plain(&self, more: &str) -> Instance {
        self.instance(&format!("ca_file = '/etc/dso/ca.pem'\n{more}"))
    }

    pub fn instance(&self, more: &str) -> Instance {
        let settings = format!("dns_suffix = '{}'\nprivate_endpoint = '127.0.0.1'\n{more}", self.vault.suffix());
        let built = Azure::build("azure", settings.parse().unwrap(), &HostFiles::on_host(self.etc.path()));
        Instance(built.unwrap_or_else(|faults| panic!("{faults}")))
    }

    /// The class and the message of a read that must fail; no secret may be in it.
    pub async fn refused(&self, azure: &Instance, reference: &str) -> (ErrorKind, String) {
        let error = azure.read(&id(reference)).await.expect_err(reference);
        (error.kind(), self.message(&error))
    }

    /// The message of an error, without the port of the vaults.
    pub fn message(&self, error: &ProviderError) -> String {
        self.hidden(&format!("{error:?}"));
        self.hidden(&error.to_string())
    }

    /// A text that no secret may be in, without the port of the vaults.
    pub fn hidden(&self, shown: &str) -> String {
        for secret in self.all_secrets() {
            assert!(!shown.contains(&secret), "a secret is in what a person is told");
        }
        shown.replace(&self.vault.suffix(), "vault.test")
    }

    fn all_secrets(&self) -> Vec<String> {
        let mut secrets = self.secrets.lock().unwrap().clone();
        secrets.extend(self.directory.issued());
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
