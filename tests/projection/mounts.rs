use crate::world::*;
use dso::projection::{Mounter, Tmpfs, mountinfo};
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{self, MountPropagationFlags},
};
use std::{fs, io, path::PathBuf, sync::Arc};

fn has(options: &[String], wanted: &[&str]) -> bool {
    wanted.iter().all(|option| options.iter().any(|found| found == option))
}

#[test]
fn the_private_mount_is_writable_and_unswappable_and_the_shared_one_read_only() {
    in_world(|world| {
        let tmpfs = world.tmpfs();
        let projection = create(tmpfs.clone(), &set([("a", "1")])).unwrap();
        let flags = ["nosuid", "nodev", "noexec"];

        let private = mount_at(&world.private().join("rw/v"));
        assert!(has(&private.options, &flags) && has(&private.options, &["rw"]), "{private:?}");
        assert_eq!((private.fstype.as_str(), private.peers), ("tmpfs", None));
        assert!(has(&private.super_options, &["noswap", "size=1024k", "mode=755"]), "{private:?}");

        for point in [tmpfs.mountpoint("v"), world.on_host("v")] {
            let shared = mount_at(&point);
            assert!(has(&shared.options, &flags) && has(&shared.options, &["ro"]), "{shared:?}");
            assert!(has(&shared.super_options, &["rw", "noswap"]), "{shared:?}");
        }
        assert_eq!(tmpfs.shared().unwrap(), ["v"]);
        assert_eq!(read(&world.on_host("v"), "a"), "1");

        projection.destroy().unwrap();
        assert_eq!(tmpfs.shared().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn the_host_sees_volumes_and_nothing_of_the_private_place() {
    in_world(|world| {
        let tmpfs = world.tmpfs();
        let _projection = create(tmpfs, &set([("a", "1")])).unwrap();
        let host = world.base.join("host");
        let mounts = mountinfo::read().unwrap();
        let on_host: Vec<_> = mounts.iter().filter(|mount| mount.point.starts_with(&host)).map(|m| &m.point).collect();
        assert_eq!(on_host, [&host, &host.join("data"), &world.on_host("v")]);
        assert_eq!(names(&host.join("run/dso")), Vec::<String>::new());
        // Whatever is mounted in the plugin's own `data` still reaches the host.
        assert!(mount_at(&world.base.join("plugin/data")).peers.is_some());
    });
}

#[test]
fn a_private_place_on_the_mount_that_the_host_shares_is_refused() {
    in_world(|world| {
        let shared = world.shared();
        let error = Tmpfs::new(shared.join("../private"), &shared).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(mount_at(&world.base.join("plugin/data")).peers.is_some());
    });
}

#[test]
fn a_container_that_mounts_it_rw_as_root_can_alter_nothing() {
    in_world(|world| {
        let _projection = create(world.tmpfs(), &set([("a", "1"), ("d/b", "2")])).unwrap();
        let inside = world.container("v");
        let open = |path: &str, flags: OFlags| {
            rustix::fs::openat(CWD, inside.join(path), flags, Mode::from_raw_mode(0o644)).map(drop)
        };
        let mode = Mode::from_raw_mode(0o777);
        assert_eq!(open("a", OFlags::WRONLY), Err(Errno::ROFS));
        assert_eq!(open("..data/a", OFlags::WRONLY | OFlags::TRUNC), Err(Errno::ROFS));
        assert_eq!(open("new", OFlags::WRONLY | OFlags::CREATE), Err(Errno::ROFS));
        assert_eq!(rustix::fs::rename(inside.join("a"), inside.join("b")), Err(Errno::ROFS));
        assert_eq!(rustix::fs::unlink(inside.join("a")), Err(Errno::ROFS));
        assert_eq!(rustix::fs::chmod(inside.join("a"), mode), Err(Errno::ROFS));
        assert_eq!(rustix::fs::mkdir(inside.join("x"), mode), Err(Errno::ROFS));
        assert_eq!(rustix::fs::symlink("x", inside.join("y")), Err(Errno::ROFS));
        assert_eq!(read(&inside, "d/b"), "2");
    });
}

#[test]
fn destroying_twice_is_the_same_as_once_and_takes_the_directories_too() {
    in_world(|world| {
        let tmpfs = world.tmpfs();
        let projection = create(tmpfs.clone(), &set([("a", "1")])).unwrap();
        let inside = world.container("v");
        for _ in 0..2 {
            projection.destroy().unwrap();
            assert_eq!(world.volume_mounts(), [inside.as_path()]);
            assert_eq!(names(&world.shared()), Vec::<String>::new());
            assert_eq!(names(&world.private().join("rw")), Vec::<String>::new());
            assert_eq!(names(&world.private().join("ro")), Vec::<String>::new());
        }
        // What a container holds is its own.
        assert_eq!(read(&inside, "a"), "1");
        tmpfs.destroy("never-there").unwrap();
        create(tmpfs, &set([("a", "2")])).unwrap();
        assert_eq!(read(&world.on_host("v"), "a"), "2");
    });
}

#[test]
fn a_name_that_leaves_its_place_is_no_volume() {
    in_world(|world| {
        let tmpfs = world.tmpfs();
        for name in ["", ".", "..", "a/b", "/", "a\0"] {
            assert!(tmpfs.create(name, SIZE).is_err() && tmpfs.share(name).is_err(), "{name:?}");
            assert!(tmpfs.destroy(name).is_err() && tmpfs.adopt(name).is_err(), "{name:?}");
        }
    });
}

#[test]
fn a_mountpoint_in_use_is_refused_and_left_as_it_is() {
    in_world(|world| {
        let tmpfs = world.tmpfs();
        let _first = create(tmpfs.clone(), &set([("a", "1")])).unwrap();
        let before = mountinfo::read().unwrap();
        let error = create(tmpfs, &set([("a", "2")])).err().unwrap().to_string();
        assert!(error.starts_with("cannot mount the volume's tmpfs: something is mounted at `"), "{error}");
        assert_eq!(mountinfo::read().unwrap(), before);
        assert_eq!(read(&world.on_host("v"), "a"), "1");
    });
}

#[test]
fn a_second_process_in_the_same_namespace_takes_the_private_place_over() {
    in_world(|world| {
        let first = world.tmpfs();
        let _projection = create(first, &set([("a", "1")])).unwrap();
        let second = world.tmpfs();
        let private: Vec<_> = world.volume_mounts().into_iter().filter(|p| p.starts_with(world.private())).collect();
        assert_eq!(private, Vec::<PathBuf>::new());
        assert_eq!(second.shared().unwrap(), ["v"]);
    });
}

#[test]
fn without_noswap_a_volume_is_a_ramfs_and_all_else_is_the_same() {
    in_world(|world| {
        let ramfs = Arc::new(Tmpfs::on_ramfs(world.private(), world.shared()).unwrap());
        let mut projection = create(ramfs.clone(), &set([("a", "1")])).unwrap();
        let shared = mount_at(&world.on_host("v"));
        assert_eq!(shared.fstype, "ramfs");
        assert!(has(&shared.options, &["ro", "nosuid", "nodev", "noexec"]), "{shared:?}");
        assert_eq!(rustix::fs::chmod(world.container("v").join("a"), Mode::RWXU), Err(Errno::ROFS));

        let half = "x".repeat(SIZE as usize * 3 / 4);
        for contents in [half.as_str(), "y", half.as_str()] {
            projection.replace(&set([("a", contents)]), versions("2")).unwrap();
            assert_eq!(read(&world.on_host("v"), "a"), contents);
        }
        let error = projection.replace(&set([("a", &*"x".repeat(SIZE as usize))]), versions("3")).unwrap_err();
        assert!(error.to_string().contains("option `size` allows 1 MiB"), "{error}");
        assert_eq!(read(&world.on_host("v"), "a"), half);
        projection.destroy().unwrap();
        assert_eq!(ramfs.shared().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_private_mount_does_not_reach_a_bind_of_the_plugins_root() {
    in_world(|world| {
        // As an engine does that binds the plugin's root once more, shared, after the plugin has started.
        let tmpfs = world.tmpfs();
        let other = world.base.join("other");
        fs::create_dir(&other).unwrap();
        mount::mount_bind(world.base.join("host"), &other).unwrap();
        mount::mount_change(&other, MountPropagationFlags::SHARED).unwrap();
        let _projection = create(tmpfs, &set([("a", "1")])).unwrap();
        assert_eq!(names(&other.join("run/dso")), Vec::<String>::new());
    });
}
