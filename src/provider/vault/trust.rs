//! The HTTP client, and which certificates it trusts: those of `ca_file`, or else the host's.

use super::files::Stamp;
use crate::{host::HostFiles, provider::ErrorKind};
use reqwest::{Certificate, Client, redirect};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the client at its first use, and again when the CA's file has changed.
pub struct Trust {
    ca_file: Option<PathBuf>,
    /// Whether the first hop is plain HTTP: then certificates matter only after a redirect to HTTPS.
    plain: bool,
    timeout: Duration,
    host: HostFiles,
    made: Mutex<Option<(Stamp, Client)>>,
}

/// Why there is no client; whoever knows the instance's name makes an error of it.
pub type Fault = (ErrorKind, String);

// === impl Trust ===

impl Trust {
    pub fn new(ca_file: Option<PathBuf>, plain: bool, timeout: Duration, host: HostFiles) -> Self {
        Self { ca_file, plain, timeout, host, made: Mutex::new(None) }
    }

    pub fn host(&self) -> &HostFiles {
        &self.host
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Changes with the file of the certificates to trust.
    pub fn stamp(&self) -> Stamp {
        self.file().ok().flatten().map(|file| Stamp::of(&file)).unwrap_or_default()
    }

    pub fn client(&self) -> Result<Client, Fault> {
        let file = self.file()?;
        let stamp = file.as_deref().map(Stamp::of).unwrap_or_default();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, client)) = &*made
            && *of == stamp
        {
            return Ok(client.clone());
        }
        let certificates = match file.as_deref().map(certificates) {
            None => Vec::new(),
            Some(Ok(found)) => found,
            Some(Err(_)) if self.plain && self.ca_file.is_none() => Vec::new(),
            Some(Err(why)) => return Err((ErrorKind::Misconfigured, self.unusable(&why))),
        };
        let client = Client::builder()
            .tls_certs_only(certificates)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(self.timeout.min(CONNECT_TIMEOUT))
            .timeout(self.timeout)
            .build()
            .map_err(|_| (ErrorKind::Misconfigured, self.unusable("one of them is malformed")))?;
        *made = Some((stamp, client.clone()));
        Ok(client)
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
        let named = self.ca_file.as_ref().map_or("the host's CA bundle".into(), |file| file.display().to_string());
        let hint = if self.ca_file.is_some() { "check `ca_file`" } else { "mend it, or set `ca_file`" };
        format!("the CA certificates in {named} cannot be used: {why}: {hint}")
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, String> {
    let pem = fs::read(file).map_err(|error| error.to_string())?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err("it has no PEM certificate".into()),
    }
}
