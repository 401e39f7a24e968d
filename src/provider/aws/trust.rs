//! The SDK's HTTPS client, and which certificates it trusts: those of `ca_file`, or else the host's.

use crate::{
    host::HostFiles,
    provider::{ErrorKind, trust},
};
use aws_sdk_secretsmanager::config::SharedHttpClient;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Why there is no client; whoever knows the instance's name makes an error of it.
pub type Fault = (ErrorKind, String);

/// The file of the certificates to trust, where it is from here.
pub fn bundle(ca_file: Option<&Path>, host: &HostFiles) -> Result<Option<PathBuf>, Fault> {
    match ca_file {
        Some(named) => host.locate(named).map(Some).map_err(|why| (ErrorKind::Misconfigured, why)),
        None => Ok(host.ca_bundle()),
    }
}

/// A client that trusts the certificates in `bundle` and no other.
pub fn client(bundle: Option<&Path>, named: Option<&Path>) -> Result<SharedHttpClient, Fault> {
    let mut store = TrustStore::empty();
    if let Some(bundle) = bundle {
        let pem = certificates(bundle).map_err(|why| (ErrorKind::Misconfigured, trust::unusable(named, &why)))?;
        store.add_pem_certificate(pem);
    }
    let context = TlsContext::builder().with_trust_store(store).build();
    let context = context.map_err(|_| (ErrorKind::Misconfigured, "the CA certificates cannot be used".to_owned()))?;
    Ok(Builder::new().tls_provider(Provider::rustls(CryptoMode::AwsLc)).tls_context(context).build_https())
}

/// The certificates of a file that rustls takes, in PEM: the SDK's client would panic at any other.
fn certificates(file: &Path) -> Result<Vec<u8>, String> {
    let text = fs::read(file).map_err(|error| error.to_string())?;
    let mut pem = String::new();
    for certificate in CertificateDer::pem_slice_iter(&text).filter_map(Result::ok) {
        if RootCertStore::empty().add(certificate.clone()).is_ok() {
            pem +=
                &format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&certificate));
        }
    }
    if pem.is_empty() { Err("it has no PEM certificate".into()) } else { Ok(pem.into_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_with_a_damaged_certificate_is_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let (kind, text) = client(Some(&file), Some(Path::new("/etc/dso/ca.pem"))).unwrap_err();
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert_eq!(
            text,
            "the CA certificates in /etc/dso/ca.pem cannot be used: it has no PEM certificate: check `ca_file`"
        );
    }
}
