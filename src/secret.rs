//! Secrets as the rest of the crate speaks of them: what is asked for ([`SecretRef`]), what a provider
//! says of it ([`SecretVersion`]) and the bytes themselves ([`SecretValue`]).

mod json;
mod reference;
mod value;

use serde::{Deserialize, Serialize};
use std::fmt;

pub use json::FieldError;
pub use reference::{Field, RefError, SecretId, SecretRef};
pub use value::SecretValue;

/// The version of a secret as its provider named it.
///
/// Two versions are the same only if label and stamp agree: a secret that was removed and written
/// again starts over with label `1`, and its stamp (a creation time, an id) tells the two apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVersion {
    label: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    stamp: String,
}

/// A whole secret, read from its provider.
#[derive(Debug)]
pub struct Secret {
    pub version: SecretVersion,
    pub value: SecretValue,
}

// === impl SecretVersion ===

impl SecretVersion {
    /// A version that a person knows by `label`; `stamp` may be empty.
    pub fn new(label: impl Into<String>, stamp: impl Into<String>) -> Self {
        Self { label: label.into(), stamp: stamp.into() }
    }

    /// Label and stamp in one word, by which two versions can be told apart where only text can be kept.
    pub fn key(&self) -> String {
        if self.stamp.is_empty() { self.label.clone() } else { format!("{}@{}", self.label, self.stamp) }
    }

    /// The label in a [`SecretVersion::key`].
    pub fn label_of(key: &str) -> &str {
        key.split_once('@').map_or(key, |(label, _)| label)
    }

    /// What a person sees: the version's name at the provider.
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl fmt::Display for SecretVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}
