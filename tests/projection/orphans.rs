//! Volumes that a process in a mount namespace of its own still has, while here they are unmounted.

use crate::world::*;
use dso::projection::{Change, Mounter, Projection, Tmpfs, mountinfo};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

/// A process with mounts of its own.
struct Holder {
    process: Child,
    /// Where it has the volume.
    place: PathBuf,
}

impl Holder {
    /// Has `from` of the host, and nothing else of the world, at places of its own.
    fn of(world: &World, from: &Path, places: usize) -> Self {
        let places: Vec<_> = (0..places).map(|number| unique(world, &format!("holder{number}"))).collect();
        let binds: String =
            places.iter().map(|place| format!("mount --bind {} {} && ", from.display(), place.display())).collect();
        let base = world.base.display();
        let rest = format!("umount -l {base}/plugin && umount -l {base}/host && echo ready && exec sleep 1000");
        Self::run(&["--propagation", "private"], &(binds + &rest), &places[0])
    }

    /// Has mounts made by a script, in a user namespace of its own.
    fn pretender(place: &Path, script: &str) -> Self {
        Self::run(&["--user", "--map-root-user"], &format!("{script} && echo ready && exec sleep 1000"), place)
    }

    fn run(words: &[&str], script: &str, place: &Path) -> Self {
        let mut command = Command::new("unshare");
        command.arg("--mount").args(words).args(["sh", "-c", script]).stdout(Stdio::piped());
        // Not one of the terminal's: the test may be interrupted.
        let mut process = command.process_group(0).spawn().unwrap();
        let mut said = [0; 6];
        std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(&said, b"ready\n");
        Self { process, place: place.into() }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    fn path(&self, file: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process.id()));
        root.join(self.place.strip_prefix("/").unwrap()).join(file)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn unique(world: &World, name: &str) -> PathBuf {
    let place = (0..).map(|number| world.base.join(format!("{name}-{number}"))).find(|path| !path.exists()).unwrap();
    fs::create_dir(&place).unwrap();
    place
}

/// What `docker plugin disable -f` does to the volume, and then the next process.
fn disable_and_enable(world: &World) -> Arc<Tmpfs> {
    rustix::mount::unmount(world.on_host("v"), rustix::mount::UnmountFlags::DETACH).unwrap();
    world.restart_plugin()
}

#[test]
fn what_a_process_still_has_is_taken_back_writable_here_and_read_only_for_everybody_else() {
    for ramfs in [false, true] {
        in_world(|world| {
            let tmpfs =
                if ramfs { Arc::new(Tmpfs::on_ramfs(world.private(), world.shared()).unwrap()) } else { world.tmpfs() };
            create(tmpfs, &set([("a", "1")])).unwrap();
            let holder = Holder::of(world, &world.on_host("v"), 2);
            let tmpfs = disable_and_enable(world);
            assert!(tmpfs.shared().unwrap().is_empty());

            let orphans = tmpfs.orphans().unwrap();
            let told: Vec<_> = orphans.iter().map(|found| (found.volume.as_str(), found.generation)).collect();
            assert_eq!(told, [("v", 1)], "two places of one process are one orphan");
            assert_eq!(orphans[0].processes, [holder.process.id()]);
            tmpfs.take_back(&orphans[0]).unwrap();
            assert!(orphans[0].is_at(&tmpfs.mountpoint("v")));
            assert!(tmpfs.orphans().unwrap().is_empty(), "what is seen here is no orphan");

            let mut adopted = Projection::adopt(tmpfs.clone(), "v", SIZE).unwrap();
            assert_eq!(adopted.replace(&set([("a", "2")]), versions("2")).unwrap(), Change::Rotated);
            assert_eq!((holder.read("a"), read(&world.on_host("v"), "a")), ("2".into(), "2".into()));
            let inside = world.container("v");
            assert_eq!(read(&inside, "a"), "2");
            for place in [&world.on_host("v"), &inside] {
                assert_eq!(mount_at(place).options[0], "ro");
            }
            let private = mount_at(&world.private().join("rw/v"));
            assert_eq!((private.options[0].as_str(), private.peers), ("rw", None));
            assert!(fs::write(holder.path("x"), "x").is_err(), "the holder's own mount is as it was");
            adopted.destroy().unwrap();
            assert_eq!(world.volume_mounts(), [inside]);
        });
    }
}

#[test]
fn the_newest_of_several_comes_first_and_stays_although_its_process_ends() {
    in_world(|world| {
        create(world.tmpfs(), &set([("a", "old")])).unwrap();
        let old = Holder::of(world, &world.on_host("v"), 1);
        let tmpfs = disable_and_enable(world);
        let files = set([("a", "new")]);
        Projection::create(tmpfs, "v", SIZE, 2, &files, versions("2")).unwrap();
        let new = Holder::of(world, &world.on_host("v"), 1);
        let also = Holder::of(world, &world.on_host("v"), 1);
        let tmpfs = disable_and_enable(world);

        let orphans = tmpfs.orphans().unwrap();
        let mut holders = [new.process.id(), also.process.id()];
        holders.sort();
        let told: Vec<_> = orphans.iter().map(|found| (found.generation, found.processes.clone())).collect();
        assert_eq!(told, [(2, holders.into()), (1, vec![old.process.id()])]);
        drop((new, also));
        tmpfs.take_back(&orphans[0]).unwrap();
        assert_eq!(read(&world.on_host("v"), "a"), "new");

        // The other one cannot have the place too, and nothing of it stays mounted.
        let before = mountinfo::read().unwrap();
        let error = tmpfs.take_back(&orphans[1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy, "{error}");
        assert_eq!(mountinfo::read().unwrap(), before);
        assert_eq!(old.read("a"), "old");
    });
}

#[test]
fn what_another_plugin_has_made_is_not_found() {
    in_world(|world| {
        create(world.tmpfs(), &set([("a", "1")])).unwrap();
        let _holder = Holder::of(world, &world.on_host("v"), 1);
        let tmpfs = disable_and_enable(world);
        let (private, shared) = (unique(world, "private"), unique(world, "shared"));
        let other = Tmpfs::new(private, shared).unwrap();
        assert_ne!(other.owner(), tmpfs.owner());
        assert!(other.orphans().unwrap().is_empty());
        assert_eq!(tmpfs.orphans().unwrap().len(), 1);
    });
}

/// Monitoring often mounts the host's `/`, and keeps what was mounted below it when it started.
#[test]
fn who_has_a_volume_only_with_the_hosts_files_is_not_named() {
    in_world(|world| {
        create(world.tmpfs(), &set([("a", "1")])).unwrap();
        let place = unique(world, "rootfs");
        let (base, at) = (world.base.display(), place.display());
        let script =
            format!("mount --rbind {base}/host {at} && umount -l {base}/plugin && echo ready && exec sleep 1000");
        let monitoring = Holder::run(&["--propagation", "private"], &script, &place);
        let tmpfs = disable_and_enable(world);
        assert_eq!(fs::read_to_string(monitoring.path("data/volumes/v/a")).unwrap(), "1");
        let orphans = tmpfs.orphans().unwrap();
        assert_eq!(orphans.iter().map(|orphan| orphan.processes.len()).collect::<Vec<_>>(), [0]);
    });
}

#[test]
fn a_part_of_a_volume_is_not_taken_for_the_whole() {
    in_world(|world| {
        create(world.tmpfs(), &set([("d/a", "1")])).unwrap();
        let _holder = Holder::of(world, &world.on_host("v").join("..1/d"), 1);
        assert!(disable_and_enable(world).orphans().unwrap().is_empty());
    });
}

/// As an engine's `userns-remap` makes it: the kernel locks the read-only flag of such a mount, and of every copy.
#[test]
fn what_a_container_in_a_user_namespace_has_is_left_to_it() {
    in_world(|world| {
        create(world.tmpfs(), &set([("a", "1")])).unwrap();
        let place = unique(world, "remapped");
        let bind = format!("mount --bind {} {}", world.on_host("v").display(), place.display());
        let holder = Holder::pretender(&place, &bind);
        assert_eq!(holder.read("a"), "1");
        assert!(disable_and_enable(world).orphans().unwrap().is_empty());
        assert_eq!(holder.read("a"), "1");
    });
}

/// Whoever may make a user namespace may mount a tmpfs in it, call it `dso`, and copy a marker that it was given to read.
#[test]
fn a_tmpfs_that_pretends_to_be_a_volume_is_not_believed() {
    in_world(|world| {
        create(world.tmpfs(), &set([("a", "1")])).unwrap();
        let marker = world.base.join("marker");
        fs::copy(world.on_host("v").join("..data/..dso"), &marker).unwrap();
        let tmpfs = disable_and_enable(world);
        let place = unique(world, "pretender");
        let at = place.display();
        let make = format!(
            "mkdir {at}/..1 && cp {} {at}/..1/..dso && chmod 400 {at}/..1/..dso && ln -s ..1 {at}/..data",
            marker.display()
        );
        let in_memory = format!("mount -t tmpfs dso {at} && {make}");
        let pretender = Holder::pretender(&place, &in_memory);
        assert!(pretender.path("..data/..dso").exists());
        assert!(tmpfs.orphans().unwrap().is_empty());
        drop(pretender);

        // The same by root of the host is a volume, unless its marker may be read by others.
        let by_root = |script: &str| {
            Holder::run(&["--propagation", "private"], &format!("{script} && echo ready && exec sleep 1000"), &place)
        };
        let open = by_root(&format!("{in_memory} && chmod 444 {at}/..1/..dso"));
        assert!(tmpfs.orphans().unwrap().is_empty());
        drop(open);
        let _real = by_root(&in_memory);
        assert_eq!(tmpfs.orphans().unwrap().len(), 1, "or the test shows nothing");
    });
}
