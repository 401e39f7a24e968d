//! The ways to log in: each turns an identity of the host into a token.
//!
//! A method is one file below and one variant of [`Login`].

mod approle;
mod token_file;

use super::{files::Stamp, http::Http};
use crate::{
    host::HostFiles,
    provider::{ErrorKind, ProviderError},
};
use serde::Deserialize;
use std::{borrow::Cow, time::Duration};
use zeroize::Zeroizing;

pub use approle::{AppRole, RoleId};
pub use token_file::TokenFile;

/// How an instance logs in.
pub enum Login {
    TokenFile(TokenFile),
    AppRole(AppRole),
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
        }
    }

    /// Changes with the files that the login reads.
    pub fn stamp(&self, host: &HostFiles) -> Vec<Stamp> {
        match self {
            Self::TokenFile(login) => vec![login.stamp(host)],
            Self::AppRole(login) => login.stamps(host),
        }
    }

    /// Whether the file holds the token itself: then a changed file is a new token, and nothing but
    /// renewal keeps the one that it holds alive.
    pub fn is_token_file(&self) -> bool {
        matches!(self, Self::TokenFile(_))
    }

    pub async fn log_in(&self, http: &Http) -> Result<Grant, ProviderError> {
        match self {
            Self::TokenFile(login) => login.log_in(http).await,
            Self::AppRole(login) => login.log_in(http).await,
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
