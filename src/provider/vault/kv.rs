//! What the answers of the engines say: values as the raw text that the server sent, and versions.
//!
//! vaultrs' models serve where they fit: [`SecretVersionMetadata`] and [`SecretMetadata`] of KV version 2.
//! Its models of whole answers do not: they parse values into `serde_json::Value`s, which are neither
//! wiped nor true to the digits that were sent, and ask for fields that older servers leave out.

use super::http::Http;
use crate::{
    provider::{ErrorKind, Observed, ProviderError},
    secret::{Secret, SecretValue, SecretVersion},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};
use vaultrs::api::kv2::responses::{SecretMetadata, SecretVersionMetadata};

/// A logical answer: what was read, and the lease that it came with, if any.
pub struct Logical {
    pub value: SecretValue,
    pub lease: Option<Lease>,
}

/// The lease of a dynamic secret.
pub struct Lease {
    /// A name for this lease that says nothing of it.
    pub version: SecretVersion,
    pub duration: Duration,
}

/// What `metadata` and `detailed-metadata` say of one secret.
#[derive(Deserialize)]
pub struct Metadata {
    #[serde(default)]
    current_version: u64,
    #[serde(default)]
    versions: HashMap<u64, SecretMetadata>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: u64,
}

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    metadata: SecretVersionMetadata,
}

// === impl Metadata ===

impl Metadata {
    /// The version that a reference means: the pinned one, or the current one.
    pub fn observe(&self, http: &Http, path: &str, pin: Option<u64>) -> Result<Observed, ProviderError> {
        let number = pin.unwrap_or(self.current_version);
        let Some(version) = self.versions.get(&number) else {
            return Err(no_version(http, path, pin));
        };
        match gone(path, number, &version.deletion_time, version.destroyed) {
            Some(text) => Err(http.error(ErrorKind::NotFound, text)),
            None => Ok(Observed::Version(SecretVersion::new(number.to_string(), &version.created_time))),
        }
    }
}

/// The answer of KV version 2 to a read.
pub fn versioned(http: &Http, path: &str, body: &[u8]) -> Result<Secret, ProviderError> {
    let (data, metadata) = match parse_versioned(body) {
        Some(Versioned { data: Some(data), metadata }) => (data, metadata),
        Some(Versioned { data: None, .. }) => {
            return Err(http.error(ErrorKind::Malformed, format!("the answer for {path} has no data")));
        }
        None => return Err(malformed(http, path, body)),
    };
    let version = SecretVersion::new(metadata.version.to_string(), metadata.created_time);
    Ok(Secret { version, value: value(data) })
}

/// Why KV version 2 answered 404 to a read: never there, deleted, or destroyed.
pub fn missing(http: &Http, path: &str, pin: Option<u64>, body: &[u8]) -> ProviderError {
    let metadata = parse_versioned(body).map(|answer| answer.metadata);
    let text = metadata.and_then(|found| gone(path, found.version, &found.deletion_time, found.destroyed));
    match text {
        Some(text) => http.error(ErrorKind::NotFound, format!("404 {text}")),
        None => no_version(http, path, pin),
    }
}

/// There is no such secret, or no such version of it.
pub fn no_version(http: &Http, path: &str, pin: Option<u64>) -> ProviderError {
    let text = match (pin, path.split_once("/data/")) {
        (Some(version), _) => format!("404 there is no version {version} of {path}: correct `?version=`"),
        (None, Some((mount, rest))) => {
            format!("404 there is no secret at {path}: did you mean `{mount}/{rest}`, without `data/`?")
        }
        (None, None) => format!("404 there is no secret at {path}: write it there, or correct the reference"),
    };
    http.error(ErrorKind::NotFound, text)
}

/// The answer of KV version 1 or of any other engine.
pub fn logical(http: &Http, path: &str, body: &[u8]) -> Result<Logical, ProviderError> {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(body) else {
        return Err(malformed(http, path, body));
    };
    let Some(data) = envelope.data else {
        return Err(http.error(ErrorKind::Malformed, format!("the answer for {path} has no data")));
    };
    let lease = (!envelope.lease_id.is_empty()).then(|| Lease {
        version: SecretVersion::new(format!("lease-{:.8}", envelope.request_id), &envelope.request_id),
        duration: Duration::from_secs(envelope.lease_duration),
    });
    Ok(Logical { value: value(data), lease })
}

/// The answer of `metadata` for one secret.
pub fn metadata(http: &Http, path: &str, body: &[u8]) -> Result<Metadata, ProviderError> {
    #[derive(Deserialize)]
    struct Envelope {
        data: Metadata,
    }
    let parsed = serde_json::from_slice::<Envelope>(body);
    parsed.map(|envelope| envelope.data).map_err(|_| malformed(http, path, body))
}

/// The answer of `detailed-metadata` for a folder, by name; names that end with `/` are folders.
pub fn folder(http: &Http, path: &str, body: &[u8]) -> Result<HashMap<String, Metadata>, ProviderError> {
    #[derive(Deserialize)]
    struct Envelope {
        data: Listing,
    }
    #[derive(Deserialize)]
    struct Listing {
        key_info: HashMap<String, Metadata>,
    }
    let parsed = serde_json::from_slice::<Envelope>(body);
    parsed.map(|envelope| envelope.data.key_info).map_err(|_| malformed(http, path, body))
}

fn parse_versioned(body: &[u8]) -> Option<Versioned<'_>> {
    let data = serde_json::from_slice::<Envelope<'_>>(body).ok()?.data?;
    serde_json::from_str(data.get()).ok()
}

fn value(data: &RawValue) -> SecretValue {
    SecretValue::new(data.get().as_bytes().to_vec())
}

/// That an answer makes no sense; serde's own words can quote it.
pub fn malformed(http: &Http, path: &str, body: &[u8]) -> ProviderError {
    let what = if body.is_empty() { "empty" } else { "not what Vault answers" };
    http.error(
        ErrorKind::Malformed,
        format!("the answer for {path} is {what}: does `address` lead to a Vault or OpenBao server?"),
    )
}

/// Deleted or destroyed, and what helps; a deletion may also lie in the future.
fn gone(path: &str, version: u64, deletion_time: &str, destroyed: bool) -> Option<String> {
    if destroyed {
        return Some(format!("version {version} of {path} was destroyed: write a new version"));
    }
    let is_past = |time: &str| humantime::parse_rfc3339(time).map_or(true, |time| time <= SystemTime::now());
    (!deletion_time.is_empty() && is_past(deletion_time)).then(|| {
        format!("version {version} of {path} was deleted at {deletion_time}: write a new version, or undelete it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::HostFiles, provider::vault::settings::VaultSettings};

    fn http() -> Http {
        let host = HostFiles::on_host("/nowhere");
        Http::new(&VaultSettings::parse("vault", "address = 'http://a'".parse().unwrap(), &host).unwrap(), host)
    }

    #[test]
    fn a_value_is_the_text_that_was_sent() {
        let text = r#"{ "n":1.10,"e":1e400, "s":"\u00e4\/" }"#;
        let body = format!(
            r#"{{"data":{{"data":{text},"metadata":{{"created_time":"t","deletion_time":"","destroyed":false,"version":7,"custom_metadata":null}}}}}}"#
        );
        let secret = versioned(&http(), "s/a", body.as_bytes()).unwrap();
        assert_eq!(secret.value.expose(), text.as_bytes());
        assert_eq!(secret.version, SecretVersion::new("7", "t"));
        let read = logical(&http(), "k/a", format!(r#"{{"lease_id":"","data":{text}}}"#).as_bytes()).unwrap();
        assert_eq!(read.value.expose(), text.as_bytes());
        assert!(read.lease.is_none());
    }

    #[test]
    fn what_holds_no_data_is_never_a_value_and_never_quoted() {
        for body in [
            "",
            "{}",
            r#"{"data":null}"#,
            r#"{"data":{}}"#,
            r#"{"data":"hunter2"}"#,
            "hunter2",
            r#"{"data":{"data":null}}"#,
        ] {
            let error = versioned(&http(), "s/a", body.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{body}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for body in ["", "{}", r#"{"data":null}"#, "hunter2", "[]"] {
            let error = logical(&http(), "s/a", body.as_bytes()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{body}");
        }
        let error = versioned(&http(), "s/a", b"").unwrap_err().to_string();
        assert_eq!(
            error,
            "vault (http://a): the answer for s/a is empty: does `address` lead to a Vault or OpenBao server?"
        );
    }

    #[test]
    fn a_deletion_in_the_future_is_not_yet_one() {
        assert!(gone("a", 1, "2020-01-01T00:00:00.123456789Z", false).unwrap().contains("was deleted at 2020"));
        assert!(gone("a", 1, "2999-01-01T00:00:00Z", false).is_none());
        assert!(gone("a", 1, "", false).is_none());
        assert!(gone("a", 1, "", true).unwrap().contains("destroyed"));
    }

    #[test]
    fn a_pin_looks_at_its_own_version_only() {
        let body = br#"{"data":{"current_version":2,"versions":{
            "1":{"created_time":"one","deletion_time":"2020-01-01T00:00:00Z","destroyed":false},
            "2":{"created_time":"two","deletion_time":"","destroyed":false}}}}"#;
        let metadata = metadata(&http(), "s/a", body).unwrap();
        let observe = |pin| metadata.observe(&http(), "s/a", pin);
        assert_eq!(observe(None).unwrap(), Observed::Version(SecretVersion::new("2", "two")));
        assert!(observe(Some(1)).unwrap_err().to_string().contains("version 1 of s/a was deleted"));
        assert_eq!(
            observe(Some(3)).unwrap_err().to_string(),
            "vault (http://a): 404 there is no version 3 of s/a: correct `?version=`"
        );
    }

    #[test]
    fn a_lease_has_a_version_of_its_own() {
        let body =
            br#"{"request_id":"0123456789abcdef","lease_id":"database/creds/x/y","lease_duration":60,"data":{"a":1}}"#;
        let lease = logical(&http(), "d/a", body).unwrap().lease.unwrap();
        assert_eq!((lease.version.label(), lease.duration), ("lease-01234567", Duration::from_secs(60)));
    }
}
