//! Volumes in memory: a tmpfs each, at a place that only this process sees, and a read-only bind of it that the host sees.
//!
//! The calls are those of mount(2), which every kernel has that runs a supported engine.

use super::{
    mounter::Mounter,
    mountinfo,
    orphan::{self, Orphan},
    owner, reconnect,
};
use rustix::{
    fs::{self, AtFlags, CWD, Mode},
    io::Errno,
    mount::{self, MountFlags, MountPropagationFlags, UnmountFlags},
};
use std::{
    ffi::CString,
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

/// What the mounts are called in the kernel's list.
pub(super) const SOURCE: &str = "dso";
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// The [`Mounter`] of the plugin.
///
/// # Guarantees
/// - The private place and all in it is seen in this mount namespace alone, whatever it is that holds it.
/// - The mount that the host sees is read-only from its first moment, and so is every bind made of it: the bind is
///   made read-only at the private place and *moved*. A bind made in place would reach the host while it is writable,
///   and what makes it read-only afterwards does not propagate.
pub struct Tmpfs {
    /// `<private>/rw`: the writable file systems.
    writable: PathBuf,
    /// `<private>/ro`: where read-only binds are made before they are moved.
    staging: PathBuf,
    shared: PathBuf,
    memory: Memory,
    owner: String,
}

/// What volumes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Tmpfs,
    /// Never swapped, but without a bound of its own: [`super::Projection`] holds the size.
    Ramfs,
}

// === impl Tmpfs ===

impl Tmpfs {
    /// Prepares both places. `private` must not be on the mount through which `shared` reaches the host.
    pub fn new(private: impl AsRef<Path>, shared: impl AsRef<Path>) -> io::Result<Self> {
        Self::prepare(private.as_ref(), shared.as_ref(), None)
    }

    /// As [`Tmpfs::new`] on a kernel whose tmpfs has no `noswap`.
    pub fn on_ramfs(private: impl AsRef<Path>, shared: impl AsRef<Path>) -> io::Result<Self> {
        Self::prepare(private.as_ref(), shared.as_ref(), Some(Memory::Ramfs))
    }

    fn prepare(private: &Path, shared: &Path, memory: Option<Memory>) -> io::Result<Self> {
        let make = |path: &Path| {
            let made = std::fs::create_dir_all(path).and_then(|()| path.canonicalize());
            made.map_err(at("make the directory", path))
        };
        let (private, shared) = (make(private)?, make(shared)?);
        let found = make_private(&private, &shared)?;
        let (writable, staging) = (private.join("rw"), private.join("ro"));
        for dir in [&writable, &staging] {
            make_dir(dir)?;
        }
        // Beside the mountpoints, not among them.
        let beside = shared.parent().unwrap_or(&shared);
        let owner = owner::read_or_make(beside).map_err(at("note whose volumes these are in", beside))?;
        Ok(Self { writable, staging, shared, memory: memory.unwrap_or(found), owner })
    }

    fn fstype(&self) -> &'static str {
        match self.memory {
            Memory::Tmpfs => "tmpfs",
            Memory::Ramfs => "ramfs",
        }
    }

    fn volume_at(&self, point: &Path) -> Option<String> {
        let name = point.strip_prefix(&self.shared).ok()?.to_str()?;
        check(name).is_ok().then(|| name.to_owned())
    }

    fn is_shared(&self, volume: &str) -> io::Result<bool> {
        let device = |path: &Path| fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_dev);
        match device(&self.shared.join(volume)) {
            Err(Errno::NOENT) => Ok(false),
            found => Ok(found? != device(&self.shared)?),
        }
    }

    fn refuse_if_shared(&self, volume: &str) -> io::Result<()> {
        if self.is_shared(volume)? {
            let text = format!("something is mounted at `{}`", self.shared.join(volume).display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        Ok(())
    }
}

// === impl Mounter ===

impl Mounter for Tmpfs {
    fn memory(&self) -> &'static str {
        self.fstype()
    }

    fn create(&self, volume: &str, size: u64) -> io::Result<PathBuf> {
        check(volume)?;
        self.refuse_if_shared(volume)?;
        let root = self.writable.join(volume);
        make_mountpoint(&root)?;
        let data = match self.memory {
            Memory::Tmpfs => options(&format!("noswap,mode=0755,size={size}"))?,
            Memory::Ramfs => options("mode=0755")?,
        };
        let mounted = mount::mount(SOURCE, &root, self.fstype(), FLAGS, data.as_c_str());
        undo_on_error(mounted.map_err(at(format!("mount a {} at", self.fstype()), &root)), || remove(&root))?;
        Ok(root)
    }

    fn share(&self, volume: &str) -> io::Result<()> {
        check(volume)?;
        let (root, staged, shared) = (self.writable.join(volume), self.staging.join(volume), self.shared.join(volume));
        make_mountpoint(&staged)?;
        let moved = mount::mount_bind(&root, &staged)
            .and_then(|()| mount::mount_remount(&staged, MountFlags::BIND | MountFlags::RDONLY | FLAGS, ""))
            .map_err(at("bind read-only at", &staged))
            .and_then(|()| make_dir(&shared))
            .and_then(|()| mount::mount_move(&staged, &shared).map_err(at("move the read-only mount to", &shared)));
        undo_on_error(moved, || remove(&staged).and_then(|()| remove_empty(&shared)))?;
        // The volume is shared, whatever becomes of an empty directory.
        remove_empty(&staged).or_else(|error| {
            tracing::debug!(volume, %error, "an empty directory is left");
            Ok(())
        })
    }

    fn resize(&self, volume: &str, size: u64) -> io::Result<()> {
        check(volume)?;
        if self.memory == Memory::Ramfs {
            return Ok(());
        }
        let root = self.writable.join(volume);
        // `noswap` cannot be altered afterwards; it is said again, so that no kernel takes its absence for a wish to.
        let data = options(&format!("noswap,size={size}"))?;
        mount::mount_remount(&root, FLAGS, data.as_c_str()).map_err(at("resize the tmpfs at", &root))
    }

    fn destroy(&self, volume: &str) -> io::Result<()> {
        check(volume)?;
        // What the host sees goes first: nothing new can bind what is about to vanish.
        let places = [&self.shared, &self.staging, &self.writable];
        let failed = places.map(|place| remove(&place.join(volume)));
        failed.into_iter().collect()
    }

    fn shared(&self) -> io::Result<Vec<String>> {
        let mounts = mountinfo::read().map_err(at("read the list of", Path::new("mounts")))?;
        let mut volumes: Vec<_> = mounts.iter().filter_map(|mount| self.volume_at(&mount.point)).collect();
        volumes.sort();
        volumes.dedup();
        Ok(volumes)
    }

    fn adopt(&self, volume: &str) -> io::Result<PathBuf> {
        check(volume)?;
        let (root, shared) = (self.writable.join(volume), self.shared.join(volume));
        if !self.is_shared(volume)? {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("nothing is mounted at `{}`", shared.display()),
            ));
        }
        make_mountpoint(&root)?;
        let bound = mount::mount_bind(&shared, &root)
            // A bind of a shared mount is its peer.
            .and_then(|()| mount::mount_change(&root, MountPropagationFlags::PRIVATE))
            .and_then(|()| mount::mount_remount(&root, MountFlags::BIND | FLAGS, ""));
        undo_on_error(bound.map_err(at("bind writable at", &root)), || remove(&root))?;
        Ok(root)
    }

    fn mountpoint(&self, volume: &str) -> PathBuf {
        self.shared.join(volume)
    }

    fn owner(&self) -> &str {
        &self.owner
    }

    fn orphans(&self) -> io::Result<Vec<Orphan>> {
        let mut orphans = orphan::find(&self.owner, &self.shared)?;
        orphans.retain(|orphan| check(&orphan.volume).is_ok());
        Ok(orphans)
    }

    fn take_back(&self, orphan: &Orphan) -> io::Result<()> {
        check(&orphan.volume)?;
        self.refuse_if_shared(&orphan.volume)?;
        let root = self.writable.join(&orphan.volume);
        make_mountpoint(&root)?;
        // As `adopt` does: what a container has is read-only, and may propagate.
        let attached = orphan
            .attach(&root)
            .and_then(|()| mount::mount_change(&root, MountPropagationFlags::PRIVATE))
            .and_then(|()| mount::mount_remount(&root, MountFlags::BIND | FLAGS, ""));
        undo_on_error(attached.map_err(at("attach writable at", &root)), || remove(&root))?;
        undo_on_error(self.share(&orphan.volume), || remove(&root))
    }

    fn reaches(&self, volume: &str, pid: u32) -> bool {
        let seen = || -> io::Result<bool> {
            let shared = self.shared.join(volume);
            let device = fs::statat(CWD, &shared, AtFlags::SYMLINK_NOFOLLOW)?.st_dev;
            let device = (fs::major(device), fs::minor(device));
            // Run by hand, the shared place may be on a mount that has no peers: then it is nobody else's to see.
            let propagates = mountinfo::read()?.iter().any(|mount| mount.device == device && mount.peers.is_some());
            Ok(!propagates || mountinfo::of_process(pid)?.iter().any(|mount| mount.device == device))
        };
        seen().unwrap_or_else(|error| {
            tracing::debug!(volume, pid, %error, "cannot tell whether the engine sees the volume's mount");
            true
        })
    }

    fn reconnect(&self, pid: u32) -> io::Result<()> {
        reconnect::reconnect(&self.shared, pid)
    }
}

/// Makes `private` a mount that is seen in this mount namespace alone; finds out what volumes can be made of.
///
/// The root of a managed plugin is shared with the host, and so a mount made anywhere in it would appear there. The
/// mount that holds `private` is therefore taken out of its peer group first. `shared` stays in its own: it is on
/// another mount, and this is not done recursively.
fn make_private(private: &Path, shared: &Path) -> io::Result<Memory> {
    let mounts = || mountinfo::read().map_err(at("read the list of", Path::new("mounts")));
    // A process before this one may have run in this very mount namespace; nothing of it is needed.
    if mounts()?.iter().any(|mount| mount.point == private && mount.source == SOURCE) {
        unmount_all(private)?;
    }
    let holder = mountinfo::id_of(private).map_err(at("find the mount that holds", private))?;
    let reaches_host = mountinfo::id_of(shared).map_err(at("find the mount that holds", shared))?;
    if let Some(mount) = mounts()?.into_iter().find(|mount| mount.id == holder && mount.peers.is_some()) {
        if holder == reaches_host {
            let text = format!(
                "`{}` and `{}` are on one mount: give one of them its own",
                private.display(),
                shared.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        mount::mount_change(&mount.point, MountPropagationFlags::PRIVATE).map_err(at("make private", &mount.point))?;
    }
    let memory = mount_private(private)?;
    mount::mount_change(private, MountPropagationFlags::PRIVATE).map_err(at("make private", private))?;
    Ok(memory)
}

/// The first tmpfs shows whether the kernel knows `noswap` (6.4 and later).
fn mount_private(private: &Path) -> io::Result<Memory> {
    let (noswap, plain) = (options("noswap,mode=0700,size=64k")?, options("mode=0700,size=64k")?);
    let (memory, mounted) = match mount::mount(SOURCE, private, "tmpfs", FLAGS, noswap.as_c_str()) {
        Err(Errno::INVAL) => (Memory::Ramfs, mount::mount(SOURCE, private, "tmpfs", FLAGS, plain.as_c_str())),
        mounted => (Memory::Tmpfs, mounted),
    };
    mounted.map_err(at("mount a tmpfs at", private))?;
    Ok(memory)
}

/// A volume's name is one segment of a path here, whatever else it may be.
fn check(volume: &str) -> io::Result<()> {
    if matches!(volume, "" | "." | "..") || volume.contains(['/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{volume}` cannot be a volume's name")));
    }
    Ok(())
}

fn options(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(io::Error::from)
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        failed => failed.map_err(at("make the directory", path)),
    }
}

/// An empty directory at a private place; a mount that an earlier failure left there is taken away.
fn make_mountpoint(path: &Path) -> io::Result<()> {
    match fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => unmount_all(path),
        made => made.map_err(at("make the directory", path)),
    }
}

/// Takes away all mounts at `path`, and the directory.
fn remove(path: &Path) -> io::Result<()> {
    unmount_all(path)?;
    remove_empty(path)
}

fn unmount_all(path: &Path) -> io::Result<()> {
    loop {
        match mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not a mountpoint any more, or not there.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            failed => return failed.map_err(at("unmount", path)),
        }
    }
}

fn remove_empty(path: &Path) -> io::Result<()> {
    match fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        failed => failed.map_err(at("remove the directory", path)),
    }
}

fn undo_on_error<T>(result: io::Result<T>, undo: impl FnOnce() -> io::Result<()>) -> io::Result<T> {
    if result.is_err()
        && let Err(error) = undo()
    {
        tracing::error!(%error, "a mount that could not be finished is left behind");
    }
    result
}

/// An error that says at which step and where it came.
fn at<E: Into<io::Error>>(step: impl Display, path: &Path) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{step} `{}`: {error}", path.display()))
    }
}
