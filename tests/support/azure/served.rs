//! Azure for tests that are not asynchronous themselves: four instances of the provider, each with an identity of another kind.

use super::{
    directory::{Directory, TENANT, now},
    entra::{CLIENT, Entra, SUBJECT},
    identity::Identity,
    tls::Certificates,
    vault::KeyVault,
};
use crate::support::bao::unique;
use serde_json::{Value, json};
use std::{fs, sync::Arc, time::Duration};
use tokio::runtime::{Builder, Runtime};

/// All of it ends when this is dropped.
pub struct AzureServer {
    pub vault: KeyVault,
    /// What is in the files of the identity endpoint's header, of the federated token and of the application's key.
    pub header: String,
    pub federated: String,
    pub key: String,
    certificate: String,
    directory: Arc<Directory>,
    machine: Identity,
    service: Identity,
    entra: Entra,
    certificates: Certificates,
    _runtime: Runtime,
}

// === impl AzureServer ===

impl AzureServer {
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (directory, certificates) = (Arc::new(Directory::new()), Certificates::new());
        // So that tokens are renewed while the test runs.
        directory.last(Duration::from_secs(60));
        let header = format!("header-{}", unique());
        let (vault, machine, service, entra) = runtime.block_on(async {
            let vault = KeyVault::start(&directory, &certificates).await;
            let machine = Identity::machine(&directory).await;
            let service = Identity::app_service(&directory, &header).await;
            let entra = Entra::start(&directory, &certificates).await;
            (vault, machine, service, entra)
        });
        let (pem, public) = certificates.client();
        let (key, certificate) = pem.split_at(pem.find("-----BEGIN CERTIFICATE").expect("a certificate"));
        entra.trust(&pem, &public);
        let (federated, key, certificate) = (entra.federated(SUBJECT), key.to_owned(), certificate.to_owned());
        let _runtime = runtime;
        Self { vault, header, federated, key, certificate, directory, machine, service, entra, certificates, _runtime }
    }

    /// A new version of a secret of the vault `corp`.
    pub fn put(&self, name: &str, body: Value) {
        self.vault.set("corp", name, body, now(), json!({}));
    }

    /// The files of `/etc/dso` that hold no secret.
    pub fn public_files(&self) -> [(&'static str, String); 2] {
        let ca = fs::read_to_string(self.certificates.ca_file()).expect("the CA");
        [("azure-ca.pem", ca), ("azure-client.pem", self.certificate.clone())]
    }

    /// The files of `/etc/dso` that hold what an identity consists of.
    pub fn secret_files(&self) -> [(&'static str, String); 3] {
        [
            ("azure-header", self.header.clone()),
            ("azure-federated", self.federated.clone()),
            ("azure-client.key", self.key.clone()),
        ]
    }

    /// The ports of all servers on 127.0.0.1.
    pub fn ports(&self) -> [u16; 4] {
        [self.vault.address(), self.machine.address(), self.service.address(), self.entra.address()]
            .map(|address| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port"))
    }

    /// The lines of `dso.toml` for `azure` (a machine's identity), `app` (App Service's), `work` (a workload's) and `cert` (an
    /// application's with a certificate).
    pub fn settings(&self) -> String {
        let application = format!(
            "authority_host = '{}'\nauth.tenant_id = '{TENANT}'\nauth.client_id = '{CLIENT}'\n",
            self.entra.address()
        );
        let service = format!(
            "auth.identity_endpoint = '{}/msi/token'\nauth.identity_header_file = '/etc/dso/azure-header'",
            self.service.address()
        );
        let identities = [
            ("azure", format!("auth.metadata_endpoint = '{}'", self.machine.address())),
            ("app", service),
            ("work", format!("{application}auth.token_file = '/etc/dso/azure-federated'")),
            (
                "cert",
                format!(
                    "{application}auth.certificate_file = '/etc/dso/azure-client.pem'\n\
                     auth.key_file = '/etc/dso/azure-client.key'"
                ),
            ),
        ];
        let suffix = self.vault.suffix();
        let table = |(name, identity): &(&str, String)| {
            format!(
                "[provider.{name}]\ntype = 'azure'\ndns_suffix = '{suffix}'\nprivate_endpoint = '127.0.0.1'\n\
                 ca_file = '/etc/dso/azure-ca.pem'\n{identity}\n"
            )
        };
        identities.iter().map(table).collect()
    }

    /// Every token that was given out so far, and every assertion that one was given for.
    pub fn identities(&self) -> Vec<String> {
        let used = [self.machine.asked().len(), self.service.asked().len()];
        let assertions = self.entra.assertions();
        assert!(used.iter().all(|count| *count > 0) && assertions.len() > 1, "every identity was used");
        [self.directory.issued(), assertions].concat()
    }
}
