//! What a volume is to show: whole files, and no two that exclude each other.

use crate::{paths, secret::SecretValue};
use std::collections::BTreeMap;

/// One file: its bytes, and to whom they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub contents: SecretValue,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Every file of a volume, by its path relative to the volume (`a`, `tls/key.pem`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSet(BTreeMap<String, File>);

// === impl FileSet ===

impl FileSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file. The fault names the path and what is wrong with it.
    pub fn insert(&mut self, path: impl Into<String>, file: File) -> Result<(), String> {
        let path = path.into();
        paths::check_path(&path)
            .map_err(|fault| format!("`{}` cannot be a file's path: {fault}", path.escape_debug()))?;
        match paths::clash(&self.0, &path) {
            Some(same) if same == path => return Err(format!("two files have the path `{path}`")),
            Some(other) => {
                return Err(format!("`{path}` and `{other}` exclude each other: one is a directory of the other"));
            }
            None => {}
        }
        if file.mode & !0o7777 != 0 {
            return Err(format!("`{path}` cannot have the mode {:o}", file.mode));
        }
        // To the kernel this number means "leave the owner as it is".
        if file.uid == u32::MAX || file.gid == u32::MAX {
            return Err(format!("`{path}` cannot have the owner {}", u32::MAX));
        }
        self.0.insert(path, file);
        Ok(())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &File)> {
        self.0.iter().map(|(path, file)| (path.as_str(), file))
    }

    pub fn get(&self, path: &str) -> Option<&File> {
        self.0.get(path)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, uid: u32) -> File {
        File { contents: SecretValue::new(b"x".to_vec()), mode, uid, gid: 0 }
    }

    #[test]
    fn files_that_exclude_each_other_or_cannot_be_are_refused_by_name() {
        let mut set = FileSet::new();
        set.insert("tls/key.pem", file(0o400, 0)).unwrap();
        for (path, file, fault) in [
            ("tls", file(0o400, 0), "`tls` and `tls/key.pem` exclude each other: one is a directory of the other"),
            ("tls/key.pem", file(0o400, 0), "two files have the path `tls/key.pem`"),
            ("../x", file(0o400, 0), "`../x` cannot be a file's path: it has a segment `..`"),
            ("a\0", file(0o400, 0), "`a\\0` cannot be a file's path: it has a NUL character"),
            ("m", file(0o10000, 0), "`m` cannot have the mode 10000"),
            ("o", file(0o400, u32::MAX), "`o` cannot have the owner 4294967295"),
        ] {
            assert_eq!(set.insert(path, file).unwrap_err(), fault);
        }
        assert_eq!(set.len(), 1);
    }
}
