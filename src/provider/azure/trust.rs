//! The HTTPS client, and which certificates it trusts: those of `ca_file`, or else the host's.

use super::failure::Fault;
use crate::{
    host::HostFiles,
    provider::{ErrorKind, files::Stamp},
};
use reqwest::{
    Certificate, Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the client at its first use, and again when the file of its certificates has changed.
pub struct Trust {
    ca_file: Option<PathBuf>,
    timeout: Duration,
    /// Where every name leads, whatever DNS says.
    address: Option<IpAddr>,
    host: HostFiles,
    made: Mutex<Option<(Stamp, Client)>>,
}

/// Names that all lead to one address: a private endpoint's.
struct Fixed(IpAddr);

// === impl Trust ===

impl Trust {
    pub fn new(ca_file: Option<PathBuf>, timeout: Duration, address: Option<IpAddr>, host: HostFiles) -> Self {
        Self { ca_file, timeout, address, host, made: Mutex::new(None) }
    }

    pub fn client(&self) -> Result<Client, Fault> {
        let file = self.file()?;
        let of = Stamp::of(&file);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = made.as_ref().filter(|(stamp, _)| *stamp == of) {
            return Ok(client.clone());
        }
        let client =
            certificates(&file).and_then(|found| self.build(found).map_err(|_| "one of them is malformed".into()));
        let client = client.map_err(|why| self.unusable(&why))?;
        *made = Some((of, client.clone()));
        Ok(client)
    }

    fn build(&self, certificates: Vec<Certificate>) -> reqwest::Result<Client> {
        let client = Client::builder()
            .tls_certs_only(certificates)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(self.timeout.min(CONNECT_TIMEOUT))
            .timeout(self.timeout);
        match self.address {
            Some(address) => client.dns_resolver(Arc::new(Fixed(address))),
            None => client,
        }
        .build()
    }

    fn file(&self) -> Result<PathBuf, Fault> {
        match &self.ca_file {
            Some(named) => self.host.locate(named).map_err(|why| Fault::new(ErrorKind::Misconfigured, why)),
            None => self
                .host
                .ca_bundle()
                .ok_or_else(|| Fault::new(ErrorKind::Tls, "the host has no CA bundle in a known place: set `ca_file`")),
        }
    }

    fn unusable(&self, why: &str) -> Fault {
        let named = self.ca_file.as_ref().map_or("the host's CA bundle".into(), |file| file.display().to_string());
        let hint = if self.ca_file.is_some() { "check `ca_file`" } else { "mend it, or set `ca_file`" };
        let text = format!("the CA certificates in {named} cannot be used: {why}: {hint}");
        Fault::new(ErrorKind::Misconfigured, text)
    }
}

impl Resolve for Fixed {
    fn resolve(&self, _: Name) -> Resolving {
        // The port of the URL goes before this one.
        let address = SocketAddr::new(self.0, 0);
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, String> {
    let pem = fs::read(file).map_err(|error| error.to_string())?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err("it has no PEM certificate".into()),
    }
}
