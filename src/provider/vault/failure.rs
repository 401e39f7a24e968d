//! What a server's answer, or the lack of one, means: the one place where `vault` makes errors of them.
//!
//! The texts are dso's own. A server's `errors[]` can echo what it was sent, so they are looked at, never passed on.

use super::http::{Answer, Http};
use crate::provider::{
    ErrorKind, ProviderError,
    error::{self, find},
};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use rustls::{CertificateError, Error as TlsError};
use std::{
    io,
    time::{Duration, SystemTime},
};

/// What was asked, for the message: an API path, and the capability that a policy needs for it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub path: &'a str,
    pub capability: &'static str,
}

/// An answer that is no success.
pub fn of_answer(http: &Http, answer: &Answer, asked: Asked<'_>) -> ProviderError {
    let (status, Asked { path, capability }) = (answer.status.as_u16(), asked);
    let (kind, text) = match status {
        400 if http.is_plain() => (
            ErrorKind::Misconfigured,
            format!("400 bad request for {path} (if the server speaks TLS, `address` must start with https://)"),
        ),
        400 => (ErrorKind::Misconfigured, format!("400 bad request for {path}: the engine there does not take it")),
        403 => (
            ErrorKind::Forbidden,
            format!(
                "403 permission denied for {path}: the token's policy needs capability \"{capability}\" on that path"
            ),
        ),
        404 => (ErrorKind::NotFound, format!("404 there is nothing at {path}")),
        405 => (ErrorKind::Misconfigured, format!("405 {path} cannot be read: it takes other requests only")),
        412 => {
            (ErrorKind::Unavailable, "412 the server has not yet seen the latest write: it will be asked again".into())
        }
        429 => (ErrorKind::Throttled, format!("429 too many requests, last for {path}: dso asks again later")),
        472 => (
            ErrorKind::Unavailable,
            "472 the server is a disaster-recovery secondary: set `address` to the primary".into(),
        ),
        473 => (
            ErrorKind::Unavailable,
            "473 the server is a performance standby and does not answer: it will be asked again".into(),
        ),
        501 => (ErrorKind::Unavailable, "501 the server is not initialized: run `vault operator init`".into()),
        503 if answer.says(b"sealed") => (ErrorKind::Unavailable, "503 Vault is sealed: unseal it".into()),
        500..=599 => (ErrorKind::Unavailable, format!("{status} the server failed at {path}: its log tells why")),
        _ => (
            ErrorKind::Malformed,
            format!("{status} for {path} is not what Vault answers: does `address` lead to a Vault or OpenBao server?"),
        ),
    };
    let asks_for_time = matches!(kind, ErrorKind::Throttled | ErrorKind::Unavailable);
    http.error(kind, text).retry_after(asks_for_time.then(|| retry_after(&answer.headers)).flatten())
}

/// A 404 for a path that every server has.
pub fn no_server(http: &Http, path: &str) -> ProviderError {
    let text = match http.namespace() {
        Some(namespace) => format!("404 there is no namespace `{namespace}`: check `namespace`"),
        None => format!("404 there is nothing at {path}: does `address` lead to a Vault or OpenBao server?"),
    };
    http.error(ErrorKind::Misconfigured, text)
}

/// No answer, or only part of one.
pub fn of_transport(http: &Http, error: &reqwest::Error) -> ProviderError {
    if let Some(error) = find::<TlsError>(error) {
        return http.error(ErrorKind::Tls, tls_text(error));
    }
    if error.is_timeout() {
        let text = if error.is_connect() { "no connection in time" } else { "no answer in time" };
        return http.error(ErrorKind::Timeout, format!("{text}: is the server up and reachable from this host?"));
    }
    if error.is_dns() {
        return http
            .error(ErrorKind::Unreachable, "its host name cannot be resolved: check `address` and the host's DNS");
    }
    let text = match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused: is the server up, and the port right?",
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            "no route to the server: check the host's network"
        }
        _ if error.is_connect() => "cannot connect: check `address` and the host's network",
        _ => "the connection broke before the whole answer was there",
    };
    http.error(ErrorKind::Unreachable, text)
}

/// `Retry-After` of an answer.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    error::retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

fn tls_text(error: &TlsError) -> String {
    let untrusted = match error {
        TlsError::InvalidCertificate(why) => match why {
            // A wrong signature is an issuer of the same name with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                return "the server's certificate is not trusted: set `ca_file` to the PEM file of the CA that issued it".into();
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "it has expired: renew it on the server"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet: check the clocks of both machines"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "it is for another name: set `address` to a name or IP that the certificate has"
            }
            CertificateError::Revoked => "it was revoked: renew it on the server",
            _ => "check it and its chain, and `ca_file`",
        },
        TlsError::InvalidMessage(_) => {
            return "the server does not speak TLS there: check scheme and port of `address`".into();
        }
        _ => return "TLS failed: the server and dso could not agree on a safe connection".into(),
    };
    format!("the server's certificate is not trusted: {untrusted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_taken_from_its_header() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, reqwest::header::HeaderValue::from_static("7"))]);
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn each_fault_of_a_certificate_says_what_to_mend() {
        for (why, part) in [
            (CertificateError::UnknownIssuer, "set `ca_file` to the PEM file of the CA"),
            (CertificateError::Expired, "it has expired"),
            (CertificateError::NotValidYet, "check the clocks"),
            (CertificateError::NotValidForName, "it is for another name"),
            (CertificateError::Revoked, "it was revoked"),
        ] {
            let text = tls_text(&TlsError::InvalidCertificate(why));
            assert!(text.starts_with("the server's certificate is not trusted: ") && text.contains(part), "{text}");
        }
    }
}
