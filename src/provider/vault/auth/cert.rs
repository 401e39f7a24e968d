//! Method `cert`: the certificate of this client, shown when a connection is made.

use super::{Grant, exchange};
use crate::{
    host::HostFiles,
    provider::{
        ProviderError,
        vault::{
            files::{self, Stamp},
            http::Http,
        },
    },
};
use reqwest::Identity;
use std::path::PathBuf;
use zeroize::Zeroizing;

pub struct Cert {
    pub mount: String,
    /// Without one the server tries every role.
    pub role: Option<String>,
    pub pair: KeyPair,
}

/// A certificate with its chain, and its private key, in PEM files.
#[derive(Clone)]
pub struct KeyPair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

// === impl Cert ===

impl Cert {
    pub fn key_pair(&self) -> &KeyPair {
        &self.pair
    }

    pub async fn log_in(&self, http: &Http) -> Result<Grant, ProviderError> {
        let fields: Vec<_> = self.role.iter().map(|role| ("name", role.as_str())).collect();
        let refused = format!(
            "the certificate in {} has expired, or {} does not trust its issuer or its names",
            self.pair.certificate.display(),
            self.role.as_ref().map_or("every role".into(), |role| format!("role `{role}`")),
        );
        exchange(http, &self.mount, &fields, &refused).await
    }
}

// === impl KeyPair ===

impl KeyPair {
    pub fn stamps(&self, host: &HostFiles) -> [Stamp; 2] {
        [&self.certificate, &self.key].map(|file| Stamp::of_named(host, file))
    }

    /// What the connection shows; whether the two belong together shows when the client is made.
    pub fn read(&self, host: &HostFiles) -> Result<Identity, String> {
        let certificate = files::read_named(host, &self.certificate)?;
        let key = files::read_named(host, &self.key)?;
        let mut both = Zeroizing::new(Vec::with_capacity(certificate.len() + key.len() + 1));
        both.extend_from_slice(&certificate);
        both.push(b'\n');
        both.extend_from_slice(&key);
        // The library's own words could quote what it read.
        Identity::from_pem(&both).map_err(|_| {
            let (certificate, key) = (self.certificate.display(), self.key.display());
            format!("{certificate} and {key} must be a PEM certificate and its unencrypted PEM private key")
        })
    }
}
