//! Whom an instance trusts, those of `ca_file` or else the host's; and the client by which it speaks to nobody else.

use reqwest::{Certificate, Client, ClientBuilder, redirect};
use std::{fs, path::Path, time::Duration};

/// A client that trusts `certificates` alone, and takes no redirect, proxy or referer: a credential goes where it was sent, and
/// nowhere from there. Connecting may take `connect` of `whole`.
pub fn client(certificates: Vec<Certificate>, connect: Duration, whole: Duration) -> ClientBuilder {
    Client::builder()
        .tls_certs_only(certificates)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(whole.min(connect))
        .timeout(whole)
}

/// The certificates of a PEM file, of which there must be one.
pub fn certificates(file: &Path) -> Result<Vec<Certificate>, String> {
    let pem = fs::read(file).map_err(|error| error.to_string())?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err("it has no PEM certificate".into()),
    }
}

/// What a person is told of certificates that cannot be used.
pub fn unusable(ca_file: Option<&Path>, why: &str) -> String {
    let named = ca_file.map_or("the host's CA bundle".into(), |file| file.display().to_string());
    let hint = if ca_file.is_some() { "check `ca_file`" } else { "mend it, or set `ca_file`" };
    format!("the CA certificates in {named} cannot be used: {why}: {hint}")
}
