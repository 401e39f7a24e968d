//! Telling of changes to the store's files as they happen.
//!
//! rustix and tokio's `AsyncFd` rather than the crate `inotify`: both are here anyway, and the stream that
//! the crate offers would need a third.

use super::place::Place;
use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    mem::MaybeUninit,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// How long to wait where the kernel gives no watch. Until then the version checks see every change.
const RETRY: Duration = Duration::from_secs(60);

/// A file's content or whereabouts changed, or who may read it; or a folder on the way to it came or went.
const EVENTS: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Calls `changed` after every change; never returns.
pub async fn watch(place: &Place, changed: impl Fn()) {
    let mut first = true;
    loop {
        match Watch::arm(place) {
            Ok(watch) => {
                // What happened while nothing was watched is told of by this.
                if !first {
                    changed();
                }
                first = false;
                match watch.until_moved(&changed).await {
                    Ok(()) => continue,
                    Err(error) => tracing::warn!(%error, "the watch on the local store broke off"),
                }
            }
            Err(error) => tracing::warn!(
                %error,
                "cannot watch the local store; its changes are seen at the next version check (see fs.inotify limits)"
            ),
        }
        first = false;
        tokio::time::sleep(RETRY).await;
    }
}

/// Watches on every folder from the root to the files, as far as there are.
struct Watch {
    inotify: AsyncFd<OwnedFd>,
    /// By watch: the name that leads on to the files, or of a file itself.
    folders: HashMap<i32, Vec<Step>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Folder(OsString),
    File(OsString),
}

/// What some events came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    changed: bool,
    moved: bool,
}

// === impl Watch ===

impl Watch {
    fn arm(place: &Place) -> io::Result<Self> {
        let files = place.files().map_err(io::Error::other)?;
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut folders: HashMap<i32, Vec<Step>> = HashMap::new();
        for path in [&files.store.path, &files.identity.path] {
            // From the root on: a folder that is made after it was looked for shows at its parent's watch.
            for (folder, step) in steps(path) {
                match inotify::add_watch(&inotify, &folder, EVENTS) {
                    Ok(id) => {
                        let known = folders.entry(id).or_default();
                        if !known.contains(&step) {
                            known.push(step);
                        }
                    }
                    Err(Errno::NOENT | Errno::NOTDIR) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        #[expect(unsafe_code, reason = "tokio has no safe way left to watch a descriptor")]
        // SAFETY: an `OwnedFd` stays open and the same descriptor until it is dropped, which is with the `AsyncFd`.
        let inotify = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?;
        Ok(Self { inotify, folders })
    }

    /// Tells of changes until a folder came or went, or events were lost, so that the watches must be set anew.
    async fn until_moved(&self, changed: &impl Fn()) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let seen = match ready.try_io(|inotify| self.drain(inotify.get_ref())) {
                Ok(seen) => seen?,
                Err(_would_block) => continue,
            };
            if seen.moved {
                return Ok(());
            }
            if seen.changed {
                changed();
            }
        }
    }

    /// Reads what there is; fails with `WouldBlock` where there is nothing.
    fn drain(&self, inotify: &OwnedFd) -> io::Result<Seen> {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = Reader::new(inotify, &mut buffer);
        let (mut seen, mut any) = (Seen::default(), false);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec()));
                    self.note(&mut seen, event.wd(), event.events(), name);
                    any = true;
                }
                Err(Errno::WOULDBLOCK) if any => return Ok(seen),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn note(&self, seen: &mut Seen, id: i32, events: ReadFlags, name: Option<OsString>) {
        // The folder itself went, or its file system, or the kernel dropped events.
        let lost = ReadFlags::QUEUE_OVERFLOW
            | ReadFlags::DELETE_SELF
            | ReadFlags::MOVE_SELF
            | ReadFlags::UNMOUNT
            | ReadFlags::IGNORED;
        seen.moved |= events.intersects(lost);
        let (Some(steps), Some(name)) = (self.folders.get(&id), name) else { return };
        let came_or_went = ReadFlags::CREATE | ReadFlags::MOVED_TO | ReadFlags::MOVED_FROM | ReadFlags::DELETE;
        for step in steps {
            match step {
                Step::Folder(wanted) => seen.moved |= *wanted == name && events.intersects(came_or_went),
                // A file that was only made is told of too: a hard link to it is whole at once.
                Step::File(wanted) => seen.changed |= *wanted == name,
            }
        }
    }
}

/// Every folder on the way to `path` with the name that leads on from it.
fn steps(path: &Path) -> Vec<(PathBuf, Step)> {
    let mut steps = Vec::new();
    let mut ancestors: Vec<_> = path.ancestors().collect();
    ancestors.reverse();
    for pair in ancestors.windows(2) {
        let Some(name) = pair[1].file_name() else { continue };
        let name = name.to_os_string();
        let step = if pair[1] == path { Step::File(name) } else { Step::Folder(name) };
        steps.push((pair[0].to_path_buf(), step));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostFiles;

    #[tokio::test]
    async fn lost_events_and_a_folder_that_goes_set_the_watches_anew() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::read("local", toml::Table::new(), &HostFiles::on_host(dir.path())).unwrap();
        let watch = Watch::arm(&place).unwrap();
        for events in [ReadFlags::QUEUE_OVERFLOW, ReadFlags::MOVE_SELF, ReadFlags::DELETE_SELF, ReadFlags::UNMOUNT] {
            let mut seen = Seen::default();
            watch.note(&mut seen, -1, events, None);
            assert!(seen.moved, "{events:?}");
        }
    }

    #[test]
    fn the_way_to_a_file_is_every_folder_from_the_root() {
        let step = |folder: &str, step| (PathBuf::from(folder), step);
        assert_eq!(
            steps(Path::new("/etc/dso/x")),
            [
                step("/", Step::Folder("etc".into())),
                step("/etc", Step::Folder("dso".into())),
                step("/etc/dso", Step::File("x".into())),
            ]
        );
    }
}
