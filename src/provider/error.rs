//! What can go wrong at a provider, in the terms of what dso does about it.

use std::{fmt, time::Duration};

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

impl std::error::Error for ProviderError {}
