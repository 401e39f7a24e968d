//! Search for secrets in files and in any other bytes.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use rustix::fs::statfs;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How much of a file is looked at at once.
pub const CHUNK: usize = 1 << 20;
/// A shorter text might be anywhere by chance.
const SHORTEST: usize = 20;

/// What is searched: each secret in every form in which it might be written down.
///
/// The patterns are found all at once, by looking at two bytes and skipping to where a pattern could begin at the
/// earliest (Wu and Manber): most bytes are never looked at, so that a whole data root takes a second.
pub struct Needles {
    /// The secret's name, and one of its forms.
    patterns: Vec<(String, Vec<u8>)>,
    /// By the two last bytes of the window: how far it may move on.
    skip: Vec<usize>,
    window: usize,
    longest: usize,
}

// === impl Needles ===

impl Needles {
    /// Secrets of 32 bytes by their names, and texts that are searched as they are.
    pub fn new(secrets: &[(&str, [u8; 32])], texts: &[(&str, &str)]) -> Self {
        let forms = |(name, secret): &(&str, [u8; 32])| {
            let name = (*name).to_owned();
            forms(secret).into_iter().map(move |form| (name.clone(), form)).collect::<Vec<_>>()
        };
        let mut patterns: Vec<_> = secrets.iter().flat_map(forms).collect();
        patterns.extend(texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())));
        // As long as the shortest; a longer one is known by its beginning.
        let window = patterns.iter().map(|(_, pattern)| pattern.len()).min().expect("a pattern");
        assert!(window >= SHORTEST, "a pattern of {window} bytes");
        let mut skip = vec![window - 1; 1 << 16];
        for (_, pattern) in &patterns {
            for end in 1..window {
                let pair = pair(pattern[end - 1], pattern[end]);
                skip[pair] = skip[pair].min(window - 1 - end);
            }
        }
        let longest = patterns.iter().map(|(_, pattern)| pattern.len()).max().expect("a pattern");
        Self { patterns, skip, window, longest }
    }

    /// The names of the secrets that are in `bytes`.
    pub fn find(&self, bytes: &[u8]) -> BTreeSet<String> {
        let (mut found, mut end) = (BTreeSet::new(), self.window - 1);
        while end < bytes.len() {
            let skip = self.skip[pair(bytes[end - 1], bytes[end])];
            if skip == 0 {
                let here = &bytes[end + 1 - self.window..];
                let matching = self.patterns.iter().filter(|(_, pattern)| here.starts_with(pattern));
                found.extend(matching.map(|(name, _)| name.clone()));
            }
            end += skip.max(1);
        }
        found
    }

    /// The same in what is read, chunk by chunk; a pattern may begin in one and end in the next.
    pub fn find_in(&self, mut reader: impl Read, chunk: usize) -> io::Result<(BTreeSet<String>, u64)> {
        let (mut found, mut buffer, mut kept, mut total) = (BTreeSet::new(), vec![0; chunk + self.longest], 0, 0);
        loop {
            let read = match reader.read(&mut buffer[kept..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Ok((found, total));
            }
            let filled = kept + read;
            found.extend(self.find(&buffer[..filled]));
            total += read as u64;
            kept = filled.min(self.longest - 1);
            buffer.copy_within(filled - kept..filled, 0);
        }
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// Raw; hexadecimal; base64 of both alphabets, with or without padding, and also where the secret is a part of what was
/// encoded: at any of the three positions that a byte can have, without the characters that its neighbours have a say in.
fn forms(secret: &[u8; 32]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    for before in 0..3 {
        let text = STANDARD_NO_PAD.encode([&vec![0; before][..], secret].concat());
        let (first, last) = ((before * 8).div_ceil(6), (before + secret.len()) * 8 / 6);
        let inner = text[first..last].to_owned();
        forms.push(inner.replace('+', "-").replace('/', "_").into_bytes());
        forms.push(inner.into_bytes());
    }
    forms
}

/// Where secrets were found, and what was looked at.
#[derive(Debug, Default)]
pub struct Findings {
    /// By the secret's name.
    pub hits: BTreeMap<String, BTreeSet<PathBuf>>,
    /// File systems in RAM that were not looked into.
    pub ram: BTreeSet<PathBuf>,
    /// Files that could not be read, and why.
    pub unread: Vec<String>,
    pub files: usize,
    pub bytes: u64,
}

/// A search through folders.
pub struct Search<'a> {
    pub needles: &'a Needles,
    /// Below this, a file system in RAM is left out: it is where the values belong. What it is, the kernel says; its
    /// name is of no matter, and everywhere else such a file system is searched like any other.
    pub ram_below: &'a Path,
    pub findings: Findings,
    seen: HashSet<(u64, u64)>,
}

// === impl Search ===

impl<'a> Search<'a> {
    pub fn new(needles: &'a Needles, ram_below: &'a Path) -> Self {
        Self { needles, ram_below, findings: Findings::default(), seen: HashSet::new() }
    }

    /// Searches every file below `root`.
    pub fn all(&mut self, root: &Path) {
        self.folder(root, SystemTime::UNIX_EPOCH);
    }

    /// Searches the files below `root` that were written or renamed since the secrets were made: no other can have one.
    pub fn since(&mut self, root: &Path, since: SystemTime) {
        self.folder(root, since);
    }

    fn folder(&mut self, folder: &Path, since: SystemTime) {
        let Ok(meta) = fs::symlink_metadata(folder) else { return };
        // A folder that was bound to another place, or that lies in two of those that are searched.
        if !meta.is_dir() || !self.seen.insert((meta.dev(), meta.ino())) {
            return;
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.failed(folder, &error),
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            // Pipes, sockets and devices hold nothing; a name might.
            self.note(&path, self.needles.find(path.as_os_str().as_encoded_bytes()));
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            let kind = found.file_type();
            if kind.is_dir() && found.dev() != meta.dev() && path.starts_with(self.ram_below) && is_ram(&path) {
                self.findings.ram.insert(path);
            } else if kind.is_dir() {
                self.folder(&path, since);
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap_or_default();
                self.note(&path, self.needles.find(target.as_os_str().as_encoded_bytes()));
            } else if kind.is_file() && changed(&found) >= since && !is_namespace(&path) {
                self.file(&path);
            }
        }
    }

    fn file(&mut self, path: &Path) {
        match File::open(path).and_then(|file| self.needles.find_in(file, CHUNK)) {
            Ok((names, bytes)) => {
                self.findings.files += 1;
                self.findings.bytes += bytes;
                self.note(path, names);
            }
            Err(error) => self.failed(path, &error),
        }
    }

    fn failed(&mut self, path: &Path, error: &io::Error) {
        // Others write and remove while this reads.
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle) {
            self.findings.unread.push(format!("{}: {error}", path.display()));
        }
    }

    fn note(&mut self, path: &Path, names: BTreeSet<String>) {
        for name in names {
            self.findings.hits.entry(name).or_default().insert(path.to_owned());
        }
    }
}

/// When the file, its name or anything about it was last altered; nobody can set this to an earlier time.
fn changed(meta: &fs::Metadata) -> SystemTime {
    UNIX_EPOCH + Duration::new(meta.ctime().cast_unsigned(), 0)
}

fn is_ram(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    statfs(path).is_ok_and(|found| matches!(found.f_type as u64 & 0xffff_ffff, TMPFS | RAMFS))
}

/// A namespace that is kept by a mount, as `ip netns` does, looks like a file.
fn is_namespace(path: &Path) -> bool {
    const NSFS: u64 = 0x6e73_6673;
    statfs(path).is_ok_and(|found| found.f_type as u64 == NSFS)
}
