//! What a generation says of itself: a file inside of it, published with it by the same rename.

use super::{
    Versions,
    set::{File, FileSet},
};
use crate::paths;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What the marker is called. No file of a volume can be: its name starts with `..`.
pub(super) const NAME: &str = "..dso";
const FORMAT: u32 = 1;
/// A symbolic link whose target is longer takes a page of its own in a tmpfs.
const INLINE_LINK: usize = 100;

/// The marker of one generation. It has no values; it is for root alone all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    pub format: u32,
    /// Whose volume it is, as [`super::Mounter::owner`] says; versions of dso that could not take a volume back left it out.
    #[serde(default)]
    pub owner: String,
    pub volume: String,
    pub generation: u64,
    #[serde(with = "rfc3339")]
    pub rotated: SystemTime,
    pub versions: Versions,
    /// What was served after it and taken back.
    #[serde(default, skip_serializing_if = "Versions::is_empty")]
    pub refused: Versions,
    pub files: BTreeMap<String, Shape>,
}

/// What can be told of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
}

// === impl Marker ===

impl Marker {
    pub fn new(owner: &str, volume: &str, generation: u64, set: &FileSet, versions: Versions) -> Self {
        let files = set.iter().map(|(path, file)| (path.to_owned(), Shape::of(file))).collect();
        Self {
            format: FORMAT,
            owner: owner.into(),
            volume: volume.into(),
            generation,
            rotated: now(),
            versions,
            refused: Versions::new(),
            files,
        }
    }

    /// Reads a marker, whatever it is of.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let marker: Self =
            serde_json::from_slice(text).map_err(|error| format!("its marker is unreadable: {error}"))?;
        if marker.format != FORMAT {
            return Err(format!("its marker has format {}, and this dso knows {FORMAT}", marker.format));
        }
        Ok(marker)
    }

    /// Reads a marker that should be of `generation` of `volume`.
    pub fn parse(text: &[u8], volume: &str, generation: u64) -> Result<Self, String> {
        let marker = Self::read(text)?;
        if marker.volume != volume || marker.generation != generation {
            return Err(format!("its marker is of volume `{}`, generation {}", marker.volume, marker.generation));
        }
        Ok(marker)
    }

    pub fn text(&self) -> Vec<u8> {
        // Maps with text keys, numbers and text: there is nothing in it that JSON cannot say.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The names at the top of the volume.
    pub fn names(&self) -> BTreeSet<&str> {
        self.files.keys().map(|path| path.split('/').next().unwrap_or(path)).collect()
    }

    /// The directories within the generation; each comes after those that it lies in.
    pub fn directories(&self) -> BTreeSet<&str> {
        self.files.keys().flat_map(|path| paths::directories(path)).collect()
    }

    /// The most memory that the generation takes, in bytes: whole pages for contents, directories, long links and marker.
    pub fn cost(&self) -> u64 {
        let page = rustix::param::page_size() as u64;
        let contents: u64 = self.files.values().map(|shape| shape.size.div_ceil(page)).sum();
        let long_links = self.names().iter().filter(|name| name.len() > INLINE_LINK).count() as u64;
        (contents + self.directories().len() as u64 + long_links) * page + self.own_cost()
    }

    /// The part of it that the marker takes.
    pub fn own_cost(&self) -> u64 {
        (self.text().len() as u64).next_multiple_of(rustix::param::page_size() as u64)
    }
}

// === impl Shape ===

impl Shape {
    pub fn of(file: &File) -> Self {
        Self { mode: file.mode, uid: file.uid, gid: file.gid, size: file.contents.len() as u64 }
    }
}

/// Whole milliseconds, so that the time reads back as it was.
fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or_default())
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::SystemTime;

    pub fn serialize<S: Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(input)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{SecretValue, SecretVersion};

    fn marker() -> Marker {
        let mut set = FileSet::new();
        for path in ["a", "tls/x/key", "tls/cert"] {
            let contents = SecretValue::new(b"hunter2".to_vec());
            set.insert(path, File { contents, mode: 0o440, uid: 1, gid: 2 }).unwrap();
        }
        Marker::new("me", "v", 7, &set, [("vault://s/a".to_owned(), SecretVersion::new("3", "t"))].into())
    }

    #[test]
    fn a_marker_reads_back_as_it_was_and_holds_no_value() {
        let text = marker().text();
        assert!(!String::from_utf8_lossy(&text).contains("hunter2"));
        let read = Marker::parse(&text, "v", 7).unwrap();
        assert_eq!(read.files, marker().files);
        assert_eq!(read.versions, marker().versions);
        assert_eq!(read, Marker { rotated: read.rotated, ..marker() });
    }

    #[test]
    fn a_marker_of_something_else_is_refused() {
        let text = marker().text();
        assert!(Marker::parse(&text, "w", 7).unwrap_err().contains("of volume `v`"));
        assert!(Marker::parse(&text, "v", 8).unwrap_err().contains("generation 7"));
        assert!(Marker::parse(b"{}", "v", 7).unwrap_err().contains("unreadable"));
        let newer = String::from_utf8(text).unwrap().replace("\"format\":1", "\"format\":2");
        assert!(Marker::parse(newer.as_bytes(), "v", 7).unwrap_err().contains("format 2"));
    }

    #[test]
    fn the_cost_counts_whole_pages_of_files_directories_and_marker() {
        let page = rustix::param::page_size() as u64;
        assert_eq!(marker().directories().into_iter().collect::<Vec<_>>(), ["tls", "tls/x"]);
        assert_eq!(marker().names().into_iter().collect::<Vec<_>>(), ["a", "tls"]);
        assert_eq!(marker().cost(), (3 + 2 + 1) * page);
    }
}
