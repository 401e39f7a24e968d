//! Changing the store: locked, whole, or not at all. Used by `docker dso secret`.
//!
//! # Guarantees
//! - Whoever reads the store meanwhile, or after a crash at any point, finds the old one or the new one whole.
//! - Changes made at the same time by several processes are made one after the other, and none is lost.
//! - Files are mode 0600 from the moment they exist; the store keeps its owner.

use super::{
    document::{Document, Entry},
    error::StoreError,
    file, object,
    place::{Files, Named, Place},
    seal,
    store::{Loaded, missing},
};
use crate::{
    faults::Faults,
    host::HostFiles,
    secret::{Field, SecretRef, SecretValue},
};
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A value is one file in RAM, in every generation and in every reader; a whole volume is at most 64 MiB.
pub const VALUE_LIMIT: usize = 16 * 1024 * 1024;

/// A store as the host's administrator has it: what `docker dso secret` reads and changes.
pub struct LocalStore {
    instance: String,
    files: Files,
}

/// What a person names: a secret of this store, or one field of it.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub field: Option<Field>,
}

/// A secret as it is listed: everything but its value.
#[derive(Debug)]
pub struct Listed {
    pub name: String,
    pub version: String,
    pub updated: String,
    pub size: usize,
}

/// What a change did besides.
#[derive(Debug, Default)]
pub struct Done<T> {
    pub result: T,
    /// The identity file, if it was made for this change.
    pub new_identity: Option<String>,
}

// === impl LocalStore ===

impl LocalStore {
    pub fn open(instance: &str, table: toml::Table, host: &HostFiles) -> Result<Self, Faults> {
        let place = Place::read(instance, table, host)?;
        let mut files = place.files().map_err(|error| error.to_string())?.shown_as_found();
        // A link is followed here, or the rename would put a file in its place.
        for file in [&mut files.store, &mut files.identity] {
            file.path = fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone());
        }
        Ok(Self { instance: instance.into(), files })
    }

    /// The store's path.
    pub fn path(&self) -> &str {
        &self.files.store.shown
    }

    /// Where the identity is, or will be.
    pub fn identity_path(&self) -> &Path {
        &self.files.identity.path
    }

    /// Whether there is neither identity nor store. A store without its identity is a fault: another would not open it.
    pub fn wants_identity(&self) -> Result<bool, StoreError> {
        match (file::fingerprint(&self.files.identity)?, file::fingerprint(&self.files.store)?) {
            (Some(_), _) => Ok(false),
            (None, None) => Ok(true),
            (None, Some(_)) => Err(StoreError::NoIdentity(self.files.identity.shown.clone())),
        }
    }

    /// Makes the identity before the first secret, and returns its path; `Ok(None)` where there is one.
    pub fn make_identity(&self) -> Result<Option<String>, StoreError> {
        if self.wants_identity()? { self.ensure_identity() } else { Ok(None) }
    }

    /// Reads `NAME`, `NAME#FIELD`, or the reference that a volume option has for it.
    pub fn target(&self, text: &str) -> Result<Target, String> {
        let scheme = format!("{}://", self.instance);
        let plain = text.strip_prefix(&scheme).unwrap_or(text);
        if plain.contains("://") {
            return Err(format!("is of another provider; this is `{}`", self.instance));
        }
        let SecretRef { id, field } = format!("{scheme}{plain}").parse().map_err(|fault| format!("{fault}"))?;
        if !id.params().is_empty() {
            return Err("has parameters, and the local store knows none".into());
        }
        Ok(Target { name: id.path().into(), field })
    }

    pub fn get(&self, target: &Target) -> Result<SecretValue, StoreError> {
        let Loaded { document, .. } = Loaded::read(&self.files)?;
        let entry = document.get(&target.name).ok_or_else(|| missing(&document, &target.name))?;
        match &target.field {
            None => Ok(entry.value.clone()),
            Some(field) => entry.value.field(field).map_err(|e| StoreError::Field(format!("`{}`: {e}", target.name))),
        }
    }

    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let Loaded { document, .. } = Loaded::read(&self.files)?;
        let listed = |(name, entry): (&str, &Entry)| Listed {
            name: name.into(),
            version: entry.revision.to_string(),
            updated: entry.updated.clone(),
            size: entry.value.len(),
        };
        Ok(document.entries().map(listed).collect())
    }

    /// Sets a secret, or one field of a secret that is a JSON object. Returns its new version.
    pub fn set(&self, target: &Target, value: SecretValue) -> Result<Done<String>, StoreError> {
        let path = format!("{}://{}", self.instance, target.name);
        if value.len() > VALUE_LIMIT {
            return Err(StoreError::TooLarge { path, size: value.len() as u64, limit: VALUE_LIMIT as u64 });
        }
        self.change(true, |document| {
            let whole = match &target.field {
                None => value,
                Some(Field::Name(field)) => {
                    let old = document.get(&target.name).map(|entry| &entry.value);
                    object::with_field(old, field, &value)
                        .map_err(|fault| StoreError::Field(format!("cannot set `{path}#{field}`: {fault}")))?
                }
                Some(Field::Pointer(_)) => {
                    return Err(StoreError::Field(
                        "a field is set by its name; a JSON Pointer only reads: set the whole secret instead".into(),
                    ));
                }
            };
            Ok((true, document.set(&target.name, whole, SystemTime::now()).to_string()))
        })
    }

    /// Removes secrets; returns whether each was there, in their order.
    pub fn remove(&self, names: &[&str]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let done = self.change(false, |document| {
            let results: Vec<_> = names
                .iter()
                .map(|name| if document.remove(name) { Ok(()) } else { Err(missing(document, name)) })
                .collect();
            Ok((results.iter().any(Result::is_ok), results))
        })?;
        Ok(done.result)
    }

    /// Gives the store a new key; returns the identity file's path. Versions stay: no container is told of it.
    ///
    /// The identity file holds both keys before the store has the new one, and the new one alone after that: whoever
    /// reads meanwhile, or after a crash at any point, has the key for what is there.
    pub fn rotate_key(&self) -> Result<String, StoreError> {
        let (store, named) = (&self.files.store, &self.files.identity);
        if file::fingerprint(store)?.is_none() {
            return Err(StoreError::NoStore(store.shown.clone()));
        }
        let _lock = lock(store)?;
        let document = Loaded::read(&self.files)?.document;
        let old = seal::identity(named)?.ok_or_else(|| StoreError::NoIdentity(named.shown.clone()))?;
        let new = seal::generate();
        replace(named, &new.before(&old).text())?;
        replace(store, &seal::seal(&new, &document.encode(), &self.files)?)?;
        replace(named, &new.text())?;
        Ok(named.shown.clone())
    }

    /// Reads, changes and replaces the store under its lock; `change` says whether there is something to write.
    fn change<T>(
        &self,
        create: bool,
        change: impl FnOnce(&mut Document) -> Result<(bool, T), StoreError>,
    ) -> Result<Done<T>, StoreError> {
        let store = &self.files.store;
        if !create && file::fingerprint(store)?.is_none() {
            return Err(StoreError::NoStore(store.shown.clone()));
        }
        make_folder(store)?;
        let _lock = lock(store)?;
        let (mut document, new_identity) = match Loaded::read(&self.files) {
            Ok(loaded) => (loaded.document, None),
            Err(StoreError::NoStore(_)) if create => (Document::new(random_id(store)?), self.ensure_identity()?),
            Err(error) => return Err(error),
        };
        let (write, result) = change(&mut document)?;
        if write {
            let identity = seal::identity(&self.files.identity)?
                .ok_or_else(|| StoreError::NoIdentity(self.files.identity.shown.clone()))?;
            let sealed = seal::seal(&identity, &document.encode(), &self.files)?;
            replace(store, &sealed)?;
        }
        Ok(Done { result, new_identity })
    }

    /// Makes an identity where there is none: only ever for a store that does not exist yet.
    fn ensure_identity(&self) -> Result<Option<String>, StoreError> {
        let named = &self.files.identity;
        if seal::identity(named)?.is_some() {
            return Ok(None);
        }
        make_folder(named)?;
        let text = seal::generate().text();
        let fresh = sibling(&named.path, &format!(".{}.new", random_id(named)?));
        write_new(&fresh, &text, None).map_err(StoreError::io("write", &named.shown))?;
        // Another store's first secret may make the same identity now: the first one stays.
        let moved = rustix::fs::renameat_with(CWD, &fresh, CWD, &named.path, RenameFlags::NOREPLACE);
        match moved.map_err(io::Error::from) {
            Ok(()) => sync_folder(&named.path)
                .map(|()| Some(named.shown.clone()))
                .map_err(StoreError::io("write", &named.shown)),
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                if error.kind() == io::ErrorKind::AlreadyExists {
                    Ok(None)
                } else {
                    Err(StoreError::io("write", &named.shown)(error))
                }
            }
        }
    }
}

fn random_id(named: &Named) -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(io::Error::other)
        .map_err(StoreError::io("make random bytes for", &named.shown))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

fn make_folder(named: &Named) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder(&named.path))
        .map_err(StoreError::io("make the folder of", &named.shown))
}

/// Waits for the store's lock, and holds it until the file is dropped or the process ends, however it ends.
///
/// A file of its own: the store's is replaced by every change, and a folder cannot be locked everywhere.
fn lock(store: &Named) -> Result<File, StoreError> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(sibling(&store.path, ".lock"));
    let file = opened.map_err(StoreError::io("lock", &store.shown))?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                return result.map(|()| file).map_err(io::Error::from).map_err(StoreError::io("lock", &store.shown));
            }
        }
    }
}

/// Puts `bytes` in a file's place. The lock is held: what a crash left of an earlier attempt is nobody's.
fn replace(named: &Named, bytes: &[u8]) -> Result<(), StoreError> {
    let fresh = sibling(&named.path, ".new");
    let owner = fs::metadata(&named.path).ok().map(|meta| (meta.uid(), meta.gid()));
    let replaced = || {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_new(&fresh, bytes, owner)?;
        fs::rename(&fresh, &named.path)?;
        sync_folder(&named.path)
    };
    replaced().map_err(|error| {
        let _ = fs::remove_file(&fresh);
        StoreError::io("write", &named.shown)(error)
    })
}

/// A new file with mode 0600, on the disk when this returns.
fn write_new(path: &Path, bytes: &[u8], owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some((uid, gid)) = owner
        && (file.metadata()?.uid(), file.metadata()?.gid()) != (uid, gid)
    {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}
