//! Every call to the mounter fails once, in turn.

use crate::world::*;
use dso::projection::{Change, FileSet, Mounter, Projection, ProjectionError, Tmpfs};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Fails the `nth` call, and no other.
struct Failing {
    tmpfs: Arc<Tmpfs>,
    nth: AtomicUsize,
}

impl Failing {
    fn step<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.nth.fetch_sub(1, Ordering::Relaxed) {
            1 => Err(io::Error::other("failed on purpose")),
            _ => call(),
        }
    }
}

impl Mounter for Failing {
    fn create(&self, volume: &str, size: u64) -> io::Result<PathBuf> {
        self.step(|| self.tmpfs.create(volume, size))
    }
    fn share(&self, volume: &str) -> io::Result<()> {
        self.step(|| self.tmpfs.share(volume))
    }
    fn resize(&self, volume: &str, size: u64) -> io::Result<()> {
        self.step(|| self.tmpfs.resize(volume, size))
    }
    fn destroy(&self, volume: &str) -> io::Result<()> {
        self.step(|| self.tmpfs.destroy(volume))
    }
    fn shared(&self) -> io::Result<Vec<String>> {
        self.step(|| self.tmpfs.shared())
    }
    fn adopt(&self, volume: &str) -> io::Result<PathBuf> {
        self.step(|| self.tmpfs.adopt(volume))
    }
    fn mountpoint(&self, volume: &str) -> PathBuf {
        self.tmpfs.mountpoint(volume)
    }
}

/// Large enough that two do not fit side by side without a `resize`.
fn large(text: &str) -> FileSet {
    set([("a", &*text.repeat(SIZE as usize * 3 / 4)), ("b", text)])
}

#[test]
fn a_volume_that_cannot_be_made_leaves_nothing_whichever_call_fails() {
    in_world(|world| {
        let tmpfs = world.tmpfs();
        let mut failures = 0;
        for nth in 1.. {
            let failing = Arc::new(Failing { tmpfs: tmpfs.clone(), nth: nth.into() });
            match create(failing, &large("1")) {
                Err(error) => {
                    assert!(error.to_string().ends_with(": failed on purpose"), "{error}");
                    assert_eq!(world.volume_mounts(), Vec::<PathBuf>::new());
                    assert_eq!(names(&world.shared()), Vec::<String>::new());
                    failures += 1;
                }
                Ok(_) => break,
            }
        }
        assert_eq!(failures, 2, "create and share");
        assert_eq!(read(&world.on_host("v"), "b"), "1");
    });
}

#[test]
fn a_replacement_that_fails_leaves_what_is_served_and_works_when_repeated() {
    in_world(|world| {
        let failing = Arc::new(Failing { tmpfs: world.tmpfs(), nth: 0.into() });
        let mut projection = create(failing.clone(), &large("0")).unwrap();
        let mut failures = 0;
        for nth in 1..10 {
            failing.nth.store(nth, Ordering::Relaxed);
            let (before, mounts) = (read(&world.on_host("v"), "b"), world.volume_mounts());
            let next = nth.to_string();
            match projection.replace(&large(&next), versions(&next)) {
                Err(ProjectionError::Io { doing, .. }) => {
                    assert_eq!(doing, "grow the tmpfs for the new generation beside the old one");
                    assert_eq!(read(&world.on_host("v"), "b"), before);
                    assert!(projection.intact());
                    failures += 1;
                    assert_eq!(projection.replace(&large(&next), versions(&next)).unwrap(), Change::Rotated);
                }
                done => assert_eq!(done.unwrap(), Change::Rotated),
            }
            assert_eq!(world.volume_mounts(), mounts);
            assert_eq!(read(&world.on_host("v"), "b"), next);
        }
        assert_eq!(failures, 1, "resize");
    });
}

#[test]
fn taking_back_what_the_tmpfs_grew_by_may_fail() {
    in_world(|world| {
        let failing = Arc::new(Failing { tmpfs: world.tmpfs(), nth: 0.into() });
        let mut projection = create(failing.clone(), &large("1")).unwrap();
        projection.replace(&large("2"), versions("2")).unwrap();
        projection.replace(&set([("a", "3")]), versions("3")).unwrap();
        failing.nth.store(1, Ordering::Relaxed);
        assert_eq!(projection.replace(&set([("a", "4")]), versions("4")).unwrap(), Change::Rotated);
        assert_eq!(read(&world.on_host("v"), "a"), "4");
    });
}

#[test]
fn adopting_and_destroying_can_be_repeated_after_they_failed() {
    in_world(|world| {
        create(world.tmpfs(), &set([("a", "1")])).unwrap();
        let failing = Arc::new(Failing { tmpfs: world.restart_plugin(), nth: 1.into() });
        let shared = world.volume_mounts();
        assert!(Projection::adopt(failing.clone(), "v", SIZE).is_err());
        assert_eq!(world.volume_mounts(), shared);
        assert_eq!(read(&world.on_host("v"), "a"), "1");

        let projection = Projection::adopt(failing.clone(), "v", SIZE).unwrap();
        failing.nth.store(1, Ordering::Relaxed);
        assert!(projection.destroy().is_err());
        assert_eq!(read(&world.on_host("v"), "a"), "1");
        projection.destroy().unwrap();
        assert_eq!(world.volume_mounts(), Vec::<PathBuf>::new());
    });
}
