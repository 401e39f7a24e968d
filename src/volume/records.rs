//! Files that outlive a process, one for each volume: `<dir>/<name>.json`, replaced by atomic rename.
//!
//! # Guarantees
//! - A crash of the process leaves the old file or the new one.
//! - A file that cannot be read is set aside as `<name>.json.unreadable-<n>` and reported; the others are loaded.

use super::VolumeName;
use serde::de::DeserializeOwned;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What a file holds. It has a field `format`.
pub trait Remembered: DeserializeOwned {
    /// The format that this version writes; a file with another is set aside.
    const FORMAT: u32;
    /// What it is called: "it is the … of `v`".
    const WHAT: &'static str;

    fn volume(&self) -> &VolumeName;
}

/// The files of one folder.
#[derive(Clone, Debug)]
pub struct Records {
    dir: PathBuf,
}

/// A file that could not be read.
#[derive(Debug)]
pub struct SetAside {
    pub file: PathBuf,
    pub reason: String,
}

// === impl Records ===

impl Records {
    /// Opens the folder, and makes it if it is missing.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// All that can be read, and what was set aside.
    pub fn load<T: Remembered>(&self) -> io::Result<(Vec<T>, Vec<SetAside>)> {
        let (mut found, mut aside) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(".new") {
                // Left by a crash in the middle of a write: the file itself is untouched.
                fs::remove_file(&path)?;
            } else if let Some(name) = name.strip_suffix(".json") {
                match read::<T>(&path, name) {
                    Ok(read) => found.push(read),
                    Err(reason) => aside.push(set_aside(&path, reason)?),
                }
            }
        }
        Ok((found, aside))
    }

    /// Replaces a volume's file. What is `durable` is on disk when this returns.
    pub fn replace(&self, volume: &VolumeName, text: &[u8], durable: bool) -> io::Result<()> {
        let path = self.path(volume);
        let new = path.with_extension("json.new");
        let written = write(&new, text, durable).and_then(|()| fs::rename(&new, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        if durable {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Forgets a volume; one that is not there is forgotten already.
    pub fn remove(&self, volume: &VolumeName) -> io::Result<()> {
        match fs::remove_file(self.path(volume)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, volume: &VolumeName) -> PathBuf {
        self.dir.join(format!("{volume}.json"))
    }
}

fn write(path: &Path, text: &[u8], durable: bool) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text)?;
    if durable { file.sync_all() } else { Ok(()) }
}

fn read<T: Remembered>(path: &Path, name: &str) -> Result<T, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    if format != Some(T::FORMAT.into()) {
        return Err(format!("its format is {format:?}, and this version reads {}", T::FORMAT));
    }
    let read: T = serde_json::from_value(value).map_err(|error| error.to_string())?;
    match read.volume().as_str() == name {
        true => Ok(read),
        false => Err(format!("it is the {} of `{}`", T::WHAT, read.volume())),
    }
}

fn set_aside(path: &Path, reason: String) -> io::Result<SetAside> {
    let mut file = path.to_owned();
    for n in 1.. {
        file = path.with_extension(format!("json.unreadable-{n}"));
        if !file.try_exists()? {
            break;
        }
    }
    fs::rename(path, &file)?;
    Ok(SetAside { file, reason })
}
