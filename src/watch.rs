//! Telling of changes to files as they happen, wherever symbolic links lead and whether the folders are there yet or not.
//! Stands beneath everything, and imports nothing.
//!
//! rustix and tokio's `AsyncFd` rather than the crate `inotify`: both are here anyway, and the stream that
//! the crate offers would need a third.

use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    fs, io,
    mem::MaybeUninit,
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// How long to wait where the kernel gives no watch. Then it is taken for a change: whoever is told compares anyway.
const RETRY: Duration = Duration::from_secs(60);
/// As many links as the kernel itself follows on one way.
const MOST_LINKS: usize = 40;

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

/// Calls `changed` after every change of the files that `files` finds, which is asked anew whenever a folder on the way to
/// one came or went; never returns. `what` is for the log.
pub async fn watch(what: &str, files: impl Fn() -> io::Result<Vec<PathBuf>>, changed: impl Fn()) {
    let mut first = true;
    loop {
        match files().and_then(|files| Watch::arm(&files)) {
            Ok(watch) => {
                // What happened while nothing was watched is told of by this.
                if !first {
                    changed();
                }
                first = false;
                match watch.until_moved(&changed).await {
                    Ok(()) => continue,
                    Err(error) => tracing::warn!(what, %error, "the watch broke off"),
                }
            }
            Err(error) => tracing::warn!(
                what,
                %error,
                "cannot be watched: its changes are seen later (see fs.inotify limits)"
            ),
        }
        tokio::time::sleep(RETRY).await;
        changed();
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
    fn arm(files: &[PathBuf]) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut folders: HashMap<i32, Vec<Step>> = HashMap::new();
        for path in files {
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

/// Every folder on the way to `path` with the name that leads on from it, through symbolic links as the kernel follows
/// them. A link is a step like a folder: where it comes or goes, the way is another one.
fn steps(path: &Path) -> Vec<(PathBuf, Step)> {
    let (mut steps, mut links, mut folder) = (Vec::new(), 0, PathBuf::from("/"));
    let mut left: VecDeque<OsString> = names(path).collect();
    while let Some(name) = left.pop_front() {
        if name == ".." {
            folder.pop();
            continue;
        }
        let next = folder.join(&name);
        match fs::read_link(&next) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                steps.push((folder.clone(), Step::Folder(name)));
                if target.is_absolute() {
                    folder = PathBuf::from("/");
                }
                names(&target).rev().for_each(|name| left.push_front(name));
            }
            _ => {
                let step = if left.is_empty() { Step::File(name) } else { Step::Folder(name) };
                steps.push((std::mem::replace(&mut folder, next), step));
            }
        }
    }
    steps
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[tokio::test]
    async fn lost_events_and_a_folder_that_goes_set_the_watches_anew() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::arm(&[dir.path().join("x")]).unwrap();
        for events in [ReadFlags::QUEUE_OVERFLOW, ReadFlags::MOVE_SELF, ReadFlags::DELETE_SELF, ReadFlags::UNMOUNT] {
            let mut seen = Seen::default();
            watch.note(&mut seen, -1, events, None);
            assert!(seen.moved, "{events:?}");
        }
    }

    fn step(folder: impl AsRef<Path>, step: Step) -> (PathBuf, Step) {
        (folder.as_ref().to_path_buf(), step)
    }

    #[test]
    fn the_way_to_a_file_is_every_folder_from_the_root() {
        assert_eq!(
            steps(Path::new("/no-such/dso/x")),
            [
                step("/", Step::Folder("no-such".into())),
                step("/no-such", Step::Folder("dso".into())),
                step("/no-such/dso", Step::File("x".into())),
            ]
        );
    }

    #[test]
    fn the_way_leads_through_links_and_one_that_leads_to_itself_ends() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("..1")).unwrap();
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/x", at("x")).unwrap();
        let way = steps(&at("x"));
        assert_eq!(
            way[way.len() - 4..],
            [
                step(dir.path(), Step::Folder("x".into())),
                step(dir.path(), Step::Folder("..data".into())),
                step(dir.path(), Step::Folder("..1".into())),
                step(at("..1"), Step::File("x".into())),
            ]
        );
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        assert!(steps(&at("loop")).len() < 100);
    }

    #[tokio::test]
    async fn files_that_are_replaced_through_a_link_are_told_of_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (told, mut changes) = tokio::sync::mpsc::unbounded_channel();
        std::os::unix::fs::symlink("..data/x", at("x")).unwrap();
        let file = at("x");
        let watching = tokio::spawn(async move {
            watch(
                "x",
                || Ok(vec![file.clone()]),
                || {
                    let _ = told.send(());
                },
            )
            .await;
        });
        for n in 0..4 {
            let folder = format!("..{n}");
            fs::create_dir(at(&folder)).unwrap();
            fs::write(at(&folder).join("x"), format!("{n}")).unwrap();
            std::os::unix::fs::symlink(&folder, at("..new")).unwrap();
            fs::rename(at("..new"), at("..data")).unwrap();
            // The watch may not stand yet at the first one: then the next round tells.
            let waited = tokio::time::timeout(Duration::from_secs(if n == 0 { 1 } else { 20 }), changes.recv()).await;
            assert!(n == 0 || waited.is_ok(), "round {n}");
            while tokio::time::timeout(Duration::from_millis(100), changes.recv()).await.is_ok() {}
        }
        watching.abort();
    }
}
