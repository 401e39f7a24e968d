//! One generation: a directory that is written whole, and never altered once it is published.
//!
//! Everything goes through descriptors, and no symbolic link is followed on the way.

use super::{
    error::{Doing, ProjectionError},
    marker::{self, Marker, Shape},
    set::{File, FileSet},
};
use rustix::{
    fs::{self, AtFlags, Gid, Mode, OFlags, Uid},
    io::{Errno, retry_on_intr},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use zeroize::Zeroizing;

const NEW_MARKER: &str = "..dso.new";
const MARKER_SHAPE: Shape = Shape { mode: 0o400, uid: 0, gid: 0, size: 0 };
/// A marker with tens of thousands of files is smaller.
const MAX_MARKER: u64 = 16 << 20;
const MAX_BUFFER: usize = 16 << 10;

/// An open generation.
pub(super) struct Generation(OwnedFd);

// === impl Generation ===

impl Generation {
    pub fn open(root: impl AsFd, name: &str) -> io::Result<Self> {
        Ok(Self(open_dir(root, name)?))
    }

    /// Writes all files, and the marker last: a generation that has one is whole.
    pub fn write(root: impl AsFd, name: &str, set: &FileSet, marker: &Marker) -> Result<(), ProjectionError> {
        make_dir(root.as_fd(), name).doing("make the generation's directory")?;
        let dir = open_dir(root, name).doing("open the generation's directory")?;
        for path in marker.directories() {
            make_dir(dir.as_fd(), path).doing(format_args!("make directory `{path}`"))?;
        }
        for (path, file) in set.iter() {
            write_file(dir.as_fd(), path, file.contents.expose(), Shape::of(file))
                .doing(format_args!("write file `{path}`"))?;
        }
        write_file(dir.as_fd(), marker::NAME, &marker.text(), MARKER_SHAPE).doing("write the generation's marker")
    }

    /// The marker; its absence is an error like any other fault of it.
    pub fn marker(&self, volume: &str, generation: u64) -> Result<Marker, String> {
        Marker::parse(&self.marker_text()?, volume, generation)
    }

    /// The marker of a generation that somebody else may have made.
    pub fn foreign_marker(&self) -> Result<Marker, String> {
        let shape = shape_at(&self.0, marker::NAME).map_err(|error| format!("it has no marker: {error}"))?;
        if (Shape { size: 0, ..shape }) != MARKER_SHAPE {
            return Err("its marker is not for root alone".into());
        }
        Marker::read(&self.marker_text()?)
    }

    /// Puts another marker in the place of the one there is.
    pub fn replace_marker(&self, marker: &Marker) -> io::Result<()> {
        // A call that failed before, or a process that died in it, may have left one.
        match fs::unlinkat(&self.0, NEW_MARKER, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            failed => failed?,
        }
        write_file(self.0.as_fd(), NEW_MARKER, &marker.text(), MARKER_SHAPE)?;
        Ok(fs::renameat(&self.0, NEW_MARKER, &self.0, marker::NAME)?)
    }

    fn marker_text(&self) -> Result<Vec<u8>, String> {
        read_marker(&self.0).map_err(|error| format!("it has no readable marker: {error}"))
    }

    /// Whether every file is there with its mode, owner and size.
    pub fn has_shapes_of(&self, marker: &Marker) -> bool {
        marker.files.iter().all(|(path, shape)| shape_at(&self.0, path).is_ok_and(|found| found == *shape))
    }

    /// Whether every file of `set` begins with the bytes that it has there; whether that is all of it, its shape tells.
    /// What cannot be read is not the same.
    pub fn has_contents_of(&self, set: &FileSet) -> bool {
        let longest = set.iter().map(|(_, file)| file.contents.len()).max().unwrap_or_default();
        let mut buffer = Zeroizing::new(vec![0; longest.min(MAX_BUFFER)]);
        set.iter().all(|(path, file)| same_bytes(&self.0, path, file, &mut buffer).unwrap_or(false))
    }
}

/// Removes the directory `name` with all that is in it.
pub(super) fn remove_tree(parent: impl AsFd, name: &str) -> io::Result<()> {
    let dir = open_dir(&parent, name)?;
    for entry in list(&dir)? {
        match fs::unlinkat(&dir, entry.as_str(), AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(&dir, &entry)?,
            done => done?,
        }
    }
    Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// The names in a directory. Those that are not UTF-8 are not dso's, and are left out.
pub(super) fn list(dir: impl AsFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

pub(super) fn open_dir(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(parent, name, flags, Mode::empty())?)
}

/// The mode is set once more, because the process's umask has a say in the first.
fn make_dir(parent: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    fs::mkdirat(parent, path, mode)?;
    Ok(fs::chmodat(parent, path, mode, AtFlags::empty())?)
}

/// Nobody may read the file before it has its owner and mode, so it gets both while it is empty. The owner
/// comes first: a change of owner takes set-id bits away.
fn write_file(dir: BorrowedFd<'_>, path: &str, contents: &[u8], shape: Shape) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(dir, path, flags, Mode::empty())?;
    fs::fchown(&file, Some(Uid::from_raw(shape.uid)), Some(Gid::from_raw(shape.gid)))?;
    fs::fchmod(&file, Mode::from_raw_mode(shape.mode))?;
    let mut rest = contents;
    while !rest.is_empty() {
        let written = retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = &rest[written..];
    }
    Ok(())
}

fn open_file(dir: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    // Without waiting, should it be a pipe that somebody else has put there.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(fs::openat(dir, path, flags, Mode::empty())?)
}

fn read_marker(dir: impl AsFd) -> io::Result<Vec<u8>> {
    let file = open_file(dir, marker::NAME)?;
    let size = fs::fstat(&file)?.st_size as u64;
    if size > MAX_MARKER {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let (mut text, mut at) = (vec![0; size as usize], 0);
    while at < text.len() {
        match retry_on_intr(|| rustix::io::read(&file, &mut text[at..]))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => at += count,
        }
    }
    Ok(text)
}

fn shape_at(dir: impl AsFd, path: &str) -> io::Result<Shape> {
    let stat = fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW)?;
    if fs::FileType::from_raw_mode(stat.st_mode) != fs::FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Shape { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, size: stat.st_size as u64 })
}

fn same_bytes(dir: impl AsFd, path: &str, file: &File, buffer: &mut [u8]) -> io::Result<bool> {
    let open = open_file(dir, path)?;
    let mut rest = file.contents.expose();
    while !rest.is_empty() {
        let count = retry_on_intr(|| rustix::io::read(&open, &mut *buffer))?;
        match rest.split_at_checked(count) {
            Some((expected, beyond)) if count > 0 && *expected == buffer[..count] => rest = beyond,
            _ => return Ok(false),
        }
    }
    Ok(true)
}
