//! Method `token-file`: something else on the host logs in and writes the token.

use super::Grant;
use crate::{
    host::HostFiles,
    provider::{
        ErrorKind, ProviderError,
        vault::{
            failure::{self, Asked},
            files::{self, Stamp},
            http::{Http, Request},
        },
    },
};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};

pub struct TokenFile {
    file: PathBuf,
}

// === impl TokenFile ===

impl TokenFile {
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    pub fn stamp(&self, host: &HostFiles) -> Stamp {
        Stamp::of_named(host, &self.file)
    }

    /// Reads the token, and asks the server how long it lives.
    pub async fn log_in(&self, http: &Http) -> Result<Grant, ProviderError> {
        let token = files::read_word(http.host(), &self.file).map_err(|why| {
            http.error(
                ErrorKind::Misconfigured,
                format!("no token: {why}; put one there, or name its file by `auth.token_file`"),
            )
        })?;
        let path = "auth/token/lookup-self";
        let answer = http.send(Request { token: Some(&token), ..Request::get(path) }).await?;
        if answer.status == 403 {
            let file = self.file.display();
            return Err(http.error(
                ErrorKind::Unauthenticated,
                format!("403 the token in {file} was refused: it has expired, was revoked, or may not read {path}; put a new one there"),
            ));
        }
        if answer.status == 404 {
            return Err(failure::no_server(http, path));
        }
        if !answer.is_success() {
            return Err(failure::of_answer(http, &answer, Asked { path, capability: "read" }));
        }
        let Ok(Envelope { data }) = serde_json::from_slice::<Envelope>(&answer.body) else {
            return Err(http.error(ErrorKind::Malformed, format!("the answer of {path} is not what Vault answers")));
        };
        Ok(Grant { token, ttl: Duration::from_secs(data.ttl), renewable: data.renewable })
    }
}

/// The answer of `lookup-self`. vaultrs' model would copy the token, which stands in `id`.
#[derive(Deserialize)]
struct Envelope {
    data: Lookup,
}

#[derive(Deserialize)]
struct Lookup {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}
