//! The HTTPS client, and which certificates it trusts: those of `ca_file`, or else the host's.

use super::failure::Fault;
use crate::{
    host::HostFiles,
    provider::{ErrorKind, files::Stamp, limits, trust},
};
use reqwest::{
    Certificate, Client,
    dns::{Addrs, Name, Resolve, Resolving},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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
        let client = trust::certificates(&file)
            .and_then(|found| self.build(found).map_err(|_| "one of them is malformed".into()));
        let client = client.map_err(|why| self.unusable(&why))?;
        *made = Some((of, client.clone()));
        Ok(client)
    }

    fn build(&self, certificates: Vec<Certificate>) -> reqwest::Result<Client> {
        let client = trust::client(certificates, limits::CONNECT, self.timeout).https_only(true);
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
        Fault::new(ErrorKind::Misconfigured, trust::unusable(self.ca_file.as_deref(), why))
    }
}

impl Resolve for Fixed {
    fn resolve(&self, _: Name) -> Resolving {
        // The port of the URL goes before this one.
        let address = SocketAddr::new(self.0, 0);
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
    }
}
