use crate::world::*;
use dso::projection::{Change, Mounter, Projection, ProjectionError, mountinfo};
use rustix::mount;
use std::fs;

#[test]
fn after_the_process_died_its_volume_is_taken_over_and_containers_see_the_next_rotation() {
    in_world(|world| {
        let files = set([("a", "1"), ("d/b", "1")]);
        let old = create(world.tmpfs(), &files).unwrap();
        let inside = world.container("v");
        let tmpfs = world.restart_plugin();
        assert_eq!(read(&inside, "a"), "1");
        assert_eq!(tmpfs.shared().unwrap(), ["v"]);

        let mut adopted = Projection::adopt(tmpfs.clone(), "v", SIZE).unwrap();
        assert_eq!((adopted.generation(), adopted.versions()), (1, &versions("1")));
        assert_eq!(adopted.rotated(), old.rotated());
        assert!(adopted.files().eq(["a", "d/b"]) && adopted.intact());
        assert_eq!(adopted.replace(&files, versions("1")).unwrap(), Change::Same);
        assert_eq!(adopted.replace(&set([("a", "2")]), versions("2")).unwrap(), Change::Rotated);
        assert_eq!(read(&inside, "a"), "2");

        // The bind at the private place is alone in being writable, and of no peer group.
        let private = mount_at(&world.private().join("rw/v"));
        assert_eq!((private.options[0].as_str(), private.peers), ("rw", None));
        for flag in ["nosuid", "nodev", "noexec"] {
            assert!(private.options.iter().any(|option| option == flag), "{private:?}");
        }
        assert_eq!(mount_at(&world.on_host("v")).options[0], "ro");
        adopted.revert().unwrap();
        assert_eq!(read(&inside, "a"), "1");
        adopted.destroy().unwrap();
        assert_eq!(world.volume_mounts(), [inside]);
    });
}

#[test]
fn the_previous_generation_can_be_reverted_to_by_the_next_process() {
    in_world(|world| {
        let mut old = create(world.tmpfs(), &set([("a", "1")])).unwrap();
        old.replace(&set([("a", "2")]), versions("2")).unwrap();
        let mut adopted = Projection::adopt(world.restart_plugin(), "v", SIZE).unwrap();
        adopted.revert().unwrap();
        assert_eq!(read(&world.on_host("v"), "a"), "1");

        // The abandoned generation 2 is no previous one of 1, and its number is not used again.
        let mut adopted = Projection::adopt(world.restart_plugin(), "v", SIZE).unwrap();
        assert!(matches!(adopted.revert(), Err(ProjectionError::NoPrevious)));
        adopted.replace(&set([("a", "3")]), versions("3")).unwrap();
        assert_eq!((adopted.generation(), names(&world.on_host("v"))), (3, strings(["..1", "..3", "..data", "a"])));
    });
}

#[test]
fn what_a_process_left_that_died_in_the_middle_is_removed() {
    in_world(|world| {
        create(world.tmpfs(), &set([("a", "1"), ("b", "1")])).unwrap();
        let root = world.private().join("rw/v");
        fs::create_dir_all(root.join("..2/x")).unwrap();
        fs::write(root.join("..2/x/y"), "half").unwrap();
        std::os::unix::fs::symlink("..data/new", root.join("new")).unwrap();
        std::os::unix::fs::symlink("..2", root.join("..data.new")).unwrap();
        fs::write(root.join("..data/..dso.new"), "{").unwrap();
        fs::remove_file(root.join("b")).unwrap();

        let mut adopted = Projection::adopt(world.restart_plugin(), "v", SIZE).unwrap();
        assert_eq!(read(&world.on_host("v"), "b"), "1");
        assert_eq!(names(&world.on_host("v")), ["..1", "..data", "a", "b"]);
        assert_eq!(adopted.replace(&set([("a", "1"), ("b", "1")]), versions("2")).unwrap(), Change::Same);
        adopted.replace(&set([("a", "2")]), versions("2")).unwrap();
        assert_eq!(adopted.generation(), 3);
    });
}

#[test]
fn a_mount_that_is_not_dsos_is_refused_and_left_as_it_is() {
    in_world(|world| {
        let tmpfs = world.tmpfs();
        let foreign = tmpfs.mountpoint("v");
        fs::create_dir(&foreign).unwrap();
        mount_tmpfs(&foreign);
        fs::write(foreign.join("theirs"), "x").unwrap();
        let refused = |fault: &str| {
            let before = mountinfo::read().unwrap();
            let error = Projection::adopt(tmpfs.clone(), "v", SIZE).err().unwrap().to_string();
            assert!(
                error.starts_with("what is mounted for volume `v` is not dso's: ") && error.contains(fault),
                "{error}"
            );
            assert_eq!(mountinfo::read().unwrap(), before);
            assert_eq!(read(&foreign, "theirs"), "x");
        };
        refused("it serves no generation");
        std::os::unix::fs::symlink("../etc", foreign.join("..data")).unwrap();
        refused("`..data` leads to no generation");
        fs::remove_file(foreign.join("..data")).unwrap();
        std::os::unix::fs::symlink("..1", foreign.join("..data")).unwrap();
        fs::create_dir(foreign.join("..1")).unwrap();
        refused("it has no readable marker");
        fs::write(foreign.join("..1/..dso"), "{}").unwrap();
        refused("its marker is unreadable");
    });
}

#[test]
fn the_volume_of_another_name_and_a_directory_on_disk_are_refused() {
    in_world(|world| {
        let tmpfs = world.tmpfs();
        create(tmpfs.clone(), &set([("a", "1")])).unwrap();
        let other = tmpfs.mountpoint("w");
        fs::create_dir(&other).unwrap();
        mount::mount_bind(tmpfs.mountpoint("v"), &other).unwrap();
        let error = Projection::adopt(tmpfs.clone(), "w", SIZE).err().unwrap().to_string();
        assert_eq!(error, "what is mounted for volume `w` is not dso's: its marker is of volume `v`, generation 1");

        let disk = tmpfs.mountpoint("d");
        fs::create_dir(&disk).unwrap();
        mount::mount_bind(env!("CARGO_TARGET_TMPDIR"), &disk).unwrap();
        let error = Projection::adopt(tmpfs.clone(), "d", SIZE).err().unwrap().to_string();
        assert_eq!(error, "what is mounted for volume `d` is not dso's: it is not memory");
        mount::unmount(&disk, mount::UnmountFlags::DETACH).unwrap();
        assert!(Projection::adopt(tmpfs, "never", SIZE).is_err());
    });
}

fn strings<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).into()
}
