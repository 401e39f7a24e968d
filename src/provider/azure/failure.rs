//! What an answer of Azure, or the lack of one, means: the one place where `azure` makes errors of them.
//!
//! The texts are dso's own. Azure's messages name identities and can echo what was sent, so their codes are looked at, and
//! the messages never passed on.

use super::target::Target;
use crate::provider::{
    ErrorKind,
    error::{self, find},
};
use azure_core::{
    error::ErrorKind as SdkKind,
    http::{RawResponse, StatusCode, headers::Headers},
};
use rustls::{CertificateError, Error as TlsError};
use serde::Deserialize;
use std::{
    error::Error,
    fmt, io,
    time::{Duration, SystemTime},
};

const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What was asked: the permission that it takes, and of which secret.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// As access policies name it: `get`, `list`.
    pub permission: &'static str,
    pub target: &'a Target,
}

/// A failure, on its way through the SDK or beside it, until whoever knows the instance's name makes an error of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: ErrorKind,
    pub text: String,
    pub delay: Option<Duration>,
}

/// Key Vault's errors, as far as they are looked at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Told,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    code: String,
    innererror: Option<Inner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Inner {
    code: String,
}

// === impl Fault ===

impl Fault {
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), delay: None }
    }

    pub fn after(mut self, delay: Option<Duration>) -> Self {
        self.delay = delay;
        self
    }

    /// To hand it to the SDK, which hands it back.
    pub fn into_sdk(self, kind: SdkKind) -> azure_core::Error {
        azure_core::Error::new(kind, self)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Fault {}

/// A call of a vault that is no success.
pub fn of_call(error: &azure_core::Error, asked: Asked<'_>) -> Fault {
    if let Some(fault) = find::<Fault>(error) {
        return fault.clone();
    }
    match error.kind() {
        SdkKind::HttpResponse { status, raw_response, .. } => of_answer(*status, raw_response.as_deref(), asked),
        // The SDK compares what a vault asks a token for with the vault's name before it asks for one.
        SdkKind::Other => Fault::new(
            ErrorKind::Malformed,
            "the vault asks for a token of another service: none was sent; check the vault's name and `dns_suffix`",
        ),
        _ => malformed(asked),
    }
}

pub fn malformed(Asked { permission, target }: Asked<'_>) -> Fault {
    let text =
        format!("the answer to {permission} {} is not what Key Vault answers: check the vault's name", target.name);
    Fault::new(ErrorKind::Malformed, text)
}

fn of_answer(status: StatusCode, answer: Option<&RawResponse>, asked: Asked<'_>) -> Fault {
    let told: Body = answer.and_then(|answer| serde_json::from_slice(answer.body()).ok()).unwrap_or_default();
    let (code, inner) = (told.error.code, told.error.innererror.unwrap_or_default().code);
    let fault = of_codes(u16::from(status), word(&code), word(&inner), asked);
    let waits = matches!(fault.kind, ErrorKind::Throttled | ErrorKind::Unavailable);
    fault.after(answer.filter(|_| waits).and_then(|answer| retry_after(answer.headers())))
}

fn of_codes(status: u16, code: &str, inner: &str, Asked { permission, target }: Asked<'_>) -> Fault {
    let name = &target.name;
    let (kind, text) = match (status, code, inner) {
        (401, ..) => (
            ErrorKind::Unauthenticated,
            "401 the vault does not take the host's token: is the identity of the vault's own tenant (directory)?"
                .into(),
        ),
        (403, _, "SecretDisabled") => (ErrorKind::Forbidden, disabled(target)),
        (403, _, "ForbiddenByFirewall" | "ForbiddenByConnection") => (
            ErrorKind::Forbidden,
            format!(
                "403 {inner}: the vault's firewall keeps this host out: allow its address or network, or use a private endpoint"
            ),
        ),
        (403, ..) => {
            let code = if inner.is_empty() { "Forbidden" } else { inner };
            (ErrorKind::Forbidden, format!("403 {code} for {name}: {}", grant(permission)))
        }
        (404, ..) => (ErrorKind::NotFound, missing(target)),
        (400, "BadParameter", _) => (
            ErrorKind::Misconfigured,
            format!("400 BadParameter for {name}: Key Vault does not take such a name or version"),
        ),
        (429, ..) => (ErrorKind::Throttled, "429 too many requests: dso asks again later".into()),
        (300..=399, ..) => (
            ErrorKind::Redirected,
            format!("{status} the vault sends to another address, where dso does not follow: check its name"),
        ),
        (500.., ..) => (ErrorKind::Unavailable, format!("{status} the vault failed: it will be asked again")),
        _ => {
            (ErrorKind::Malformed, format!("{status} for {name} is not what Key Vault answers: check the vault's name"))
        }
    };
    Fault::new(kind, text)
}

fn grant(permission: &str) -> String {
    format!(
        "give the host's identity the role \"Key Vault Secrets User\" on the vault or this secret, or the permission `{permission}` in the vault's access policies"
    )
}

pub fn missing(target: &Target) -> String {
    let name = &target.name;
    match &target.version {
        Some(version) => format!("there is no {name} of version {version}: correct `?version=` or the name"),
        None => format!(
            "there is no secret {name} in this vault: create it, recover it if it was deleted, or correct the reference"
        ),
    }
}

pub fn disabled(target: &Target) -> String {
    format!("{} is disabled: enable it, or set a new version", target.name)
}

pub fn expired(target: &Target, when: &str) -> String {
    format!("{} has expired at {when}: set a new version, or a later expiration date", target.name)
}

pub fn not_yet(target: &Target, when: &str) -> String {
    format!("{} is not valid before {when} (its activation date)", target.name)
}

/// A request that came to no answer.
pub fn of_transport(error: &reqwest::Error, whom: &str) -> Fault {
    let fault = |kind, text: String| Fault::new(kind, text);
    if let Some(error) = find::<TlsError>(error) {
        return fault(ErrorKind::Tls, tls_text(error, whom));
    }
    if error.is_timeout() {
        return fault(ErrorKind::Timeout, format!("no answer of {whom} in time: is it reachable from this host?"));
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => {
            fault(ErrorKind::Unreachable, format!("connection refused by {whom}: check its address"))
        }
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            fault(ErrorKind::Unreachable, format!("no route to {whom}: check the host's network"))
        }
        _ if error.is_connect() => fault(
            ErrorKind::Unreachable,
            format!("cannot connect to {whom}: check its name and the host's DNS and network"),
        ),
        _ => fault(ErrorKind::Unreachable, format!("the connection to {whom} broke before the whole answer was there")),
    }
}

fn tls_text(error: &TlsError, whom: &str) -> String {
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!("the certificate of {whom} is not trusted: set `ca_file` to the PEM file of the CA that issued it")
        }
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the certificate of {whom} has expired: check the host's clock")
        }
        TlsError::InvalidCertificate(_) => format!("the certificate of {whom} is not trusted: check it and its name"),
        _ => format!("TLS failed: {whom} and dso could not agree on a safe connection"),
    }
}

/// An answer of Entra ID to a request for a token, by its number (`AADSTS…`).
pub fn of_entra(error: &azure_core::Error) -> Fault {
    if let Some(fault) = find::<Fault>(error) {
        return fault.clone();
    }
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(sdk) = error.downcast_ref::<azure_core::Error>()
            && let SdkKind::HttpResponse { status, error_code, .. } = sdk.kind()
        {
            return of_aadsts(u16::from(*status), error_code.as_deref().unwrap_or_default());
        }
        next = error.source();
    }
    Fault::new(ErrorKind::Malformed, "the answer of Entra ID is not what it should answer: check `authority_host`")
}

fn of_aadsts(status: u16, codes: &str) -> Fault {
    let code =
        codes.split(',').next().filter(|code| code.bytes().all(|byte| byte.is_ascii_digit())).unwrap_or_default();
    let what = match code {
        "90002" | "900023" => "there is no such tenant: check `auth.tenant_id` and `authority_host`",
        "700016" => "the tenant has no such application: check `auth.client_id` and `auth.tenant_id`",
        "70021" | "700211" | "700212" | "700213" | "7002138" => {
            "no federated credential of the identity fits the token: check its issuer, subject and audience"
        }
        "700024" => "the assertion is not valid now: check the host's clock, and that `auth.token_file` is kept fresh",
        "700023" | "700027" | "7000214" | "7000215" | "7000222" => {
            "the certificate is not one of the application's: upload it there, or correct `auth.certificate_file`"
        }
        "500011" | "650057" => "the tenant does not know Key Vault as a service: check `cloud` and `authority_host`",
        _ => "check `auth.tenant_id`, `auth.client_id` and the identity's credentials",
    };
    let code = if code.is_empty() { status.to_string() } else { format!("AADSTS{code}") };
    Fault::new(ErrorKind::Unauthenticated, format!("Entra ID gives the host no token: {code}: {what}"))
}

/// When to ask again, as Azure says it: in milliseconds, in seconds or by a date.
pub fn retry_after(headers: &Headers) -> Option<Duration> {
    let named = |name: &'static str| headers.get_optional_str(&name.into());
    let exact = named("retry-after-ms").or_else(|| named("x-ms-retry-after-ms"));
    match exact.and_then(|text| text.trim().parse().ok()) {
        Some(milliseconds) => Some(Duration::from_millis(milliseconds).min(LONGEST_RETRY_AFTER)),
        None => error::retry_after(named("retry-after")?, SystemTime::now()),
    }
}

/// A code as Azure's are, or nothing.
fn word(text: &str) -> &str {
    if text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) { text } else { "" }
}
