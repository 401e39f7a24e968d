//! The HTTP client, and its certificates: those that it trusts, of `ca_file` or else the host's, and its own.

use super::{auth::KeyPair, files::Stamp, settings::VaultSettings};
use crate::{
    host::HostFiles,
    provider::{ErrorKind, limits, trust},
};
use reqwest::{Certificate, Client, Identity};
use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Makes the client at its first use, and again when a file of its certificates has changed.
pub struct Trust {
    ca_file: Option<PathBuf>,
    /// Whether the first hop is plain HTTP: then certificates matter only after a redirect to HTTPS.
    plain: bool,
    /// What the client shows of itself.
    own: Option<KeyPair>,
    timeout: Duration,
    host: HostFiles,
    made: Mutex<Option<Made>>,
}

struct Made {
    of: Vec<Stamp>,
    client: Client,
}

/// Why there is no client; whoever knows the instance's name makes an error of it.
pub type Fault = (ErrorKind, String);

// === impl Trust ===

impl Trust {
    pub fn new(settings: &VaultSettings, host: HostFiles) -> Self {
        Self {
            ca_file: settings.ca_file.clone(),
            plain: settings.address.scheme() == "http",
            own: settings.login.key_pair().cloned(),
            timeout: settings.timeout,
            host,
            made: Mutex::new(None),
        }
    }

    pub fn host(&self) -> &HostFiles {
        &self.host
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Changes with the files of the certificates.
    pub fn stamps(&self) -> Vec<Stamp> {
        let mut stamps = vec![self.file().ok().flatten().map(|file| Stamp::of(&file)).unwrap_or_default()];
        stamps.extend(self.own.iter().flat_map(|pair| pair.stamps(&self.host)));
        stamps
    }

    pub fn client(&self) -> Result<Client, Fault> {
        let file = self.file()?;
        let of = self.stamps();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| made.of == of) {
            return Ok(made.client.clone());
        }
        let certificates = match file.as_deref().map(trust::certificates) {
            None => Vec::new(),
            Some(Ok(found)) => found,
            Some(Err(_)) if self.plain && self.ca_file.is_none() => Vec::new(),
            Some(Err(why)) => return Err((ErrorKind::Misconfigured, self.unusable(&why))),
        };
        let trusting = self
            .build(certificates.clone(), None)
            .map_err(|_| (ErrorKind::Misconfigured, self.unusable("one of them is malformed")))?;
        // Never the client of a CA that was taken away.
        let before = made.take().filter(|made| made.of.first() == of.first());
        let client = match (self.own.as_ref().map(|pair| self.showing(pair, certificates)), before) {
            (None, _) => trusting,
            (Some(Ok(client)), _) => client,
            // A certificate is renewed file by file: for a moment the two do not fit.
            (Some(Err(fault)), Some(before)) => {
                tracing::warn!(%fault, "the client certificate cannot be used: the one before stays in use");
                before.client
            }
            (Some(Err(fault)), None) => return Err((ErrorKind::Misconfigured, fault)),
        };
        *made = Some(Made { of, client: client.clone() });
        Ok(client)
    }

    fn showing(&self, pair: &KeyPair, certificates: Vec<Certificate>) -> Result<Client, String> {
        let identity = pair.read(&self.host).map_err(|why| format!("no client certificate: {why}"))?;
        self.build(certificates, Some(identity)).map_err(|_| {
            let (certificate, key) = (pair.certificate.display(), pair.key.display());
            format!("no client certificate: {key} is not the key of the certificate in {certificate}, or of a kind that cannot be used")
        })
    }

    fn build(&self, certificates: Vec<Certificate>, own: Option<Identity>) -> reqwest::Result<Client> {
        let client = trust::client(certificates, limits::CONNECT, self.timeout);
        match own {
            Some(own) => client.identity(own),
            None => client,
        }
        .build()
    }

    fn file(&self) -> Result<Option<PathBuf>, Fault> {
        match &self.ca_file {
            Some(named) => self.host.locate(named).map(Some).map_err(|why| (ErrorKind::Misconfigured, why)),
            None => match self.host.ca_bundle() {
                None if !self.plain => {
                    Err((ErrorKind::Tls, "the host has no CA bundle in a known place: set `ca_file`".into()))
                }
                bundle => Ok(bundle),
            },
        }
    }

    fn unusable(&self, why: &str) -> String {
        trust::unusable(self.ca_file.as_deref(), why)
    }
}
