//! One request to the server, and its answer: headers, redirects, limits.
//!
//! # Why this is not vaultrs' transport
//! vaultrs serves dso with its models of what carries no secret: versions of KV version 2
//! ([`super::kv`]) and the origin of a wrapping token ([`super::auth`]). Its transport (rustify) does not
//! fit a process that guards secrets:
//! - it drops response headers, so neither `Retry-After` nor a standby's `Location` can be honoured;
//! - its client follows redirects by reqwest's default policy, which sends `X-Vault-Token` on to any host;
//! - it holds whole answers in plain, unbounded buffers, and keeps a copy of a body that it cannot parse
//!   in an error whose `Debug` prints it;
//! - it logs the server's error texts and warnings, which can echo what was sent;
//! - it reads `VAULT_TOKEN` and other variables by itself where they are not overridden.

use super::{failure, files::Stamp, settings::VaultSettings, trust::Trust};
use crate::{
    host::HostFiles,
    provider::{ErrorKind, ProviderError, buffer::append},
};
use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{HeaderMap, HeaderName, HeaderValue, LOCATION},
};
use std::time::Duration;
use zeroize::Zeroizing;

/// More than the largest volume holds, with JSON's escapes.
const BODY_LIMIT: usize = 80 << 20;
/// A server may announce more than it sends.
const FIRST_BUFFER: usize = 1 << 20;
const REDIRECTS: usize = 2;

const X_VAULT_TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const X_VAULT_NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// OpenBao's agent and proxy ask for it of every client, against requests forged by a browser.
const X_VAULT_REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// The way to one server.
pub struct Http {
    label: String,
    base: Url,
    namespace: Option<HeaderValue>,
    trust: Trust,
}

/// A request. Paths are as people write them; what a URL needs escaped is escaped here.
pub struct Request<'a> {
    pub method: Method,
    /// Below `/v1/`.
    pub path: &'a str,
    pub query: Option<(&'a str, &'a str)>,
    pub token: Option<&'a Zeroizing<String>>,
    pub body: Option<Zeroizing<Vec<u8>>>,
}

/// A whole answer, whatever its status. No `Debug`: the body may hold anything.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Zeroizing<Vec<u8>>,
}

// === impl Request ===

impl<'a> Request<'a> {
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, query: None, token: None, body: None }
    }

    pub fn post(path: &'a str, body: Zeroizing<Vec<u8>>) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(path) }
    }
}

// === impl Answer ===

impl Answer {
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Whether a word stands in the body.
    pub fn says(&self, word: &[u8]) -> bool {
        self.body.windows(word.len()).any(|window| window == word)
    }
}

// === impl Http ===

impl Http {
    pub fn new(settings: &VaultSettings, host: HostFiles) -> Self {
        let label = format!("{} ({})", settings.name, settings.address.as_str().trim_end_matches('/'));
        let base = settings.address.clone();
        let trust = Trust::new(settings, host);
        Self { label, base, namespace: settings.namespace.clone(), trust }
    }

    pub fn host(&self) -> &HostFiles {
        self.trust.host()
    }

    pub fn timeout(&self) -> Duration {
        self.trust.timeout()
    }

    pub fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }

    pub fn is_loopback(&self) -> bool {
        match self.base.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        }
    }

    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_ref().and_then(|namespace| namespace.to_str().ok())
    }

    /// An error of this instance.
    pub fn error(&self, kind: ErrorKind, text: impl AsRef<str>) -> ProviderError {
        ProviderError::new(kind, format!("{}: {}", self.label, text.as_ref()))
    }

    /// Sends a request, follows a standby's redirect, and reads the whole answer.
    pub async fn send(&self, request: Request<'_>) -> Result<Answer, ProviderError> {
        let client = self.trust.client().map_err(|(kind, text)| self.error(kind, text))?;
        let headers = self.headers(&request)?;
        let body = request.body.map(Bytes::from_owner);
        let mut url = self.url(request.path, request.query);
        for _ in 0..=REDIRECTS {
            let mut sent = client.request(request.method.clone(), url.clone()).headers(headers.clone());
            if let Some(body) = &body {
                sent = sent.body(body.clone());
            }
            let response = sent.send().await.map_err(|error| failure::of_transport(self, &error))?;
            match response.status().as_u16() {
                301 | 302 | 307 | 308 => url = self.follow(&url, &response)?,
                _ => return self.read(response).await,
            }
        }
        Err(self.error(
            ErrorKind::Redirected,
            format!(
                "redirected more than {REDIRECTS} times, at last to {}: check `api_addr` of the servers",
                origin(&url)
            ),
        ))
    }

    /// Changes with the files of the certificates to trust and to show.
    pub fn stamps(&self) -> Vec<Stamp> {
        self.trust.stamps()
    }

    fn url(&self, path: &str, query: Option<(&str, &str)>) -> Url {
        let mut url = self.base.clone();
        // Settings let only http and https pass, and these have path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path.split('/'));
        }
        if let Some((name, value)) = query {
            url.query_pairs_mut().append_pair(name, value);
        }
        url
    }

    fn headers(&self, request: &Request<'_>) -> Result<HeaderMap, ProviderError> {
        let mut headers = HeaderMap::from_iter([(X_VAULT_REQUEST, HeaderValue::from_static("true"))]);
        if let Some(namespace) = &self.namespace {
            headers.insert(X_VAULT_NAMESPACE, namespace.clone());
        }
        if let Some(token) = request.token {
            let mut value = HeaderValue::from_str(token)
                .map_err(|_| self.error(ErrorKind::Malformed, "the token has characters that no token has"))?;
            value.set_sensitive(true);
            headers.insert(X_VAULT_TOKEN, value);
        }
        Ok(headers)
    }

    fn follow(&self, from: &Url, response: &Response) -> Result<Url, ProviderError> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let to = location.and_then(|text| from.join(text).ok());
        let status = response.status().as_u16();
        let Some(to) = to else {
            return Err(self.error(
                ErrorKind::Redirected,
                format!("{status} redirected to nowhere: does `address` lead to a Vault or OpenBao server?"),
            ));
        };
        match refusal(from, &to) {
            None => Ok(to),
            Some(why) => Err(self.error(
                ErrorKind::Redirected,
                format!("{status} redirected to {}, which dso does not follow: {why}", origin(&to)),
            )),
        }
    }

    async fn read(&self, mut response: Response) -> Result<Answer, ProviderError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let announced = response.content_length().unwrap_or(0) as usize;
        let mut body = Zeroizing::new(Vec::with_capacity(announced.min(FIRST_BUFFER)));
        while let Some(chunk) = response.chunk().await.map_err(|error| failure::of_transport(self, &error))? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(self.error(ErrorKind::Malformed, "the answer is larger than 80 MiB"));
            }
            append(&mut body, &chunk);
        }
        Ok(Answer { status, headers, body })
    }
}

/// Why a redirect is not followed, if so. The token goes along, so only to where a standby may rightly point.
fn refusal(from: &Url, to: &Url) -> Option<&'static str> {
    if from.scheme() != to.scheme() && (from.scheme(), to.scheme()) != ("http", "https") {
        return Some(
            "it leads away from https; set `api_addr` of that server to its https address, or `address` to the active server",
        );
    }
    if (from.path(), from.query()) != (to.path(), to.query()) {
        return Some("it leads to another path; set `address` to the server itself");
    }
    if to.host_str().is_none() || !to.username().is_empty() || to.password().is_some() {
        return Some("it names no plain host; set `address` to the server itself");
    }
    None
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(address: &str) -> Http {
        let host = HostFiles::on_host("/nowhere");
        let table = format!("address = '{address}'").parse().unwrap();
        Http::new(&VaultSettings::parse("vault", table, &host).unwrap(), host)
    }

    #[test]
    fn a_path_is_escaped_segment_by_segment() {
        let http = http("https://v.example/base/");
        let url = http.url("kv/data/größe/a b%2F+c?d#e\\f;", Some(("version", "3")));
        assert_eq!(
            url.as_str(),
            "https://v.example/base/v1/kv/data/gr%C3%B6%C3%9Fe/a%20b%252F+c%3Fd%23e%5Cf;?version=3"
        );
        assert_eq!(http.url("kv/detailed-metadata/", None).path(), "/base/v1/kv/detailed-metadata/");
    }

    #[test]
    fn a_redirect_is_followed_only_to_the_same_path_and_never_away_from_https() {
        let refused = |from: &str, to: &str| refusal(&from.parse().unwrap(), &to.parse().unwrap());
        assert_eq!(refused("https://a/v1/x", "https://b:8200/v1/x"), None);
        assert_eq!(refused("http://a/v1/x?v=1", "https://b/v1/x?v=1"), None);
        assert!(refused("https://a/v1/x", "http://a/v1/x").unwrap().contains("away from https"));
        assert!(refused("http://a/v1/x", "ftp://a/v1/x").is_some());
        assert!(refused("https://a/v1/x", "https://a/login").unwrap().contains("another path"));
        assert!(refused("https://a/v1/x", "https://a/v1/x?y").unwrap().contains("another path"));
        assert!(refused("https://a/v1/x", "https://u:p@b/v1/x").is_some());
    }

    #[test]
    fn a_buffer_keeps_its_bytes_as_it_grows() {
        let mut buffer = Zeroizing::new(Vec::new());
        for n in 0..1000u32 {
            append(&mut buffer, &n.to_le_bytes());
        }
        assert_eq!(buffer.len(), 4000);
        assert_eq!(buffer[3996..], 999u32.to_le_bytes());
    }
}
