//! Method `approle`: a RoleID, which is no secret, and a SecretID from a file that the host's
//! provisioning wrote, as it is or wrapped.

use super::{Grant, grant, object};
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
use std::{borrow::Cow, path::PathBuf};
use tokio::sync::Mutex;
use vaultrs::api::sys::responses::WrappingLookupResponse;
use zeroize::Zeroizing;

pub struct AppRole {
    mount: String,
    role: RoleId,
    file: PathBuf,
    /// Whether the file holds a wrapping token for the SecretID; then what it gave, since it gives once.
    wrapped: Option<Mutex<Option<Unwrapped>>>,
}

pub enum RoleId {
    Text(String),
    File(PathBuf),
}

struct Unwrapped {
    wrapping_token: Zeroizing<String>,
    secret_id: Zeroizing<String>,
}

// === impl AppRole ===

impl AppRole {
    pub fn new(mount: String, role: RoleId, file: PathBuf, wrapped: bool) -> Self {
        Self { mount, role, file, wrapped: wrapped.then(Mutex::default) }
    }

    pub fn stamps(&self, host: &HostFiles) -> Vec<Stamp> {
        let secret = Stamp::of_named(host, &self.file);
        match &self.role {
            RoleId::Text(_) => vec![secret],
            RoleId::File(file) => vec![secret, Stamp::of_named(host, file)],
        }
    }

    pub async fn log_in(&self, http: &Http) -> Result<Grant, ProviderError> {
        let role_id = match &self.role {
            RoleId::Text(text) => Zeroizing::new(text.clone()),
            RoleId::File(file) => files::read_word(http.host(), file)
                .map_err(|why| http.error(ErrorKind::Misconfigured, format!("no RoleID: {why}")))?,
        };
        let secret_id = self.secret_id(http).await?;
        let path = format!("auth/{}/login", self.mount);
        let body = object(&[("role_id", &role_id), ("secret_id", &secret_id)]);
        let answer = http.send(Request::post(&path, body)).await?;
        match answer.status.as_u16() {
            200 => grant(http, &answer.body),
            400 => Err(http.error(
                ErrorKind::Unauthenticated,
                format!(
                    "400 the AppRole login at auth/{} was refused: the RoleID is wrong, or the SecretID of {} is wrong, used up or expired; put a new one there",
                    self.mount,
                    self.file.display()
                ),
            )),
            403 | 404 => Err(http.error(
                ErrorKind::Unauthenticated,
                format!(
                    "{} the AppRole login at auth/{} was refused: there is no AppRole method there{}, or the role does not accept this host's address",
                    answer.status.as_u16(),
                    self.mount,
                    http.namespace().map(|name| format!(" in namespace {name}")).unwrap_or_default(),
                ),
            )),
            _ => Err(failure::of_answer(http, &answer, Asked { path: &path, capability: "create" })),
        }
    }

    async fn secret_id(&self, http: &Http) -> Result<Zeroizing<String>, ProviderError> {
        let word = files::read_word(http.host(), &self.file)
            .map_err(|why| http.error(ErrorKind::Misconfigured, format!("no SecretID: {why}; put one there")))?;
        let Some(unwrapped) = &self.wrapped else { return Ok(word) };
        let mut unwrapped = unwrapped.lock().await;
        if let Some(known) = unwrapped.as_ref().filter(|known| *known.wrapping_token == *word) {
            return Ok(known.secret_id.clone());
        }
        self.check_wrapping(http, &word).await?;
        let secret_id = self.unwrap(http, &word).await?;
        *unwrapped = Some(Unwrapped { wrapping_token: word, secret_id: secret_id.clone() });
        Ok(secret_id)
    }

    /// Makes sure that the token wraps a SecretID of this mount: whoever took the real one may have
    /// left a wrapping token of his own. Asking does not use it up.
    async fn check_wrapping(&self, http: &Http, token: &Zeroizing<String>) -> Result<(), ProviderError> {
        let path = "sys/wrapping/lookup";
        let answer = http.send(Request::post(path, object(&[("token", token)]))).await?;
        match answer.status.as_u16() {
            200 => {}
            400 | 403 | 404 => return Err(self.used(http)),
            _ => return Err(failure::of_answer(http, &answer, Asked { path, capability: "update" })),
        }
        #[derive(Deserialize)]
        struct Envelope {
            data: WrappingLookupResponse,
        }
        let made_at = serde_json::from_slice::<Envelope>(&answer.body).map(|envelope| envelope.data.creation_path);
        match made_at {
            Ok(path) if is_of_secret_id(&path, &self.mount) => Ok(()),
            Ok(_) => Err(http.error(
                ErrorKind::Unauthenticated,
                format!(
                    "the wrapping token in {} was not made by auth/{}/role/<role>/secret-id: somebody may have replaced it; find out, and put a new one there",
                    self.file.display(),
                    self.mount
                ),
            )),
            Err(_) => Err(http.error(ErrorKind::Malformed, format!("the answer of {path} is not what Vault answers"))),
        }
    }

    async fn unwrap(&self, http: &Http, token: &Zeroizing<String>) -> Result<Zeroizing<String>, ProviderError> {
        let path = "sys/wrapping/unwrap";
        let request = Request { token: Some(token), ..Request::post(path, Zeroizing::new(Vec::new())) };
        let answer = http.send(request).await?;
        match answer.status.as_u16() {
            200 => {}
            400 | 403 | 404 => return Err(self.used(http)),
            _ => return Err(failure::of_answer(http, &answer, Asked { path, capability: "update" })),
        }
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            data: Data<'a>,
        }
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow)]
            secret_id: Cow<'a, str>,
        }
        match serde_json::from_slice::<Envelope<'_>>(&answer.body) {
            Ok(envelope) => Ok(Zeroizing::new(envelope.data.secret_id.into_owned())),
            Err(_) => Err(http.error(ErrorKind::Malformed, "what was wrapped is not a SecretID")),
        }
    }

    fn used(&self, http: &Http) -> ProviderError {
        http.error(
            ErrorKind::Unauthenticated,
            format!(
                "the wrapping token in {} is not valid: it was used before or has expired; unless dso itself used it before a restart, \
                 somebody else may know the SecretID: revoke it, and put a new one there",
                self.file.display()
            ),
        )
    }
}

fn is_of_secret_id(creation_path: &str, mount: &str) -> bool {
    let role = creation_path.strip_prefix("auth/").and_then(|path| path.strip_prefix(mount));
    let role = role.and_then(|path| path.strip_prefix("/role/")).and_then(|path| path.strip_suffix("/secret-id"));
    role.is_some_and(|role| !role.is_empty() && !role.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_secret_id_of_the_mount_may_be_unwrapped() {
        assert!(is_of_secret_id("auth/approle/role/web/secret-id", "approle"));
        assert!(is_of_secret_id("auth/team/approle/role/web/secret-id", "team/approle"));
        for path in [
            "auth/approle/role//secret-id",
            "auth/approle/role/web/custom-secret-id",
            "auth/other/role/web/secret-id",
            "auth/approle2/role/web/secret-id",
            "sys/wrapping/wrap",
            "auth/approle/role/a/b/secret-id",
        ] {
            assert!(!is_of_secret_id(path, "approle"), "{path}");
        }
    }
}
