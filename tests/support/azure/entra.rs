//! Entra ID's token endpoint: an application proves itself by a federated token or by its certificate's signature.

use super::{
    super::server::{Reply, Seen, Server},
    directory::{Directory, TENANT, now},
    tls::{Certificates, openssl, try_openssl},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub const CLIENT: &str = "bbbbbbbb-0000-0000-0000-000000000001";
/// What a federated token is for, and who it is of.
pub const AUDIENCE: &str = "api://AzureADTokenExchange";
pub const SUBJECT: &str = "system:serviceaccount:default:dso";

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub struct Entra {
    server: Server,
    state: Arc<State>,
}

struct State {
    directory: Arc<Directory>,
    /// Who issues federated tokens.
    pub issuer: Directory,
    address: Mutex<String>,
    /// The PEM public key and the certificate of the application.
    certificate: Mutex<Option<(String, String)>>,
    faults: Mutex<Vec<Reply>>,
    refused: Mutex<Vec<String>>,
    assertions: Mutex<Vec<String>>,
}

// === impl Entra ===

impl Entra {
    pub async fn start(directory: &Arc<Directory>, certificates: &Certificates) -> Self {
        let (address, certificate, faults, refused, assertions) = Default::default();
        let issuer = Directory::new();
        let state =
            State { directory: Arc::clone(directory), issuer, address, certificate, faults, refused, assertions };
        let (state, (cert, key)) = (Arc::new(state), certificates.files());
        let answering = Arc::clone(&state);
        let server = Server::start_tls((&cert, &key), move |seen| {
            let reply = answering.respond(&seen);
            Box::pin(async move { reply })
        })
        .await;
        *lock(&state.address) = server.address().to_owned();
        Self { server, state }
    }

    pub fn address(&self) -> &str {
        self.server.address()
    }

    /// A token by which an outside workload proves itself.
    pub fn federated(&self, subject: &str) -> String {
        let claims = json!({"aud": AUDIENCE, "sub": subject, "nbf": now() - 1, "exp": now() + 3600});
        self.state.issuer.sign(&claims)
    }

    /// The application's certificate, and its public key.
    pub fn trust(&self, pem: &str, public_key: &str) {
        *lock(&self.state.certificate) = Some((pem.into(), public_key.into()));
    }

    pub fn fail(&self, reply: Reply) {
        lock(&self.state.faults).push(reply);
    }

    pub fn refused(&self) -> Vec<String> {
        lock(&self.state.refused).clone()
    }

    /// Every assertion that came.
    pub fn assertions(&self) -> Vec<String> {
        lock(&self.state.assertions).clone()
    }
}

// === impl State ===

impl State {
    fn respond(&self, seen: &Seen) -> Reply {
        if let Some(reply) = lock(&self.faults).pop() {
            return reply;
        }
        match self.check(seen) {
            Ok(audience) => {
                let (token, ends) = self.directory.issue(&audience);
                let life = ends.saturating_sub(now());
                let body =
                    json!({"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token});
                Reply::new(200, body.to_string()).header("content-type", "application/json; charset=utf-8")
            }
            Err((status, code, why)) => {
                lock(&self.refused).push(why.into());
                let body = json!({
                    "error": "invalid_client", "error_description": format!("AADSTS{code}: {why}. Trace ID: x"),
                    "error_codes": [code],
                });
                Reply::new(status, body.to_string()).header("content-type", "application/json; charset=utf-8")
            }
        }
    }

    fn check(&self, seen: &Seen) -> Result<String, (u16, u32, &'static str)> {
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(&seen.body).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        lock(&self.assertions).push(field("client_assertion").to_owned());
        if seen.method != "POST" || seen.path != format!("/{TENANT}/oauth2/v2.0/token") {
            return Err((400, 90002, "no such tenant"));
        }
        if seen.header("content-type") != Some("application/x-www-form-urlencoded") {
            return Err((400, 900144, "no form"));
        }
        if field("grant_type") != "client_credentials" {
            return Err((400, 70003, "another grant"));
        }
        if field("client_id") != CLIENT {
            return Err((400, 700016, "no such application"));
        }
        if field("client_assertion_type") != JWT_BEARER || form.contains_key("client_secret") {
            return Err((401, 7000218, "no assertion"));
        }
        let audience = field("scope").strip_suffix("/.default").ok_or((400, 70011, "a scope without .default"))?;
        let assertion = field("client_assertion");
        let header = part(assertion, 0).ok_or((401, 50027, "no JWT"))?;
        match header["alg"].as_str() {
            Some("HS256") => self.check_federated(assertion)?,
            Some("PS256") => self.check_signed(assertion, &header).map_err(|why| (401, 700027, why))?,
            _ => return Err((401, 5002727, "another algorithm")),
        }
        Ok(audience.to_owned())
    }

    fn check_federated(&self, assertion: &str) -> Result<(), (u16, u32, &'static str)> {
        let claims = self.issuer.check(assertion, AUDIENCE).map_err(|why| match why {
            "a token that has ended" => (401, 700024, why),
            _ => (401, 700211, why),
        })?;
        if claims["sub"].as_str() == Some(SUBJECT) { Ok(()) } else { Err((401, 700213, "another subject")) }
    }

    fn check_signed(&self, assertion: &str, header: &Value) -> Result<(), &'static str> {
        let (pem, public_key) = lock(&self.certificate).clone().ok_or("the application has no certificate")?;
        let home = tempfile::tempdir().unwrap();
        let (signed, signature) = assertion.rsplit_once('.').ok_or("no signature")?;
        fs::write(home.path().join("cert"), pem).unwrap();
        let der = openssl(home.path(), &["x509", "-in", "cert", "-outform", "DER"], b"");
        let thumbprint = openssl(home.path(), &["dgst", "-sha256", "-binary"], &der);
        if header["x5t#S256"].as_str() != Some(&URL_SAFE_NO_PAD.encode(thumbprint)) || header["typ"] != "JWT" {
            return Err("another certificate");
        }
        fs::write(home.path().join("key"), public_key).unwrap();
        fs::write(home.path().join("signature"), URL_SAFE_NO_PAD.decode(signature).map_err(|_| "no signature")?)
            .unwrap();
        let verify = ["dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
        let verify = [&verify[..], &["-verify", "key", "-signature", "signature"]].concat();
        if !try_openssl(home.path(), &verify, signed.as_bytes()).0 {
            return Err("a wrong signature");
        }
        let claims = part(assertion, 1).ok_or("no claims")?;
        if claims["aud"].as_str() != Some(&format!("{}/{TENANT}/oauth2/v2.0/token", lock(&self.address))) {
            return Err("another audience");
        }
        if claims["iss"] != CLIENT || claims["sub"] != CLIENT || claims["jti"].as_str().is_none_or(str::is_empty) {
            return Err("another issuer, subject or no id");
        }
        let (from, to) = (claims["nbf"].as_u64().unwrap_or(u64::MAX), claims["exp"].as_u64().unwrap_or(0));
        if from > now() || to <= now() || to - from > 600 { Err("another time") } else { Ok(()) }
    }
}

fn part(token: &str, n: usize) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(n)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
