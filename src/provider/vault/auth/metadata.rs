//! The metadata service of a cloud's host: what it says, and what it means when it says nothing.

use crate::provider::{
    ErrorKind, ProviderError,
    buffer::append,
    trust,
    vault::{
        failure,
        http::{Answer, Http},
    },
};
use reqwest::{
    Client, Url,
    header::{HeaderName, HeaderValue},
};
use std::{sync::OnceLock, time::Duration};
use zeroize::Zeroizing;

/// A link-local address answers at once, or there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(8);
const BODY_LIMIT: usize = 1 << 20;

/// Where a cloud's host asks who it is.
pub struct Metadata {
    endpoint: Url,
    /// How messages name it.
    what: &'static str,
    client: OnceLock<Client>,
}

// === impl Metadata ===

impl Metadata {
    pub fn new(endpoint: Url, what: &'static str) -> Self {
        Self { endpoint, what, client: OnceLock::new() }
    }

    /// Asks for what is at `path` below the endpoint. The header is what keeps a forged request out: a redirect or a
    /// proxy never sees it.
    pub async fn get(
        &self,
        http: &Http,
        path: &[&str],
        query: &[(&str, &str)],
        (name, mut value): (HeaderName, HeaderValue),
    ) -> Result<Answer, ProviderError> {
        let mut url = self.endpoint.clone();
        if let (Ok(mut segments), false) = (url.path_segments_mut(), path.is_empty()) {
            segments.pop_if_empty().extend(path);
        }
        url.query_pairs_mut().extend_pairs(query);
        value.set_sensitive(true);
        let sent = self.client(http)?.get(url).header(name, value).send().await;
        let mut response = sent.map_err(|error| self.of_transport(http, &error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.of_transport(http, &error))? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(self.error(http, ErrorKind::Malformed, "the answer is larger than 1 MiB"));
            }
            append(&mut body, &chunk);
        }
        Ok(Answer { status, headers, body })
    }

    pub fn error(&self, http: &Http, kind: ErrorKind, text: &str) -> ProviderError {
        let origin = self.endpoint.origin().ascii_serialization();
        http.error(kind, format!("{} at {origin}: {text}", self.what))
    }

    /// An answer that is no success, where the status says no more than that.
    pub fn of_answer(&self, http: &Http, answer: &Answer) -> ProviderError {
        let status = answer.status.as_u16();
        let (kind, text) = match status {
            429 => (ErrorKind::Throttled, "429 too many requests: dso asks again later".to_owned()),
            // 404 and 410 are what Azure's says while it is being updated.
            404 | 410 | 500..=599 => {
                (ErrorKind::Unavailable, format!("{status} it cannot answer now: it will be asked again"))
            }
            401 | 403 => (
                ErrorKind::Unauthenticated,
                format!("{status} it refuses to answer this host: check the identity that is attached to it"),
            ),
            _ => {
                (ErrorKind::Malformed, format!("{status} is not what it should answer: check `auth.metadata_endpoint`"))
            }
        };
        let asks_for_time = matches!(kind, ErrorKind::Throttled | ErrorKind::Unavailable);
        let delay = asks_for_time.then(|| failure::retry_after(&answer.headers)).flatten();
        self.error(http, kind, &text).retry_after(delay)
    }

    fn of_transport(&self, http: &Http, error: &reqwest::Error) -> ProviderError {
        match error.is_timeout() {
            true => self.error(http, ErrorKind::Timeout, "no answer in time: does this host run in that cloud?"),
            false if error.is_connect() => {
                self.error(http, ErrorKind::Unreachable, "cannot connect: does this host run in that cloud?")
            }
            false => self.error(http, ErrorKind::Unreachable, "the connection broke before the whole answer was there"),
        }
    }

    fn client(&self, http: &Http) -> Result<&Client, ProviderError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = trust::client(Vec::new(), CONNECT_TIMEOUT, TIMEOUT.min(http.timeout()))
            .build()
            .map_err(|_| self.error(http, ErrorKind::Misconfigured, "no client could be made for it"))?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// The one word that an answer is.
pub fn word(body: &[u8]) -> Option<Zeroizing<String>> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| Zeroizing::new(text.to_owned()))
}
