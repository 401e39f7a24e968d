//! A managed identity: of a virtual machine, by its instance metadata service (IMDS), or of App Service and its relatives, by
//! the endpoint that they give.

use super::{given_for, until};
use crate::{
    host::HostFiles,
    provider::{
        ErrorKind,
        azure::{failure::Fault, tokens::Given},
        buffer::append,
        error, files, trust,
    },
};
use azure_core::http::Url;
use reqwest::{
    Client,
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde::Deserialize;
use std::{
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// A link-local address answers at once, or there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const BODY_LIMIT: usize = 1 << 20;
const METADATA: HeaderName = HeaderName::from_static("metadata");
const IDENTITY_HEADER: HeaderName = HeaderName::from_static("x-identity-header");

pub struct Managed {
    pub place: Place,
    /// The user-assigned identity that is meant; without one the system-assigned one, or the only one.
    pub id: Option<Id>,
    client: OnceLock<Client>,
}

/// Who gives the token.
pub enum Place {
    Machine(Url),
    Endpoint { url: Url, header: Header },
}

/// What the endpoint wants to see.
pub enum Header {
    Text(Zeroizing<String>),
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    Client(String),
    Object(String),
    Resource(String),
}

/// The numbers come as texts, and from some as numbers.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_on: Option<Number>,
    expires_in: Option<Number>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Number(u64),
}

// === impl Managed ===

impl Managed {
    pub fn new(place: Place, id: Option<Id>) -> Self {
        Self { place, id, client: OnceLock::new() }
    }

    pub fn who(&self) -> String {
        let place = match self.place {
            Place::Machine(_) => "this machine",
            Place::Endpoint { .. } => "the identity endpoint",
        };
        match &self.id {
            None => format!("the managed identity of {place}"),
            Some(Id::Client(id) | Id::Object(id) | Id::Resource(id)) => format!("the managed identity {id} of {place}"),
        }
    }

    pub async fn load(&self, scope: &str, host: &HostFiles, timeout: Duration) -> Result<Given, Fault> {
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let (mut url, version, name, mut value) = match &self.place {
            Place::Machine(url) => {
                let mut url = url.clone();
                url.set_path("/metadata/identity/oauth2/token");
                (url, "2018-02-01", METADATA, HeaderValue::from_static("true"))
            }
            Place::Endpoint { url, header } => (url.clone(), "2019-08-01", IDENTITY_HEADER, header.read(host)?),
        };
        url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", resource);
        if let Some(id) = &self.id {
            let (name, value) = id.parameter(&self.place);
            url.query_pairs_mut().append_pair(name, value);
        }
        value.set_sensitive(true);
        let sent = self.client(timeout)?.get(url).header(name, value).send().await;
        let failed = |error: reqwest::Error| self.of_transport(&error);
        let mut answer = sent.map_err(failed)?;
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(self.fault(ErrorKind::Malformed, "the answer is larger than 1 MiB"));
            }
            append(&mut body, &chunk);
        }
        match answer.status().as_u16() {
            200 => self.token(&body),
            status => Err(self.of_answer(status, answer.headers())),
        }
    }

    fn token(&self, body: &[u8]) -> Result<Given, Fault> {
        let malformed = || self.fault(ErrorKind::Malformed, "the answer holds no access token");
        let answer: Answer = serde_json::from_slice(body).map_err(|_| malformed())?;
        let life = answer.expires_on.and_then(Number::value).map(until);
        let life = life.or_else(|| answer.expires_in.and_then(Number::value).map(Duration::from_secs));
        given_for(answer.access_token, life.ok_or_else(malformed)?)
    }

    fn of_answer(&self, status: u16, headers: &HeaderMap) -> Fault {
        let unassigned = "assign a managed identity to this machine (of several, name one by `auth.client_id`, \
                          `auth.object_id` or `auth.identity_id`)";
        let (kind, text) = match status {
            429 => (ErrorKind::Throttled, "429 too many requests: dso asks again later".to_owned()),
            // 404 and 410 are what it says while it is being updated.
            404 | 410 | 500..=599 => {
                (ErrorKind::Unavailable, format!("{status} it cannot answer now: it will be asked again"))
            }
            400 => (ErrorKind::Unauthenticated, format!("400 no token: {unassigned}")),
            401 | 403 => (
                ErrorKind::Unauthenticated,
                match self.place {
                    Place::Machine(_) => format!("{status} it refuses to answer this host: {unassigned}"),
                    Place::Endpoint { .. } => {
                        format!(
                            "{status} it does not take the identity header: is it the one of this start (IDENTITY_HEADER)?"
                        )
                    }
                },
            ),
            _ => (ErrorKind::Malformed, format!("{status} is not what it should answer: check its address")),
        };
        let delay =
            headers.get(RETRY_AFTER).and_then(|value| error::retry_after(value.to_str().ok()?, SystemTime::now()));
        let waits = matches!(kind, ErrorKind::Throttled | ErrorKind::Unavailable);
        self.fault(kind, &text).after(delay.filter(|_| waits))
    }

    fn of_transport(&self, error: &reqwest::Error) -> Fault {
        let hint = "does this host run in Azure? Elsewhere use a workload identity or a certificate (`auth.method`)";
        match error.is_timeout() {
            true => self.fault(ErrorKind::Timeout, &format!("no answer in time: {hint}")),
            false if error.is_connect() => self.fault(ErrorKind::Unreachable, &format!("cannot connect: {hint}")),
            false => self.fault(ErrorKind::Unreachable, "the connection broke before the whole answer was there"),
        }
    }

    fn fault(&self, kind: ErrorKind, text: &str) -> Fault {
        let (what, url) = match &self.place {
            Place::Machine(url) => ("the instance metadata service", url),
            Place::Endpoint { url, .. } => ("the identity endpoint", url),
        };
        Fault::new(kind, format!("{what} at {}: {text}", url.origin().ascii_serialization()))
    }

    /// The header is what keeps a forged request out: a redirect or a proxy never sees it.
    fn client(&self, timeout: Duration) -> Result<&Client, Fault> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = trust::client(Vec::new(), CONNECT_TIMEOUT, timeout)
            .build()
            .map_err(|_| self.fault(ErrorKind::Misconfigured, "no client could be made for it"))?;
        Ok(self.client.get_or_init(|| client))
    }
}

// === impl Header ===

impl Header {
    fn read(&self, host: &HostFiles) -> Result<HeaderValue, Fault> {
        let misconfigured = |text: String| Fault::new(ErrorKind::Misconfigured, text);
        let read = match self {
            Self::Text(text) => HeaderValue::from_str(text),
            Self::File(file) => {
                let word = files::read_word(host, file);
                HeaderValue::from_str(&word.map_err(|why| {
                    misconfigured(format!("no identity header: {why}; put the value of IDENTITY_HEADER there"))
                })?)
            }
        };
        read.map_err(|_| misconfigured("the identity header has characters that none has".into()))
    }
}

// === impl Id ===

impl Id {
    fn parameter(&self, place: &Place) -> (&'static str, &str) {
        let machine = matches!(place, Place::Machine(_));
        match self {
            Self::Client(id) => ("client_id", id),
            Self::Object(id) => (if machine { "object_id" } else { "principal_id" }, id),
            Self::Resource(id) => (if machine { "msi_res_id" } else { "mi_res_id" }, id),
        }
    }
}

// === impl Number ===

impl Number {
    fn value(self) -> Option<u64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(number),
        }
    }
}
