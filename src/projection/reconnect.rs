//! Makes what the plugin shares reach the engine again.
//!
//! The engine binds the folder of a plugin on itself and shares the mount with the plugin. After a crash it may unmount
//! that of a plugin which runs: whatever is mounted there from then on stays with the plugin. The folder itself is where
//! it was, and so a copy of the plugin's mount, which is the peer of it, can be put there.
//!
//! # Guarantees
//! - Mounts nothing but at the very folder that the plugin has its mount of, and only if nothing is mounted there.

use super::mountinfo::{self, Mount};
use rustix::{
    fs::{self, CWD, Mode, OFlags},
    io::Errno,
    mount::{self, MoveMountFlags, OpenTreeFlags},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

/// Puts a copy of the mount that holds `shared` where the process `pid` has its folder.
pub(super) fn reconnect(shared: &Path, pid: u32) -> io::Result<()> {
    let id = mountinfo::id_of(shared)?;
    let own = mountinfo::read()?.into_iter().find(|mount| mount.id == id).ok_or(io::ErrorKind::NotFound)?;
    let theirs = mountinfo::of_process(pid)?;
    let places = places(&own, &theirs);
    if let Some(taken) = places.iter().find(|place| theirs.iter().any(|mount| mount.point == **place)) {
        let text = format!("`{}` is mounted there already", taken.display());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    let open = |path: &Path| fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let (folder, namespace) = (open(&own.point)?, fs::open(namespace_of(pid), OFlags::CLOEXEC, Mode::empty())?);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = mount::open_tree(CWD, &own.point, flags)?;
    // A thread of its own, which ends in the other namespace.
    let attach = thread::Builder::new().name("reconnect".into()).spawn(move || {
        #[expect(unsafe_code, reason = "sharing less with other threads touches no memory")]
        // SAFETY: file descriptors stay shared; the working directory and the root become this thread's own.
        unsafe { unshare_unsafe(UnshareFlags::FS) }?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        attach(&tree, &folder, &places)
    })?;
    Ok(attach.join().map_err(|_| io::Error::other("a panic"))??)
}

fn attach(tree: &OwnedFd, folder: &OwnedFd, places: &[PathBuf]) -> rustix::io::Result<()> {
    let id = |stat: fs::Stat| (stat.st_dev, stat.st_ino);
    let wanted = id(fs::fstat(folder)?);
    for place in places {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(found) = fs::open(place, flags, Mode::empty()) else { continue };
        if id(fs::fstat(&found)?) == wanted {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            return mount::move_mount(tree, "", &found, "", flags);
        }
    }
    Err(Errno::NOENT)
}

/// Where the folder of `own` may be found among the mounts `theirs`.
fn places(own: &Mount, theirs: &[Mount]) -> Vec<PathBuf> {
    let of_same = theirs.iter().filter(|mount| mount.device == own.device);
    of_same.filter_map(|mount| Some(join(&mount.point, own.root.strip_prefix(&mount.root).ok()?))).collect()
}

/// Without a slash at the end where there is nothing to add.
fn join(point: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { point.into() } else { point.join(rest) }
}

fn namespace_of(pid: u32) -> String {
    format!("/proc/{pid}/ns/mnt")
}
