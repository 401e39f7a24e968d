//! The top of a volume, laid out as Kubernetes lays out its own, so that tools made for those work:
//!
//! ```text
//! password -> ..data/password
//! ..data   -> ..7
//! ..7/        the generation that is served
//! ..6/        the one before
//! ```

use super::{
    error::{Doing, ProjectionError},
    generation::{self, Generation},
    marker::Marker,
};
use rustix::{
    fs::{self, AtFlags, CWD, Mode, OFlags},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data.new";

/// The open root directory of a volume.
pub(super) struct Root(OwnedFd);

/// What is found at the top of a volume.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub generations: BTreeSet<u64>,
    /// The names that people see.
    pub names: BTreeSet<String>,
}

/// The name of a generation's directory.
pub(super) fn directory(generation: u64) -> String {
    format!("..{generation}")
}

// === impl Root ===

impl Root {
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_at(CWD, path)
    }

    /// Of a mount that need not be at any place.
    pub fn of(mount: impl AsFd) -> io::Result<Self> {
        Self::open_at(mount, Path::new("."))
    }

    fn open_at(dir: impl AsFd, path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(fs::openat(dir, path, flags, Mode::empty())?))
    }

    /// Whether it is memory: a tmpfs or a ramfs.
    pub fn is_memory(&self) -> io::Result<bool> {
        const TMPFS: u64 = 0x0102_1994;
        const RAMFS: u64 = 0x8584_58f6;
        Ok(matches!(fs::fstatfs(&self.0)?.f_type as u64 & 0xffff_ffff, TMPFS | RAMFS))
    }

    /// How much fits into it, in bytes; 0 where the file system has no bound.
    pub fn capacity(&self) -> io::Result<u64> {
        let stat = fs::fstatvfs(&self.0)?;
        Ok(stat.f_blocks * stat.f_frsize)
    }

    pub fn contents(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        for name in generation::list(&self.0)? {
            match name.strip_prefix("..") {
                None => drop(contents.names.insert(name)),
                Some(number) => contents.generations.extend(number.parse::<u64>()),
            }
        }
        Ok(contents)
    }

    /// The generation that is served.
    pub fn live(&self) -> io::Result<u64> {
        let target = fs::readlinkat(&self.0, DATA, Vec::new())?;
        let number = target.to_str().ok().and_then(|text| text.strip_prefix("..")?.parse().ok());
        number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "`..data` leads to no generation"))
    }

    pub fn generation(&self, number: u64) -> io::Result<Generation> {
        Generation::open(&self.0, &directory(number))
    }

    /// Whether every name at the top leads where it should.
    pub fn has_links_of(&self, marker: &Marker) -> bool {
        let leads = |name: &str| {
            fs::readlinkat(&self.0, name, Vec::new()).is_ok_and(|to| to.to_bytes() == target(name).as_bytes())
        };
        self.live().is_ok_and(|live| live == marker.generation) && marker.names().into_iter().all(leads)
    }

    /// Serves a whole generation from now on, or leaves all as it was.
    ///
    /// Names that are new are linked before the one rename that publishes, and names that are gone are
    /// removed after it: one that is in both is there at any moment, and whoever watches for `..data` to be
    /// replaced finds every name in its place.
    pub fn publish(&self, marker: &Marker, present: &BTreeSet<String>) -> Result<(), ProjectionError> {
        let names = marker.names();
        let mut linked = Vec::new();
        let published = names.iter().filter(|name| !present.contains(**name)).try_for_each(|name| {
            fs::symlinkat(target(name), &self.0, *name).doing(format_args!("link `{name}`"))?;
            linked.push(*name);
            Ok(())
        });
        let published = published.and_then(|()| self.point_to(marker.generation).doing("publish the generation"));
        let unwanted: Vec<&str> = match published {
            Ok(()) => present.iter().map(String::as_str).filter(|name| !names.contains(name)).collect(),
            Err(_) => linked,
        };
        for name in unwanted {
            if let Err(error) = fs::unlinkat(&self.0, name, AtFlags::empty()) {
                tracing::warn!(volume = marker.volume, name, %error, "a name without a file is left in the volume");
            }
        }
        published
    }

    /// Removes a generation; that it is not there is not an error.
    pub fn remove(&self, generation: u64) -> io::Result<()> {
        match generation::remove_tree(&self.0, &directory(generation)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn point_to(&self, generation: u64) -> io::Result<()> {
        match fs::symlinkat(directory(generation), &self.0, NEW_DATA) {
            // A process that died between the two calls left it.
            Err(Errno::EXIST) => {
                fs::unlinkat(&self.0, NEW_DATA, AtFlags::empty())?;
                fs::symlinkat(directory(generation), &self.0, NEW_DATA)?;
            }
            done => done?,
        }
        Ok(fs::renameat(&self.0, NEW_DATA, &self.0, DATA)?)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn target(name: &str) -> String {
    format!("{DATA}/{name}")
}
