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
    os::unix::fs::MetadataExt,
};
use zeroize::Zeroizing;

/// An identity is one short line and its comments.
const IDENTITY_LIMIT: u64 = 16 * 1024;

/// What the identity file holds: the key that seals and, while it takes the place of another, that one too.
pub struct Identity(Vec<x25519::Identity>);

/// Reads the identity; `Ok(None)` where there is no such file.
///
/// Whoever reads this file reads every secret, so a file that others may read is refused rather than used:
/// a warning would go unseen. Its owner must be root, or whoever runs this, as with ssh's keys.
pub fn identity(named: &Named) -> Result<Option<Identity>, StoreError> {
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

/// As `age-keygen` writes it: comments, and a line with a key.
fn parse(bytes: &[u8]) -> Option<Identity> {
    let text = std::str::from_utf8(bytes).ok()?;
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<_> = keys.map(|key| key.parse().ok()).collect::<Option<_>>()?;
    (!keys.is_empty()).then_some(Identity(keys))
}

/// A new identity.
pub fn generate() -> Identity {
    Identity(vec![x25519::Identity::generate()])
}

// === impl Identity ===

impl Identity {
    /// This one first, and what opens what `old` opened.
    pub fn before(&self, old: &Self) -> Self {
        Self(self.0.iter().chain(&old.0).cloned().collect())
    }

    /// The file that holds it.
    pub fn text(&self) -> Zeroizing<Vec<u8>> {
        let mut text = Zeroizing::new(Vec::with_capacity(512 * (1 + self.0.len())));
        text.extend_from_slice(b"# Opens dso's local store. Keep a copy in a safe place.\n");
        for identity in &self.0 {
            let key = identity.to_string();
            text.extend_from_slice(format!("# public key: {}\n", identity.to_public()).as_bytes());
            text.extend_from_slice(key.expose_secret().as_bytes());
            text.push(b'\n');
        }
        text
    }
}

pub fn seal(identity: &Identity, plain: &[u8], files: &Files) -> Result<Vec<u8>, StoreError> {
    let sealed = || {
        let recipients = identity.0.first().map(x25519::Identity::to_public);
        let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        let mut out = Vec::with_capacity(plain.len() + plain.len() / 1024 + 1024);
        let mut writer = encryptor.wrap_output(&mut out)?;
        writer.write_all(plain)?;
        writer.finish()?;
        Ok(out)
    };
    sealed().map_err(StoreError::io("encrypt", &files.store.shown))
}

/// The plaintext; nothing of it is used unless all of it is authentic.
pub fn open(identity: &Identity, sealed: &[u8], files: &Files) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let store = files.store.shown.clone();
    if sealed.is_empty() {
        return Err(StoreError::EmptyStore(store));
    }
    let decryptor = match Decryptor::new_buffered(sealed) {
        Ok(decryptor) => decryptor,
        Err(_) => return Err(StoreError::Damaged(store)),
    };
    let mut reader = match decryptor.decrypt(identity.0.iter().map(|key| key as &dyn age::Identity)) {
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
        let (new, old) = (generate(), generate());
        let both = parse(&new.before(&old).text()).unwrap();
        let public = |identity: &Identity| identity.0.iter().map(|key| key.to_public().to_string()).collect::<Vec<_>>();
        assert_eq!(public(&both), [public(&new), public(&old)].concat());
        for bad in [&b""[..], b"# only a comment\n", b"AGE-SECRET-KEY-1\n", b"\xff"] {
            assert!(parse(bad).is_none());
        }
        assert!(parse(&[&new.text()[..], b"more\n"].concat()).is_none(), "a file that is damaged is not used in part");
    }
}
