//! The SDK's transport: what goes over the network, to one place and no other.

use super::{
    failure::{self, Fault, retry_after},
    trust::Trust,
};
use crate::provider::{ErrorKind, buffer::append};
use async_trait::async_trait;
use azure_core::{
    Bytes,
    error::ErrorKind as SdkKind,
    http::{
        AsyncRawResponse, Body, ClientOptions, HttpClient, Method, Request, RetryOptions, StatusCode, Transport, Url,
        headers::{HeaderName, HeaderValue, Headers},
    },
};
use std::{collections::HashMap, fmt, sync::Arc};
use zeroize::Zeroizing;

/// A page of a list is smaller, and a secret much smaller.
const BODY_LIMIT: usize = 4 << 20;

/// Sends to one origin alone. A list says where its next page is, and the SDK would send a token there, wherever that is.
pub struct Only {
    origin: Url,
    /// How messages name it.
    whom: String,
    trust: Arc<Trust>,
    /// Whether an answer that no SDK has to look into is a failure here: its body may be anything.
    plain_failures: bool,
}

// === impl Only ===

impl Only {
    /// The options of a client of one vault.
    pub fn vault(origin: Url, whom: String, trust: Arc<Trust>) -> ClientOptions {
        Self { origin, whom, trust, plain_failures: false }.options()
    }

    /// The options of a client of Entra ID. Where it fails, the SDK would look for its protocol's errors in the answer.
    pub fn authority(origin: Url, trust: Arc<Trust>) -> ClientOptions {
        Self { origin, whom: "Entra ID".into(), trust, plain_failures: true }.options()
    }

    fn options(self) -> ClientOptions {
        ClientOptions {
            // The seam tries again, and knows for how many secrets.
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(self))),
            ..ClientOptions::default()
        }
    }

    async fn send(&self, request: &Request) -> Result<AsyncRawResponse, Fault> {
        let url = request.url();
        if url.origin() != self.origin.origin() {
            let text = format!("{} refers to another host: nothing was sent there", self.whom);
            return Err(Fault::new(ErrorKind::Malformed, text));
        }
        let (method, body) = match (request.method(), request.body()) {
            (Method::Get, _) => (reqwest::Method::GET, None),
            (Method::Post, Body::Bytes(bytes)) => (reqwest::Method::POST, Some(bytes.clone())),
            _ => return Err(Fault::new(ErrorKind::Misconfigured, "a request that dso does not make")),
        };
        let mut sent = self.trust.client()?.request(method, url.clone());
        for (name, value) in request.headers().iter() {
            let mut value = reqwest::header::HeaderValue::from_str(value.as_str()).map_err(|_| {
                Fault::new(ErrorKind::Malformed, "a header of the request has characters that none has")
            })?;
            value.set_sensitive(name.as_str() == "authorization");
            sent = sent.header(name.as_str(), value);
        }
        if let Some(body) = body {
            sent = sent.body(body);
        }
        let failed = |error: reqwest::Error| failure::of_transport(&error, &self.whom);
        let mut answer = sent.send().await.map_err(failed)?;
        let (status, headers) = (answer.status().as_u16(), headers(answer.headers()));
        // Wiped when the SDK lets go of it.
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                let text = format!("the answer of {} is larger than {} MiB", self.whom, BODY_LIMIT >> 20);
                return Err(Fault::new(ErrorKind::Malformed, text));
            }
            append(&mut body, &chunk);
        }
        if self.plain_failures && (status == 429 || status >= 500) {
            return Err(self.plain_failure(status).after(retry_after(&headers)));
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(status), headers, Bytes::from_owner(body)))
    }

    fn plain_failure(&self, status: u16) -> Fault {
        match status {
            429 => Fault::new(
                ErrorKind::Throttled,
                format!("429 too many requests for {}: dso asks again later", self.whom),
            ),
            _ => Fault::new(ErrorKind::Unavailable, format!("{status} {} failed: it will be asked again", self.whom)),
        }
    }
}

impl fmt::Debug for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Only({})", self.whom)
    }
}

#[async_trait]
impl HttpClient for Only {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.send(request).await.map_err(|fault| fault.into_sdk(SdkKind::Io))
    }
}

fn headers(map: &reqwest::header::HeaderMap) -> Headers {
    let named = map.iter().filter_map(|(name, value)| {
        let value = value.to_str().ok()?.to_owned();
        Some((HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value)))
    });
    Headers::from(named.collect::<HashMap<_, _>>())
}
