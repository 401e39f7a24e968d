//! Methods `jwt` and `kubernetes`: a signed token from a file that somebody else writes anew before it expires.

use super::{Grant, exchange};
use crate::{
    host::HostFiles,
    provider::{
        ErrorKind, ProviderError,
        vault::{
            files::{self, Stamp},
            http::Http,
        },
    },
};
use std::path::PathBuf;

pub struct Jwt {
    pub method: &'static str,
    pub mount: String,
    pub role: String,
    pub file: PathBuf,
}

// === impl Jwt ===

impl Jwt {
    pub fn method(&self) -> &'static str {
        self.method
    }

    pub fn stamp(&self, host: &HostFiles) -> Stamp {
        Stamp::of_named(host, &self.file)
    }

    /// The file is read for each login, so that the newest token is sent.
    pub async fn log_in(&self, http: &Http) -> Result<Grant, ProviderError> {
        let jwt = files::read_word(http.host(), &self.file).map_err(|why| {
            http.error(
                ErrorKind::Misconfigured,
                format!("no JWT: {why}; put one there, or name its file by `auth.jwt_file`"),
            )
        })?;
        let refused = format!(
            "the JWT in {} has expired, or its issuer, audience or claims are not those of role `{}`",
            self.file.display(),
            self.role
        );
        exchange(http, &self.mount, &[("role", &self.role), ("jwt", &jwt)], &refused).await
    }
}
