//! Memory of volumes that running containers still have, and this process does not see: after `docker plugin disable -f`,
//! and so after an upgrade, the engine has unmounted it on the host.
//!
//! # Guarantees
//! - Nothing is altered by looking: a found mount is a copy that is at no place, and gone when it is dropped.
//! - Only what this owner made is found. The marker says whose it is, and it is believed only from a process of this user
//!   namespace: a tmpfs there is mounted by root of the host, or by nobody.
//!
//! # Caveats
//! - A container that has a part of a volume alone (`volume-subpath`) has no way to the whole.
//! - Looking up a mountpoint in another process's view may wait for file systems there, also for ever: call it where
//!   that keeps nobody waiting.

use super::{marker::Marker, mountinfo, root::Root, tmpfs::SOURCE};
use rustix::{
    fs::{self, CWD, Mode, OFlags},
    io::Errno,
    mount::{self, MoveMountFlags, OpenTreeFlags},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::SystemTime,
};

/// A volume's memory that other processes have.
#[derive(Debug)]
pub struct Orphan {
    pub volume: String,
    /// What it serves.
    pub generation: u64,
    pub rotated: SystemTime,
    /// One process of each mount namespace that has it; without those that have it only because they have the host's files,
    /// as monitoring does that mounts the host's `/`.
    pub processes: Vec<u32>,
    /// A mount of it at no place, which keeps it whatever becomes of the processes.
    pub tree: OwnedFd,
}

type Device = (u32, u32);

/// Where a file system is seen: by which process, and at which of its places.
type Sight = (u32, PathBuf);

// === impl Orphan ===

impl Orphan {
    /// Whether this is what is mounted at `point`.
    pub fn is_at(&self, point: &Path) -> bool {
        let id = |stat: fs::Stat| (stat.st_dev, stat.st_ino);
        let (own, there) = (fs::fstat(&self.tree).map(id), fs::stat(point).map(id));
        own.is_ok() && own == there
    }

    /// Mounts it at `point`. To be done once.
    pub(super) fn attach(&self, point: &Path) -> rustix::io::Result<()> {
        mount::move_mount(&self.tree, "", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }
}

/// The orphans of `owner`, whose volumes are shared at `shared`; newest first.
pub(super) fn find(owner: &str, shared: &Path) -> io::Result<Vec<Orphan>> {
    let here = mountinfo::read()?;
    let on_host = on_host(shared, &here)?;
    let seen_here = here.into_iter().map(|mount| mount.device).collect();
    let sights = look_around(&seen_here)?;
    if sights.is_empty() {
        return Ok(Vec::new());
    }
    // A thread of its own, which ends in the last namespace that it has entered.
    let enter = {
        let sights = sights.clone();
        thread::Builder::new().name("orphans".into()).spawn(move || open_all(sights))?
    };
    let trees = enter.join().map_err(|_| io::Error::other("looking for orphans panicked"))??;
    let mut orphans: Vec<_> = trees
        .into_iter()
        .filter_map(|(device, tree)| {
            let marker = recognise(&tree, owner);
            let sights = sights.get(&device)?;
            let marker = marker.inspect_err(|fault| tracing::debug!(?sights, fault, "not an orphan")).ok()?;
            let Marker { volume, generation, rotated, .. } = marker;
            let mirror = on_host.join(&volume);
            let own = sights.iter().filter(|(_, point)| !point.ends_with(&mirror)).map(|(pid, _)| *pid);
            let processes = BTreeSet::from_iter(own).into_iter().collect();
            Some(Orphan { volume, generation, rotated, processes, tree })
        })
        .collect();
    orphans.sort_by_key(|orphan| std::cmp::Reverse((orphan.generation, orphan.rotated)));
    Ok(orphans)
}

/// How the path of `shared` ends on the host, and wherever the host's files are mounted.
fn on_host(shared: &Path, here: &[mountinfo::Mount]) -> io::Result<PathBuf> {
    let id = mountinfo::id_of(shared)?;
    let holder = here.iter().find(|mount| mount.id == id).ok_or(io::ErrorKind::NotFound)?;
    let below = shared.strip_prefix(&holder.point).map_err(io::Error::other)?;
    Ok(holder.root.strip_prefix("/").unwrap_or(&holder.root).join(below))
}

/// Whole file systems that may be volumes, as other mount namespaces have them; each namespace is looked at once.
fn look_around(seen_here: &BTreeSet<Device>) -> io::Result<BTreeMap<Device, Vec<Sight>>> {
    let namespace = |process: &str, kind: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}"));
    let users = namespace("thread-self", "user")?;
    let mut seen = BTreeSet::from([namespace("thread-self", "mnt")?]);
    let mut sights = BTreeMap::<Device, Vec<Sight>>::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(process) = entry?.file_name().to_str().filter(|name| name.parse::<u32>().is_ok()).map(String::from)
        else {
            continue;
        };
        let look = || -> io::Result<Option<(PathBuf, Vec<mountinfo::Mount>)>> {
            let mounts = namespace(&process, "mnt")?;
            // A process with a root of its own calls the places by other names.
            let is_whole =
                || Ok::<_, io::Error>(std::fs::read_link(format!("/proc/{process}/root"))? == Path::new("/"));
            if seen.contains(&mounts) || namespace(&process, "user")? != users || !is_whole()? {
                return Ok(None);
            }
            let pid = process.parse().map_err(io::Error::other)?;
            Ok(Some((mounts, mountinfo::of_process(pid)?)))
        };
        // A process may end while it is looked at; another one of its namespace is as good.
        let Ok(Some((namespace, mounts))) = look() else { continue };
        seen.insert(namespace);
        let Ok(pid) = process.parse() else { continue };
        for mount in mounts.into_iter().filter(|mount| may_be_volume(mount) && !seen_here.contains(&mount.device)) {
            sights.entry(mount.device).or_default().push((pid, mount.point));
        }
    }
    Ok(sights)
}

fn may_be_volume(mount: &mountinfo::Mount) -> bool {
    mount.source == SOURCE && matches!(mount.fstype.as_str(), "tmpfs" | "ramfs") && mount.root == Path::new("/")
}

/// Opens each file system where one of its sights still holds. Leaves the calling thread in another mount namespace.
fn open_all(sights: BTreeMap<Device, Vec<Sight>>) -> io::Result<Vec<(Device, OwnedFd)>> {
    // Of this namespace, whatever is entered later.
    let proc = fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    #[expect(unsafe_code, reason = "sharing less with other threads touches no memory")]
    // SAFETY: file descriptors stay shared; the working directory and the root become this thread's own.
    unsafe { unshare_unsafe(UnshareFlags::FS) }?;
    let mut trees = Vec::new();
    for (device, sights) in sights {
        for (pid, point) in sights {
            match open(&proc, pid, &point, device) {
                Ok(tree) => {
                    trees.push((device, tree));
                    break;
                }
                Err(Errno::NOSYS) => return Err(io::Error::new(io::ErrorKind::Unsupported, TOO_OLD)),
                Err(error) => {
                    tracing::debug!(pid, point = %point.display(), %error, "cannot open what may be an orphan")
                }
            }
        }
    }
    Ok(trees)
}

const TOO_OLD: &str = "the kernel is older than 5.2 and cannot copy a mount from one mount namespace to another";

/// A copy of the mount at `point` as the process `pid` sees it. By now both may be something else, or be behind another mount.
fn open(proc: &OwnedFd, pid: u32, point: &Path, device: Device) -> rustix::io::Result<OwnedFd> {
    let namespace = fs::openat(proc, format!("{pid}/ns/mnt"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree = mount::open_tree(CWD, point, flags)?;
    let found = fs::fstat(&tree)?.st_dev;
    if (fs::major(found), fs::minor(found)) == device { Ok(tree) } else { Err(Errno::STALE) }
}

/// The marker of what is served, if all that can be told of it says that `owner` made it.
fn recognise(tree: &OwnedFd, owner: &str) -> Result<Marker, String> {
    let io = |error: io::Error| error.to_string();
    let root = Root::of(tree).map_err(io)?;
    if !root.is_memory().map_err(io)? {
        return Err("it is not memory".into());
    }
    let live = root.live().map_err(io)?;
    let marker = root.generation(live).map_err(io)?.foreign_marker()?;
    if owner.is_empty() || marker.owner != owner {
        return Err("it belongs to another plugin".into());
    }
    if marker.generation != live {
        return Err("its marker is of another generation".into());
    }
    Ok(marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, fstype: &str, source: &str) -> mountinfo::Mount {
        mountinfo::Mount {
            id: 1,
            device: (0, 1),
            root: root.into(),
            point: "/s".into(),
            options: Vec::new(),
            peers: None,
            fstype: fstype.into(),
            source: source.into(),
            super_options: Vec::new(),
        }
    }

    #[test]
    fn only_whole_memory_that_is_called_dso_may_be_a_volume() {
        assert!(may_be_volume(&mount("/", "tmpfs", "dso")) && may_be_volume(&mount("/", "ramfs", "dso")));
        for other in [mount("/..1/tls", "tmpfs", "dso"), mount("/", "ext4", "dso"), mount("/", "tmpfs", "tmpfs")] {
            assert!(!may_be_volume(&other), "{other:?}");
        }
    }
}
