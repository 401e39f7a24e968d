//! Method `azure`: a token of the machine's managed identity, and the names by which Vault finds the machine.
//!
//! The token comes from the instance metadata service (IMDS) of a virtual machine or, where `auth.identity_endpoint` is
//! set, from the endpoint that App Service and its relatives give.

use super::{Grant, Metadata, exchange, metadata};
use crate::{
    host::HostFiles,
    provider::{
        ErrorKind, ProviderError,
        vault::{
            files::{self, Stamp},
            http::{Answer, Http},
        },
    },
};
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

const METADATA: (HeaderName, HeaderValue) = (HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
const IDENTITY_HEADER: HeaderName = HeaderName::from_static("x-identity-header");

pub struct Azure {
    pub mount: String,
    pub role: String,
    /// The audience of the token: what the method's configuration calls `resource`.
    pub resource: String,
    /// The name of the query's parameter and its value, where the identity is a user-assigned one.
    pub identity: Option<(&'static str, String)>,
    pub source: ManagedIdentity,
}

/// Who gives the token.
pub enum ManagedIdentity {
    Machine(Metadata),
    /// An endpoint with the file of its header. It names no machine: a role that binds one refuses it.
    Endpoint {
        endpoint: Metadata,
        header_file: PathBuf,
    },
}

/// What Vault compares a role's bounds with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    name: String,
    resource_group_name: String,
    subscription_id: String,
    #[serde(default)]
    vm_scale_set_name: String,
}

// === impl Azure ===

impl Azure {
    pub fn stamps(&self, host: &HostFiles) -> Vec<Stamp> {
        match &self.source {
            ManagedIdentity::Machine(_) => Vec::new(),
            ManagedIdentity::Endpoint { header_file, .. } => vec![Stamp::of_named(host, header_file)],
        }
    }

    pub async fn log_in(&self, http: &Http) -> Result<Grant, ProviderError> {
        let refused = format!(
            "the managed identity or the machine is not one that role `{}` is bound to, or the token's audience `{}` \
             is not the method's `resource` (`auth.resource`)",
            self.role, self.resource
        );
        let role = ("role", self.role.as_str());
        match &self.source {
            ManagedIdentity::Machine(imds) => {
                let jwt = self.token_of_machine(http, imds).await?;
                let machine = machine(http, imds).await?;
                let mut fields = vec![
                    role,
                    ("jwt", &jwt),
                    ("subscription_id", &machine.subscription_id),
                    ("resource_group_name", &machine.resource_group_name),
                    ("vm_name", &machine.name),
                ];
                if !machine.vm_scale_set_name.is_empty() {
                    fields.push(("vmss_name", &machine.vm_scale_set_name));
                }
                exchange(http, &self.mount, &fields, &refused).await
            }
            ManagedIdentity::Endpoint { endpoint, header_file } => {
                let jwt = self.token_of_endpoint(http, endpoint, header_file).await?;
                exchange(http, &self.mount, &[role, ("jwt", &jwt)], &refused).await
            }
        }
    }

    async fn token_of_machine(&self, http: &Http, imds: &Metadata) -> Result<Zeroizing<String>, ProviderError> {
        let query = self.query("2018-02-01");
        let path = ["metadata", "identity", "oauth2", "token"];
        let answer = imds.get(http, &path, &query, METADATA).await?;
        self.access_token(http, imds, &answer)
    }

    async fn token_of_endpoint(
        &self,
        http: &Http,
        endpoint: &Metadata,
        header_file: &Path,
    ) -> Result<Zeroizing<String>, ProviderError> {
        let word = files::read_word(http.host(), header_file).map_err(|why| {
            let text = format!("no identity header: {why}; put the value of IDENTITY_HEADER there");
            http.error(ErrorKind::Misconfigured, text)
        })?;
        let header = HeaderValue::from_str(&word)
            .map_err(|_| http.error(ErrorKind::Misconfigured, "the identity header has characters that none has"))?;
        let answer = endpoint.get(http, &[], &self.query("2019-08-01"), (IDENTITY_HEADER, header)).await?;
        self.access_token(http, endpoint, &answer)
    }

    fn query<'a>(&'a self, version: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut query = vec![("api-version", version), ("resource", self.resource.as_str())];
        query.extend(self.identity.as_ref().map(|(name, value)| (*name, value.as_str())));
        query
    }

    fn access_token(&self, http: &Http, from: &Metadata, answer: &Answer) -> Result<Zeroizing<String>, ProviderError> {
        #[derive(Deserialize)]
        struct Token<'a> {
            #[serde(borrow)]
            access_token: Cow<'a, str>,
        }
        match answer.status.as_u16() {
            200 => serde_json::from_slice::<Token<'_>>(&answer.body)
                .ok()
                .and_then(|token| metadata::word(token.access_token.as_bytes()))
                .ok_or_else(|| from.error(http, ErrorKind::Malformed, "the answer holds no access token")),
            400 => Err(from.error(
                http,
                ErrorKind::Misconfigured,
                &format!(
                    "400 no token for `{}`: assign a managed identity to this machine (of several, name one by \
                     `auth.client_id`, `auth.object_id` or `auth.identity_id`), and check `auth.resource`",
                    self.resource
                ),
            )),
            _ => Err(from.of_answer(http, answer)),
        }
    }
}

async fn machine(http: &Http, imds: &Metadata) -> Result<Machine, ProviderError> {
    let query = [("api-version", "2021-02-01"), ("format", "json")];
    let answer = imds.get(http, &["metadata", "instance", "compute"], &query, METADATA).await?;
    match answer.status.as_u16() {
        200 => serde_json::from_slice(&answer.body)
            .map_err(|_| imds.error(http, ErrorKind::Malformed, "the answer does not name this machine")),
        _ => Err(imds.of_answer(http, &answer)),
    }
}
