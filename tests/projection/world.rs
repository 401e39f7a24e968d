//! A host and a plugin within one mount namespace of the test's own.

use dso::{
    projection::{File, FileSet, Mounter, Projection, ProjectionError, Tmpfs, Versions, mountinfo},
    secret::{SecretValue, SecretVersion},
};
use rustix::{
    fs::CWD,
    mount::{self, MountFlags, MountPropagationFlags as Propagation, UnmountFlags},
    thread::UnshareFlags,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

pub const SIZE: u64 = 1 << 20;

/// `<base>/host` is the host's view and `<base>/plugin` the plugin's, peers as the engine makes them: the plugin's root
/// is shared with the host, and `data` in it is a mount of its own that is shared too.
pub struct World {
    pub base: PathBuf,
}

impl World {
    pub fn private(&self) -> PathBuf {
        self.base.join("plugin/run/dso")
    }

    /// Where the plugin shares volumes.
    pub fn shared(&self) -> PathBuf {
        self.base.join("plugin/data/volumes")
    }

    /// Where the host finds `volume`.
    pub fn on_host(&self, volume: &str) -> PathBuf {
        self.base.join("host/data/volumes").join(volume)
    }

    /// A bind of the volume such as the engine makes for a container that mounts it `rw`.
    pub fn container(&self, volume: &str) -> PathBuf {
        let inside = self.base.join(format!("container-{volume}"));
        fs::create_dir(&inside).unwrap();
        mount::mount_bind(self.on_host(volume), &inside).unwrap();
        mount::mount_change(&inside, Propagation::PRIVATE).unwrap();
        inside
    }

    pub fn tmpfs(&self) -> Arc<Tmpfs> {
        Arc::new(Tmpfs::new(self.private(), self.shared()).unwrap())
    }

    /// The plugin's mount namespace goes away with its process, and the engine makes a new one. A namespace that ends
    /// takes nothing from its peers, so the plugin's mounts leave their peer groups before they are unmounted.
    pub fn restart_plugin(&self) -> Arc<Tmpfs> {
        let plugin = self.base.join("plugin");
        mount::mount_change(&plugin, Propagation::PRIVATE | Propagation::REC).unwrap();
        mount::unmount(&plugin, UnmountFlags::DETACH).unwrap();
        self.start_plugin();
        self.tmpfs()
    }

    /// Every mount in the world but those that make it.
    pub fn volume_mounts(&self) -> Vec<PathBuf> {
        let own = ["", "host", "host/data", "plugin", "plugin/data", "plugin/run/dso"].map(|path| self.base.join(path));
        let mounts = mountinfo::read().unwrap().into_iter().map(|mount| mount.point);
        mounts.filter(|point| point.starts_with(&self.base) && !own.contains(point)).collect()
    }

    fn start_plugin(&self) {
        mount::mount_bind_recursive(self.base.join("host"), self.base.join("plugin")).unwrap();
    }
}

/// Runs a test in a world of its own.
pub fn in_world(test: impl FnOnce(&World) + Send) {
    assert!(rustix::process::geteuid().is_root(), "the projection's tests mount file systems: run them as root");
    let run = || {
        #[expect(
            unsafe_code,
            reason = "rustix has no safe form: it would alter the mounts of other code of this thread"
        )]
        // SAFETY: descriptors stay shared; only the view of the mounts is this thread's and that of threads it starts.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
        mount::mount_change("/", Propagation::PRIVATE | Propagation::REC).unwrap();
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let world = World { base: dir.path().canonicalize().unwrap() };
        mount_tmpfs(&world.base);
        for path in ["host", "plugin"] {
            fs::create_dir(world.base.join(path)).unwrap();
        }
        let host = world.base.join("host");
        mount_tmpfs(&host);
        mount::mount_change(&host, Propagation::SHARED).unwrap();
        for path in ["run/dso", "data"] {
            fs::create_dir_all(host.join(path)).unwrap();
        }
        mount_tmpfs(&host.join("data"));
        world.start_plugin();
        test(&world);
        mount::unmount(&world.base, UnmountFlags::DETACH).unwrap();
    };
    let joined = std::thread::scope(|scope| scope.spawn(run).join());
    if let Err(panic) = joined {
        std::panic::resume_unwind(panic);
    }
}

pub fn mount_tmpfs(at: &Path) {
    mount::mount("test", at, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// The topmost mount at `point`.
pub fn mount_at(point: &Path) -> mountinfo::Mount {
    mountinfo::read().unwrap().into_iter().rfind(|mount| mount.point == point).unwrap_or_else(|| panic!("{point:?}"))
}

pub fn file(contents: impl Into<Vec<u8>>, mode: u32, owner: u32) -> File {
    File { contents: SecretValue::new(contents.into()), mode, uid: owner, gid: owner }
}

/// Files that are alike but for path and contents.
pub fn set<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> FileSet {
    let mut set = FileSet::new();
    for (path, contents) in files {
        set.insert(path, file(contents, 0o444, 0)).unwrap();
    }
    set
}

pub fn versions(label: &str) -> Versions {
    [("vault://secret/app".to_owned(), SecretVersion::new(label, ""))].into()
}

pub fn create(mounter: Arc<dyn Mounter>, set: &FileSet) -> Result<Projection, ProjectionError> {
    Projection::create(mounter, "v", SIZE, 1, set, versions("1"))
}

pub fn read(dir: &Path, path: &str) -> String {
    fs::read_to_string(dir.join(path)).unwrap()
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn link(dir: &Path, name: &str) -> String {
    let target = rustix::fs::readlinkat(CWD, dir.join(name), Vec::new()).unwrap();
    target.into_string().unwrap()
}
