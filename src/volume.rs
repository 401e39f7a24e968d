//! Volumes as Docker speaks of them: names, mount IDs, options, and the state that outlives a process.

mod on_rotate;
pub mod options;
pub mod records;
pub mod service;
pub mod store;
pub mod template;

pub use on_rotate::OnRotate;
pub use options::{Attributes, Options, Source, VolumeSpec};
pub use service::{ServiceSecret, Versions};
pub use store::{Ledger, Record, Store};

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The name of a volume; it is also the name of a directory and of a state file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// What Docker calls a mount by: random, and not the container's ID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MountId(String);

// === impl VolumeName ===

impl VolumeName {
    /// Longest name in bytes: a state file's name adds an ending to it.
    pub const MAX: usize = 200;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = String;

    /// Docker's own rule for the volumes of its `local` driver: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
    fn from_str(name: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() {
            return Err("the volume's name is empty".into());
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(legal) {
            return Err(
                "a volume's name has letters, digits, `_`, `.` and `-` only, and starts with a letter or digit".into(),
            );
        }
        if name.len() > Self::MAX {
            return Err(format!("a volume's name has at most {} characters", Self::MAX));
        }
        Ok(Self(name.into()))
    }
}

impl TryFrom<String> for VolumeName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl MountId ===

impl MountId {
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for MountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_leave_its_directory_is_no_name() {
        for bad in ["", "..", ".hidden", "a/b", "a b", "-x", "ä", &"x".repeat(201)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
        for good in ["a", "app_secrets", "0.x-y", &"x".repeat(200)] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good:?}");
        }
    }
}
