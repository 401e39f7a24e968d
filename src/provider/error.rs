//! What can go wrong at a provider, in the terms of what dso does about it.

use std::{
    error::Error,
    fmt, io,
    time::{Duration, SystemTime},
};

/// A server that asks for more than this is asked again after it.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No connection: refused, no route, no such host.
    Unreachable,
    /// The server's certificate is not trusted, or TLS failed otherwise.
    Tls,
    /// No answer in time.
    Timeout,
    /// The server says that it cannot serve now: sealed, starting, an internal error.
    Unavailable,
    /// Too many requests.
    Throttled,
    /// The identity was refused, or there is none.
    Unauthenticated,
    /// The identity is known and may not do this.
    Forbidden,
    /// There is no such secret, or it was deleted.
    NotFound,
    /// A redirect that dso does not follow.
    Redirected,
    /// An answer that is not what the protocol says.
    Malformed,
    /// The settings do not work: a file is missing, a parameter is wrong.
    Misconfigured,
}

/// A provider's failure: its class, and a sentence for the person who has to mend it.
///
/// The sentence names the provider's answer and what to do, and holds no value, token or body.
#[derive(Clone, Debug)]
pub struct ProviderError {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
}

// === impl ErrorKind ===

impl ErrorKind {
    /// The class in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Redirected => "redirected",
            Self::Malformed => "malformed",
            Self::Misconfigured => "misconfigured",
        }
    }

    /// What a person can do, where the message alone does not say it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unreachable | Self::Timeout => {
                "bring the server back, or mend its address and what stands between it and this host"
            }
            Self::Tls => "mend the certificate as the message says, or set `ca_file`",
            Self::Unavailable => "look at the server",
            Self::Throttled => "raise the server's limit, or `refresh` of the volumes",
            Self::Unauthenticated => "look at what the login in dso.toml names, and at the server's log",
            Self::Forbidden => "give the policy what the message names",
            Self::NotFound => "write the secret, or mend the reference",
            Self::Redirected | Self::Malformed => "check the address in dso.toml: is it the server itself?",
            Self::Misconfigured => "mend dso.toml, or the file that the message names",
        }
    }

    /// Whether the same call may succeed later with nothing changed by a person.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout | Self::Unavailable | Self::Throttled)
    }
}

// === impl ProviderError ===

impl ProviderError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// The server asked not to be called again before this.
    pub fn retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn delay(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ProviderError {}

/// A header `Retry-After`: seconds or a date (RFC 9110 §10.2.3).
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let text = header.trim();
    let delay = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(delay.min(LONGEST_RETRY_AFTER))
}

/// The first error of a type in a chain; `io::Error` hides the one it carries from `source`.
pub fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = carried.and_then(|carried| find::<T>(carried)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::Error as TlsError;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Tue, 24 Nov 2026 19:56:30 GMT").unwrap();
        let delay = |text| retry_after(text, now);
        assert_eq!(delay("7"), Some(Duration::from_secs(7)));
        assert_eq!(delay("Tue, 24 Nov 2026 19:56:42 GMT"), Some(Duration::from_secs(12)));
        assert_eq!(delay("Tue, 24 Nov 2026 19:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(delay("999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(delay("soon"), None);
    }

    #[test]
    fn a_tls_error_is_found_inside_an_io_error() {
        let inner = io::Error::new(io::ErrorKind::InvalidData, TlsError::DecryptError);
        let outer = io::Error::other(inner);
        assert_eq!(find::<TlsError>(&outer), Some(&TlsError::DecryptError));
        assert!(find::<TlsError>(&io::Error::other("x")).is_none());
    }
}
