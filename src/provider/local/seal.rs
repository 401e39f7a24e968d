//! The identity, and what it opens and seals.

use super::{
    error::StoreError,
    file,
    place::{Files, Named},
};
use age::{DecryptError, Decryptor, Encryptor, secrecy::ExposeSecret, x25519};
use rustix::process::geteuid;
use std::{
    io::{self, Read, Write},
    iter,
    os::unix::fs::MetadataExt,
};
use zeroize::Zeroizing;

/// An identity is one short line and its comments.
const IDENTITY_LIMIT: u64 = 16 * 1024;

/// Reads the identity; `Ok(None)` where there is no such file.
///
/// Whoever reads this file reads every secret, so a file that others may read is refused rather than used:
/// a warning would go unseen. Its owner must be root, or whoever runs this, as with ssh's keys.
pub fn identity(named: &Named) -> Result<Option<x25519::Identity>, StoreError> {
    let Some(mut opened) = file::open(named, IDENTITY_LIMIT)? else { return Ok(None) };
    let path = named.shown.clone();
    let mode = opened.meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::IdentityMode { path, mode });
    }
    let uid = opened.meta.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(StoreError::IdentityOwner { path, uid });
    }
    let bytes = file::read(&mut opened, named)?;
    parse(&bytes).map(Some).ok_or(StoreError::BadIdentity(path))
}

/// As `age-keygen` writes it: comments, and one line with the key.
fn parse(bytes: &[u8]) -> Option<x25519::Identity> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let key = keys.next()?.parse().ok()?;
    keys.next().is_none().then_some(key)
}

/// A new identity, and the file that holds it.
pub fn generate() -> (x25519::Identity, Zeroizing<Vec<u8>>) {
    let identity = x25519::Identity::generate();
    let key = identity.to_string();
    let (public, key) = (identity.to_public(), key.expose_secret());
    let mut text = Zeroizing::new(Vec::with_capacity(1024));
    text.extend_from_slice(
        format!("# Opens dso's local store. Keep a copy in a safe place.\n# public key: {public}\n").as_bytes(),
    );
    text.extend_from_slice(key.as_bytes());
    text.push(b'\n');
    (identity, text)
}

pub fn seal(identity: &x25519::Identity, plain: &[u8], files: &Files) -> Result<Vec<u8>, StoreError> {
    let sealed = || {
        let recipient = identity.to_public();
        let encryptor = Encryptor::with_recipients(iter::once(&recipient as _)).map_err(io::Error::other)?;
        let mut out = Vec::with_capacity(plain.len() + plain.len() / 1024 + 1024);
        let mut writer = encryptor.wrap_output(&mut out)?;
        writer.write_all(plain)?;
        writer.finish()?;
        Ok(out)
    };
    sealed().map_err(StoreError::io("encrypt", &files.store.shown))
}

/// The plaintext; nothing of it is used unless all of it is authentic.
pub fn open(identity: &x25519::Identity, sealed: &[u8], files: &Files) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let store = files.store.shown.clone();
    if sealed.is_empty() {
        return Err(StoreError::EmptyStore(store));
    }
    let decryptor = match Decryptor::new_buffered(sealed) {
        Ok(decryptor) => decryptor,
        Err(_) => return Err(StoreError::Damaged(store)),
    };
    let mut reader = match decryptor.decrypt(iter::once(identity as _)) {
        Ok(reader) => reader,
        Err(DecryptError::NoMatchingKeys) => {
            return Err(StoreError::WrongIdentity { identity: files.identity.shown.clone(), store });
        }
        Err(_) => return Err(StoreError::Damaged(store)),
    };
    // The plaintext is shorter than what holds it, so the buffer never grows and leaves no copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len() + 64));
    match reader.read_to_end(&mut plain) {
        Ok(_) => Ok(plain),
        Err(_) => Err(StoreError::Damaged(store)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_file_is_read_as_age_keygen_writes_it() {
        let (identity, text) = generate();
        assert_eq!(parse(&text).unwrap().to_public().to_string(), identity.to_public().to_string());
        let twice = [&text[..], &text[..]].concat();
        for bad in [&b""[..], b"# only a comment\n", b"AGE-SECRET-KEY-1\n", b"\xff", &twice] {
            assert!(parse(bad).is_none());
        }
    }
}
