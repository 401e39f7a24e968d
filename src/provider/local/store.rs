//! Reading the store.

use super::{
    document::{Document, FORMAT, ParseError},
    error::StoreError,
    file::{self, Fingerprint},
    place::{Files, Named},
    seal,
};
use crate::faults;
use std::fs::File;

/// Twice what all values of one volume may be, and more than a host's memory should lose to secrets.
const STORE_LIMIT: u64 = 256 * 1024 * 1024;

/// The opened store, and the state of the file that it was read from.
pub struct Loaded {
    pub document: Document,
    fingerprint: Fingerprint,
    /// Held, so that the inode's number is not given to a later file while it is compared.
    _file: File,
}

// === impl Loaded ===

impl Loaded {
    /// Reads, opens and parses the store. A store whose key is changed just now is read again.
    pub fn read(files: &Files) -> Result<Self, StoreError> {
        let before = file::fingerprint(&files.store)?;
        match Self::read_once(files) {
            Err(StoreError::WrongIdentity { .. }) if file::fingerprint(&files.store)? != before => {
                Self::read_once(files)
            }
            read => read,
        }
    }

    fn read_once(files: &Files) -> Result<Self, StoreError> {
        let Some(mut opened) = file::open(&files.store, STORE_LIMIT)? else {
            return Err(StoreError::NoStore(files.store.shown.clone()));
        };
        let Some(identity) = seal::identity(&files.identity)? else {
            return Err(StoreError::NoIdentity(files.identity.shown.clone()));
        };
        // Taken before the content is read: a change from here on shows at the next comparison.
        let fingerprint = Fingerprint::of(&opened.meta);
        let sealed = file::read(&mut opened, &files.store)?;
        let plain = seal::open(&identity, &sealed, files)?;
        let document = Document::parse(&plain).map_err(|error| unreadable(error, &files.store))?;
        Ok(Self { document, fingerprint, _file: opened.file })
    }

    /// Whether the file is still the one that was read.
    pub fn is_current(&self, files: &Files) -> bool {
        matches!(file::fingerprint(&files.store), Ok(Some(now)) if now == self.fingerprint)
    }
}

fn unreadable(error: ParseError, store: &Named) -> StoreError {
    match error {
        ParseError::Format(found) => StoreError::Format { path: store.shown.clone(), found, known: FORMAT },
        ParseError::Damaged => StoreError::Damaged(store.shown.clone()),
    }
}

/// There is no secret of that name; `instance` tells which store a mistyped name was looked for in.
pub fn missing(document: &Document, name: &str) -> StoreError {
    let near = faults::nearest(name, document.entries().map(|(known, _)| known));
    let hint = match near {
        Some(near) => format!(": did you mean `{near}`?"),
        None => format!(": set it with `docker dso secret set {name}`"),
    };
    StoreError::NoSecret { name: name.into(), hint }
}
