//! What Key Vault says of a version beside its value: whether it may be used now, and what tells a change.

use super::{
    failure::{self, Fault},
    target::Target,
};
use crate::provider::ErrorKind;
use azure_core::{http::headers::Headers, time::OffsetDateTime};
use azure_security_keyvault_secrets::models::SecretAttributes;
use std::time::{Duration, SystemTime};

/// The attributes are of whole seconds: of two changes in one second they show the last.
const SETTLED: Duration = Duration::from_secs(2);

/// Tells a version, and whatever else was changed, without naming it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    created: SystemTime,
    updated: SystemTime,
}

// === impl Marks ===

impl Marks {
    pub fn of(attributes: Option<&SecretAttributes>) -> Option<Self> {
        let attributes = attributes?;
        Some(Self { created: attributes.created?.into(), updated: attributes.updated?.into() })
    }

    /// Whether no further change can hide behind them, by the vault's own clock.
    pub fn settled(&self, headers: &Headers) -> bool {
        let date = headers.get_optional_str(&"date".into()).and_then(|text| httpdate::parse_http_date(text).ok());
        date.and_then(|date| date.duration_since(self.updated).ok()).is_some_and(|age| age >= SETTLED)
    }

    pub fn created(&self) -> SystemTime {
        self.created
    }
}

/// Key Vault gives out what has expired or is not valid yet. Whoever set the dates did not mean it to be used.
pub fn usable(attributes: Option<&SecretAttributes>, target: &Target, now: SystemTime) -> Result<(), Fault> {
    let Some(attributes) = attributes else { return Ok(()) };
    let refused = |text| Err(Fault::new(ErrorKind::Forbidden, text));
    let time = |time: OffsetDateTime| SystemTime::from(time);
    if attributes.enabled == Some(false) {
        return refused(failure::disabled(target));
    }
    if let Some(start) = attributes.not_before.map(time).filter(|start| now < *start) {
        return refused(failure::not_yet(target, &humantime::format_rfc3339_seconds(start).to_string()));
    }
    if let Some(end) = attributes.expires.map(time).filter(|end| *end <= now) {
        return refused(failure::expired(target, &humantime::format_rfc3339_seconds(end).to_string()));
    }
    Ok(())
}
