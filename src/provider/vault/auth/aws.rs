//! Method `aws`: a signed request by which the server asks AWS who this host is.

use super::{Grant, exchange};
use crate::provider::{ProviderError, aws::Caller, vault::http::Http};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

const SERVER_ID: &str = "X-Vault-AWS-IAM-Server-ID";

pub struct Aws {
    pub mount: String,
    pub role: String,
    /// Signed too, so that the request is of no use at another server.
    pub server_id: Option<String>,
    pub caller: Caller,
}

// === impl Aws ===

impl Aws {
    pub async fn log_in(&self, http: &Http) -> Result<Grant, ProviderError> {
        let headers: Vec<_> = self.server_id.iter().map(|id| (SERVER_ID, id.as_str())).collect();
        let signed = self.caller.sign(&headers).await?;
        let headers: Vec<_> = signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let headers = Zeroizing::new(STANDARD.encode(super::object(&headers)));
        let refused = format!(
            "the host's role at AWS is not one that role `{}` is bound to, `auth.server_id` is not the server's \
             `iam_server_id_header_value`, or the server asks another STS endpoint than {} (`sts_endpoint`, `region`)",
            self.role, signed.url
        );
        let fields = [
            ("role", self.role.as_str()),
            ("iam_http_request_method", "POST"),
            ("iam_request_url", &STANDARD.encode(&signed.url)),
            ("iam_request_body", &STANDARD.encode(signed.body)),
            ("iam_request_headers", &headers),
        ];
        exchange(http, &self.mount, &fields, &refused).await
    }
}
