//! What is inside the store: its plaintext format, version 1. Pure; knows no file.
//!
//! ```json
//! {"format":1,"store":"<random id>","revision":7,
//!  "entries":{"app/db":{"revision":7,"updated":"2026-01-31T12:00:00.123456789Z","value":"<base64>"}}}
//! ```

use crate::secret::{SecretValue, SecretVersion};
use base64::{Engine as _, display::Base64Display, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::SystemTime;
use zeroize::Zeroizing;

pub const FORMAT: u64 = 1;

/// An opened store.
#[derive(Debug)]
pub struct Document {
    /// Made with the store: the versions of a store that was made again never equal the old one's.
    id: String,
    /// Grows with every change and never falls, so a secret that was removed and set again has a new version.
    revision: u64,
    entries: BTreeMap<String, Entry>,
}

/// One secret in the store.
#[derive(Debug)]
pub struct Entry {
    pub revision: u64,
    pub updated: String,
    pub value: SecretValue,
}

/// Why bytes are not a document. The parser's own message is not kept: it may quote what it read.
#[derive(Debug, PartialEq, Eq)]
pub enum ParseError {
    Format(u64),
    Damaged,
}

// === impl Document ===

impl Document {
    pub fn new(id: String) -> Self {
        Self { id, revision: 0, entries: BTreeMap::new() }
    }

    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The time is part of the stamp: a store that was restored from a backup counts on from an old
    /// revision, and must not give a number that was out before to another value.
    pub fn version(&self, entry: &Entry) -> SecretVersion {
        SecretVersion::new(entry.revision.to_string(), format!("{} {}", self.id, entry.updated))
    }

    /// Returns the entry's new revision.
    pub fn set(&mut self, name: &str, value: SecretValue, now: SystemTime) -> u64 {
        self.revision += 1;
        let updated = humantime::format_rfc3339_nanos(now).to_string();
        self.entries.insert(name.into(), Entry { revision: self.revision, updated, value });
        self.revision
    }

    /// Whether there was such a secret.
    pub fn remove(&mut self, name: &str) -> bool {
        let found = self.entries.remove(name).is_some();
        self.revision += u64::from(found);
        found
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let Versioned { format } = serde_json::from_slice(bytes).map_err(|_| ParseError::Damaged)?;
        if format != FORMAT {
            return Err(ParseError::Format(format));
        }
        let stored: Stored<'_> = serde_json::from_slice(bytes).map_err(|_| ParseError::Damaged)?;
        let mut entries = BTreeMap::new();
        for (name, StoredEntry { revision, updated, value }) in stored.entries {
            let value = decode(value).ok_or(ParseError::Damaged)?;
            entries.insert(name, Entry { revision, updated, value });
        }
        Ok(Self { id: stored.store, revision: stored.revision, entries })
    }

    /// The plaintext. Its buffer never grows, so that no copy is left behind unwiped.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // A name's every byte may be written as `\u00XX`; 200 covers the keys, numbers and times around it.
        let room = |(name, entry): (&str, &Entry)| 200 + 6 * name.len() + 4 * entry.value.len().div_ceil(3);
        let mut out = Zeroizing::new(Vec::with_capacity(300 + self.entries().map(room).sum::<usize>()));
        let written = Written {
            format: FORMAT,
            store: &self.id,
            revision: self.revision,
            entries: self.entries().map(|(name, entry)| (name, entry.into())).collect(),
        };
        let before = out.capacity();
        // Writing to memory cannot fail, and every part serializes.
        let done = serde_json::to_writer(&mut *out, &written);
        debug_assert!(done.is_ok() && out.capacity() == before);
        out
    }
}

fn decode(text: &str) -> Option<SecretValue> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(text.len())));
    STANDARD.decode_vec(text, &mut bytes).ok()?;
    Some(SecretValue::new(bytes))
}

#[derive(Deserialize)]
struct Versioned {
    format: u64,
}

#[derive(Deserialize)]
struct Stored<'a> {
    store: String,
    revision: u64,
    #[serde(borrow)]
    entries: BTreeMap<String, StoredEntry<'a>>,
}

#[derive(Deserialize)]
struct StoredEntry<'a> {
    revision: u64,
    updated: String,
    /// Borrowed: base64 has no escapes, and the text is wiped with the buffer that it stands in.
    value: &'a str,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u64,
    store: &'a str,
    revision: u64,
    entries: BTreeMap<&'a str, WrittenEntry<'a>>,
}

#[derive(Serialize)]
struct WrittenEntry<'a> {
    revision: u64,
    updated: &'a str,
    #[serde(serialize_with = "base64_text")]
    value: &'a SecretValue,
}

impl<'a> From<&'a Entry> for WrittenEntry<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self { revision: entry.revision, updated: &entry.updated, value: &entry.value }
    }
}

fn base64_text<S: Serializer>(value: &SecretValue, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Base64Display::new(value.expose(), &STANDARD))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> SecretValue {
        SecretValue::new(bytes.to_vec())
    }

    #[test]
    fn what_is_written_reads_back_byte_for_byte() {
        let mut document = Document::new("id".into());
        let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        document.set("größe/\"q\"", value(&bytes), SystemTime::now());
        document.set("empty", value(b""), SystemTime::now());
        let read = Document::parse(&document.encode()).unwrap();
        assert_eq!(read.get("größe/\"q\"").unwrap().value, value(&bytes));
        assert!(read.get("empty").unwrap().value.is_empty());
        for (name, entry) in document.entries() {
            assert_eq!(read.version(read.get(name).unwrap()), document.version(entry));
        }
    }

    #[test]
    fn a_secret_removed_and_set_again_has_a_new_version() {
        let mut document = Document::new("id".into());
        assert_eq!(document.set("a", value(b"1"), SystemTime::UNIX_EPOCH), 1);
        assert!(document.remove("a"));
        assert!(!document.remove("a"));
        assert_eq!(document.set("a", value(b"2"), SystemTime::UNIX_EPOCH), 3);
    }

    #[test]
    fn the_same_revision_is_another_version_in_another_store_or_at_another_time() {
        let version = |id: &str, time| {
            let mut document = Document::new(id.into());
            document.set("a", value(b"1"), time);
            document.version(document.get("a").unwrap())
        };
        let (then, now) = (SystemTime::UNIX_EPOCH, SystemTime::now());
        assert_eq!(version("x", then), version("x", then));
        assert_ne!(version("x", then), version("y", then));
        assert_ne!(version("x", then), version("x", now));
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        assert_eq!(Document::parse(br#"{"format":2,"new":{}}"#).unwrap_err(), ParseError::Format(2));
        for bad in [
            &b""[..],
            b"{}",
            br#"{"format":1}"#,
            br#"{"format":1,"store":"x","revision":1,"entries":{"a":{"revision":1,"updated":"","value":"!"}}}"#,
        ] {
            assert_eq!(Document::parse(bad).unwrap_err(), ParseError::Damaged);
        }
    }
}
