//! What can be wrong with the store's files, said to the person who can mend them.

use crate::provider::{ErrorKind, ProviderError};
use std::io;
use thiserror::Error;

/// A failure of the store or its identity. Names files and what to do; never a value.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("there is no local store at `{0}` yet: make it on the host with `docker dso secret set NAME`")]
    NoStore(String),
    #[error("the local store has no secret `{name}`{hint}")]
    NoSecret { name: String, hint: String },
    #[error(
        "the identity file `{0}` is missing, and nothing else opens the local store: restore it from a backup, or move the store away and set every secret again"
    )]
    NoIdentity(String),
    #[error(
        "the identity file `{path}` is open to other users (mode {mode:04o}): run `chmod 600 {path}`; whoever read it can read every secret of the store"
    )]
    IdentityMode { path: String, mode: u32 },
    #[error("the identity file `{path}` belongs to user id {uid}, who can read every secret: run `chown root {path}`")]
    IdentityOwner { path: String, uid: u32 },
    #[error(
        "the identity file `{0}` does not hold an age identity alone (a line that starts with AGE-SECRET-KEY-1): restore it from a backup"
    )]
    BadIdentity(String),
    #[error(
        "the identity in `{identity}` does not open the store `{store}`: they do not belong together; restore the one that was replaced"
    )]
    WrongIdentity { identity: String, store: String },
    #[error(
        "the local store `{0}` is an empty file, as a full disk or a broken copy leaves it: restore it from a backup, or remove it and set every secret again"
    )]
    EmptyStore(String),
    #[error("the local store `{0}` is damaged or cut short: restore it from a backup")]
    Damaged(String),
    #[error(
        "the local store `{path}` has format {found}, and this dso knows format {known}: use the version of dso that wrote it"
    )]
    Format { path: String, found: u64, known: u64 },
    #[error("`{path}` would be {size} bytes, and dso takes at most {limit}")]
    TooLarge { path: String, size: u64, limit: u64 },
    #[error("`{0}` is not a regular file")]
    NotAFile(String),
    #[error("{0}")]
    Outside(String),
    #[error("cannot {what} `{path}`: {source}")]
    Io { what: &'static str, path: String, source: io::Error },
    #[error("{0}")]
    Field(String),
}

// === impl StoreError ===

impl StoreError {
    pub(super) fn io(what: &'static str, path: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoStore(_) | Self::NoSecret { .. } | Self::Field(_) => ErrorKind::NotFound,
            Self::NoIdentity(_) | Self::WrongIdentity { .. } => ErrorKind::Unauthenticated,
            Self::EmptyStore(_) | Self::Damaged(_) | Self::Format { .. } | Self::TooLarge { .. } => {
                ErrorKind::Malformed
            }
            Self::IdentityMode { .. } | Self::IdentityOwner { .. } | Self::BadIdentity(_) => ErrorKind::Misconfigured,
            Self::NotAFile(_) | Self::Outside(_) => ErrorKind::Misconfigured,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => ErrorKind::Forbidden,
            Self::Io { .. } => ErrorKind::Unavailable,
        }
    }
}

impl From<&StoreError> for ProviderError {
    fn from(error: &StoreError) -> Self {
        ProviderError::new(error.kind(), error.to_string())
    }
}
