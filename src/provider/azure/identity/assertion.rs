//! What an application proves itself with: a token of an issuer that it trusts, or one that its certificate's key has signed.

use crate::{
    host::HostFiles,
    provider::{ErrorKind, azure::failure::Fault, files},
};
use async_trait::async_trait;
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{RSA_PSS_SHA256, RsaKeyPair},
};
use azure_core::http::{ClientMethodOptions, Url};
use azure_identity::ClientAssertion;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use std::{
    fmt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// How long an assertion may be used: it is, at once.
const LIFE: u64 = 300;

pub struct Application {
    pub tenant: String,
    pub client: String,
    pub proof: Proof,
}

pub enum Proof {
    /// The file of a token that its issuer renews.
    Federated(PathBuf),
    /// PEM files of the certificate and of its key, which may be one.
    Certificate { certificate: PathBuf, key: PathBuf },
}

/// An assertion for one exchange.
pub struct Assertion(Zeroizing<String>);

// === impl Application ===

impl Application {
    pub fn who(&self) -> String {
        let proof = match self.proof {
            Proof::Federated(_) => "a federated token",
            Proof::Certificate { .. } => "a certificate",
        };
        format!("the application {} of the tenant {}, by {proof}", self.client, self.tenant)
    }
}

// === impl Assertion ===

impl Assertion {
    pub fn make(application: &Application, authority: &Url, host: &HostFiles) -> Result<Self, Fault> {
        let made = match &application.proof {
            Proof::Federated(file) => files::read_word(host, file).map_err(|why| format!("no federated token: {why}")),
            Proof::Certificate { certificate, key } => sign(application, certificate, key, authority, host),
        };
        made.map(Self).map_err(|why| Fault::new(ErrorKind::Misconfigured, why))
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assertion(redacted)")
    }
}

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.to_string())
    }
}

/// As Entra ID wants it: PS256, with the certificate named by its SHA-256.
fn sign(
    application: &Application,
    certificate: &Path,
    key: &Path,
    authority: &Url,
    host: &HostFiles,
) -> Result<Zeroizing<String>, String> {
    let (named, key_named) = (certificate.display(), key.display());
    let pem = files::read_named(host, certificate).map_err(|why| format!("no client certificate: {why}"))?;
    if pem.starts_with(&[0x30]) {
        return Err(format!(
            "{named} is no PEM file: write a PKCS#12 file anew as one (openssl pkcs12 -in FILE -nodes -out {named})"
        ));
    }
    let found = CertificateDer::from_pem_slice(&pem).map_err(|_| format!("{named} holds no PEM certificate"))?;
    let pair = match key == certificate {
        true => read_key(&pem),
        false => {
            read_key(&files::read_named(host, key).map_err(|why| format!("no key of the client certificate: {why}"))?)
        }
    };
    let pair = pair
        .ok_or_else(|| format!("{key_named} holds no unencrypted RSA private key in PEM, which Entra ID asks for"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| "the kernel gives no random bytes")?;
    let header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": encode(digest(&SHA256, &found).as_ref())});
    let audience = authority.join(&format!("/{}/oauth2/v2.0/token", application.tenant));
    let audience = audience.map_err(|_| "`auth.tenant_id` fits into no address")?;
    let claims = json!({
        "aud": audience.as_str(), "iss": application.client, "sub": application.client, "jti": encode(&id),
        "nbf": now, "iat": now, "exp": now + LIFE,
    });
    let mut token =
        Zeroizing::new(format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes())));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
        .map_err(|_| format!("the key in {key_named} cannot sign"))?;
    *token = format!("{}.{}", *token, encode(&signature));
    Ok(token)
}

fn read_key(pem: &[u8]) -> Option<RsaKeyPair> {
    let key = Zeroizing::new(PrivateKeyDer::from_pem_slice(pem).ok()?);
    match &*key {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok(),
        _ => None,
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
