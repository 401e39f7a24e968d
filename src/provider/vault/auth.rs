//! The ways to log in: each turns an identity of the host into a token.
//!
//! A method is one file below, one variant of [`Login`] and its keys in [`super::settings`].

mod approle;
mod aws;
mod azure;
mod cert;
mod gcp;
mod jwt;
mod metadata;
mod token_file;

use super::{
    failure::{self, Asked},
    files::Stamp,
    http::{Http, Request},
};
use crate::{
    host::HostFiles,
    provider::{ErrorKind, ProviderError},
};
use serde::Deserialize;
use std::{borrow::Cow, time::Duration};
use zeroize::Zeroizing;

pub use approle::{AppRole, RoleId};
pub use aws::Aws;
pub use azure::{Azure, ManagedIdentity};
pub use cert::{Cert, KeyPair};
pub use gcp::Gcp;
pub use jwt::Jwt;
pub use metadata::Metadata;
pub use token_file::TokenFile;

/// How an instance logs in.
pub enum Login {
    TokenFile(TokenFile),
    AppRole(AppRole),
    /// Also `kubernetes`, whose login is the same under another name.
    Jwt(Jwt),
    Cert(Cert),
    Aws(Box<Aws>),
    Azure(Azure),
    Gcp(Gcp),
}

/// What a login gave.
pub struct Grant {
    pub token: Zeroizing<String>,
    /// How long the token lives from now, unless renewed; zero means for ever.
    pub ttl: Duration,
    pub renewable: bool,
}

/// The `auth` part of an answer. vaultrs' `AuthInfo` asks for fields that servers leave out
/// (`token_policies` of a role that has none), and keeps the token in a `String` that `Debug` shows.
#[derive(Deserialize)]
struct Auth<'a> {
    #[serde(borrow)]
    client_token: Cow<'a, str>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

// === impl Login ===

impl Login {
    /// The method's name in the settings.
    pub fn method(&self) -> &'static str {
        match self {
            Self::TokenFile(_) => "token-file",
            Self::AppRole(_) => "approle",
            Self::Jwt(login) => login.method(),
            Self::Cert(_) => "cert",
            Self::Aws(_) => "aws",
            Self::Azure(_) => "azure",
            Self::Gcp(_) => "gcp",
        }
    }

    /// Changes with the files that the login reads. Those of a client's certificate are the connection's.
    pub fn stamp(&self, host: &HostFiles) -> Vec<Stamp> {
        match self {
            Self::TokenFile(login) => vec![login.stamp(host)],
            Self::AppRole(login) => login.stamps(host),
            Self::Jwt(login) => vec![login.stamp(host)],
            Self::Azure(login) => login.stamps(host),
            Self::Aws(login) => login.caller.files().iter().map(|file| Stamp::of(file)).collect(),
            Self::Cert(_) | Self::Gcp(_) => Vec::new(),
        }
    }

    /// Whether the file holds the token itself: then a changed file is a new token, and nothing but
    /// renewal keeps the one that it holds alive.
    pub fn is_token_file(&self) -> bool {
        matches!(self, Self::TokenFile(_))
    }

    /// The certificate that every connection shows to the server.
    pub fn key_pair(&self) -> Option<&KeyPair> {
        match self {
            Self::Cert(login) => Some(login.key_pair()),
            _ => None,
        }
    }

    pub async fn log_in(&self, http: &Http) -> Result<Grant, ProviderError> {
        match self {
            Self::TokenFile(login) => login.log_in(http).await,
            Self::AppRole(login) => login.log_in(http).await,
            Self::Jwt(login) => login.log_in(http).await,
            Self::Cert(login) => login.log_in(http).await,
            Self::Aws(login) => login.log_in(http).await,
            Self::Azure(login) => login.log_in(http).await,
            Self::Gcp(login) => login.log_in(http).await,
        }
    }
}

/// The grant in the answer of a login or a renewal.
pub fn grant(http: &Http, body: &[u8]) -> Result<Grant, ProviderError> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        auth: Option<Auth<'a>>,
    }
    // serde's own words can quote the input.
    let auth = serde_json::from_slice::<Envelope<'_>>(body).ok().and_then(|envelope| envelope.auth);
    match auth {
        Some(auth) if !auth.client_token.is_empty() => Ok(Grant {
            token: Zeroizing::new(auth.client_token.into_owned()),
            ttl: Duration::from_secs(auth.lease_duration),
            renewable: auth.renewable,
        }),
        _ => Err(http.error(ErrorKind::Malformed, "the answer to the login holds no token")),
    }
}

/// Logs in at `auth/<mount>/login` with a proof of identity; `refused` is what to look at if it is not taken.
async fn exchange(http: &Http, mount: &str, fields: &[(&str, &str)], refused: &str) -> Result<Grant, ProviderError> {
    let path = format!("auth/{mount}/login");
    let answer = http.send(Request::post(&path, object(fields))).await?;
    match answer.status.as_u16() {
        200 => grant(http, &answer.body),
        // 500: where the method itself could not ask the one who vouches for the identity, or could not read its keys.
        status @ (400 | 403 | 404) => {
            let place = match http.namespace() {
                Some(namespace) => format!("at {path} in namespace {namespace}"),
                None => format!("at {path}"),
            };
            let text = match status {
                404 => {
                    format!("404 there is no login {place}: check `auth.mount`, and that the method is enabled there")
                }
                _ => format!(
                    "{status} the login {place} was refused: {refused}; or no method is enabled there (`auth.mount`), \
                     or the role does not accept this host's address. The server's log tells which"
                ),
            };
            Err(http.error(ErrorKind::Unauthenticated, text))
        }
        _ => Err(failure::of_answer(http, &answer, Asked { path: &path, capability: "create" })),
    }
}

/// A JSON object of texts, in a buffer that is wiped: large enough from the start, so that none outgrown is left behind.
fn object(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let size = fields.iter().map(|(name, value)| name.len() + 6 * value.len() + 8).sum::<usize>() + 2;
    let mut body = Zeroizing::new(Vec::with_capacity(size));
    for (n, (name, value)) in fields.iter().enumerate() {
        body.extend_from_slice(if n == 0 { b"{\"" } else { b",\"" });
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\":");
        // A text always serializes, and a Vec takes all that is written.
        let _ = serde_json::to_writer(&mut *body, value);
    }
    body.extend_from_slice(if fields.is_empty() { b"{}" } else { b"}" });
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_whatever_the_texts_hold_and_never_outgrows_its_buffer() {
        let texts = [("role_id", "\u{1}\"\\x"), ("secret_id", "y")];
        let body = object(&texts);
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read, serde_json::json!({"role_id": "\u{1}\"\\x", "secret_id": "y"}));
        assert_eq!(&object(&[])[..], b"{}");
        let worst = "\u{1}".repeat(1000);
        let size = "a".len() + 6 * worst.len() + 8 + 2;
        assert!(object(&[("a", &worst)]).len() <= size);
    }
}
