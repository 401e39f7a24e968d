//! The file that records are kept in.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A file that has become longer is set aside as `….1`, in place of the one before.
pub(super) const LONGEST: u64 = 16 << 20;

/// A file that does not grow for ever.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
}

// === impl LogFile ===

impl LogFile {
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let path = dir.join("audit.jsonl");
        let file = append(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, file, length })
    }

    pub fn write(&mut self, line: &str) -> io::Result<()> {
        if self.length + line.len() as u64 >= LONGEST {
            match fs::rename(&self.path, self.path.with_extension("jsonl.1")) {
                // It was set aside already, by whoever; or here, and then the new one could not be made.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            (self.file, self.length) = (append(&self.path)?, 0);
        }
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
