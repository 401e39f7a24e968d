//! A directory, the vaults that trust it, a machine's metadata service, the host's `/etc/dso`, and instances of the provider.

use crate::{
    capture,
    support::{
        azure::{directory::Directory, entra::Entra, identity::Identity, tls::Certificates, vault::KeyVault},
        etc::Etc,
    },
};
use dso::provider::{ErrorKind, ProviderError, azure::Azure};
use std::{fs, ops::Deref, sync::Arc};

pub use crate::support::instance::{Instance, id};

pub struct World {
    pub directory: Arc<Directory>,
    pub vault: KeyVault,
    pub machine: Identity,
    pub certificates: Certificates,
    pub etc: Etc,
}

// === impl World ===

impl World {
    pub async fn new() -> Self {
        capture::start();
        let (directory, certificates) = (Arc::new(Directory::new()), Certificates::new());
        let vault = KeyVault::start(&directory, &certificates).await;
        let machine = Identity::machine(&directory).await;
        let etc = Etc::new();
        let world = Self { directory, vault, machine, certificates, etc };
        world.write("ca.pem", &fs::read_to_string(world.certificates.ca_file()).unwrap());
        world
    }

    pub async fn entra(&self) -> Entra {
        Entra::start(&self.directory, &self.certificates).await
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
        let built = Azure::build("azure", settings.parse().unwrap(), &self.host());
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
        let mut secrets = self.guarded();
        secrets.extend(self.directory.issued());
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
