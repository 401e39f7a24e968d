//! Files of the host, read with care: a path may lead to a pipe, to a huge file, or to nothing.

use super::{error::StoreError, place::Named};
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
};
use zeroize::Zeroizing;

/// An open regular file.
pub struct Opened {
    pub file: File,
    pub meta: Metadata,
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Opens a regular file; `Ok(None)` where there is nothing of that name.
pub fn open(named: &Named, limit: u64) -> Result<Option<Opened>, StoreError> {
    // A pipe without a writer would hold the open for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(&named.path, flags, Mode::empty()).map_err(io::Error::from) {
        Ok(file) => File::from(file),
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(StoreError::io("open", &named.shown)(error)),
    };
    let meta = file.metadata().map_err(StoreError::io("read", &named.shown))?;
    if !meta.is_file() {
        return Err(StoreError::NotAFile(named.shown.clone()));
    }
    if meta.len() > limit {
        return Err(StoreError::TooLarge { path: named.shown.clone(), size: meta.len(), limit });
    }
    Ok(Some(Opened { file, meta }))
}

/// The content, in a buffer that is wiped; no more of it than there was when it was opened.
pub fn read(opened: &mut Opened, named: &Named) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let size = opened.meta.len();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size as usize + 64));
    (&mut opened.file).take(size).read_to_end(&mut bytes).map_err(StoreError::io("read", &named.shown))?;
    Ok(bytes)
}

/// The present state of a file; `Ok(None)` where there is nothing of that name.
pub fn fingerprint(named: &Named) -> Result<Option<Fingerprint>, StoreError> {
    match fs::metadata(&named.path) {
        Ok(meta) => Ok(Some(Fingerprint::of(&meta))),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(StoreError::io("read", &named.shown)(error)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

// === impl Fingerprint ===

impl Fingerprint {
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}
