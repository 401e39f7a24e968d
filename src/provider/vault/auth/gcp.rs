//! Method `gcp`: an identity token of the instance's service account, from Google's metadata server.
//!
//! A token that is made with `format=full` names the instance, which a role of type `gce` asks for; one of type
//! `iam` takes it too.

use super::{Grant, Metadata, exchange, metadata};
use crate::provider::{ErrorKind, ProviderError, vault::http::Http};
use reqwest::header::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

const FLAVOR: (HeaderName, HeaderValue) =
    (HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"));

pub struct Gcp {
    pub mount: String,
    pub role: String,
    /// `default`, or the address of one.
    pub account: String,
    pub metadata: Metadata,
}

// === impl Gcp ===

impl Gcp {
    pub async fn log_in(&self, http: &Http) -> Result<Grant, ProviderError> {
        let jwt = self.identity_token(http).await?;
        let refused = format!(
            "the service account `{}` or the instance is not one that role `{}` is bound to",
            self.account, self.role
        );
        exchange(http, &self.mount, &[("role", &self.role), ("jwt", &jwt)], &refused).await
    }

    async fn identity_token(&self, http: &Http) -> Result<Zeroizing<String>, ProviderError> {
        let path = ["computeMetadata", "v1", "instance", "service-accounts", &self.account, "identity"];
        // Vault takes the token of this audience only.
        let audience = format!("http://vault/{}", self.role);
        let query = [("audience", audience.as_str()), ("format", "full")];
        let answer = self.metadata.get(http, &path, &query, FLAVOR).await?;
        match answer.status.as_u16() {
            // Anyone may answer at a name; the metadata server says that it is one.
            200 if answer.headers.get(&FLAVOR.0) != Some(&FLAVOR.1) => {
                Err(self.metadata.error(http, ErrorKind::Malformed, "what answers there is not a metadata server"))
            }
            200 => metadata::word(&answer.body)
                .ok_or_else(|| self.metadata.error(http, ErrorKind::Malformed, "the answer is no identity token")),
            404 => Err(self.metadata.error(
                http,
                ErrorKind::Misconfigured,
                &format!(
                    "404 there is no service account `{}` on this instance: attach one, or set `auth.service_account`",
                    self.account
                ),
            )),
            _ => Err(self.metadata.of_answer(http, &answer)),
        }
    }
}
