use crate::world::*;
use dso::projection::{Change, FileSet, Projection, ProjectionError};
use std::{fs, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.mode() & 0o7777, meta.uid(), meta.gid())
}

#[test]
fn a_volume_is_laid_out_as_kubernetes_lays_out_its_own() {
    in_world(|world| {
        let files = [("password", "p"), ("tls/key.pem", "k"), ("tls/ca/root.pem", "c"), (".env", "e")];
        let projection = create(world.tmpfs(), &set(files)).unwrap();
        let seen = world.on_host("v");
        assert_eq!(names(&seen), ["..1", "..data", ".env", "password", "tls"]);
        assert_eq!(link(&seen, "..data"), "..1");
        assert_eq!(link(&seen, "password"), "..data/password");
        assert_eq!(link(&seen, "tls"), "..data/tls");
        assert_eq!(names(&seen.join("..data")), ["..dso", ".env", "password", "tls"]);
        for (path, contents) in files {
            assert_eq!(read(&seen, path), contents);
        }
        assert_eq!(projection.files().collect::<Vec<_>>(), [".env", "password", "tls/ca/root.pem", "tls/key.pem"]);
        assert_eq!((projection.generation(), projection.versions()), (1, &versions("1")));
        assert!(projection.rotated() <= SystemTime::now());
        assert!(projection.intact());
    });
}

#[test]
fn files_have_their_modes_and_owners_whatever_the_umask() {
    in_world(|world| {
        let mut files = FileSet::new();
        files.insert("none", file("n", 0, 0)).unwrap();
        files.insert("user", file("u", 0o400, 1000)).unwrap();
        files.insert("dir/all", file("a", 0o777, 7)).unwrap();
        let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let projection = create(world.tmpfs(), &files);
        rustix::process::umask(umask);
        let projection = projection.unwrap();
        let seen = world.on_host("v");
        assert_eq!(owner_and_mode(&seen.join("..data/none")), (0, 0, 0));
        assert_eq!(owner_and_mode(&seen.join("..data/user")), (0o400, 1000, 1000));
        assert_eq!(owner_and_mode(&seen.join("..data/dir/all")), (0o777, 7, 7));
        for dir in ["", "..1", "..1/dir"] {
            assert_eq!(owner_and_mode(&seen.join(dir)), (0o755, 0, 0), "{dir}");
        }
        assert_eq!(owner_and_mode(&seen.join("..data/..dso")), (0o400, 0, 0));
        assert!(projection.intact());
    });
}

#[test]
fn a_replacement_changes_all_and_keeps_the_generation_before_it() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &set([("a", "1"), ("gone", "1"), ("d/x", "1")])).unwrap();
        let first = projection.rotated();
        let next = set([("a", "2"), ("new", "2"), ("d/y/z", "2")]);
        assert_eq!(projection.replace(&next, versions("2")).unwrap(), Change::Rotated);
        let seen = world.on_host("v");
        assert_eq!(names(&seen), ["..1", "..2", "..data", "a", "d", "new"]);
        assert_eq!([read(&seen, "a"), read(&seen, "new"), read(&seen, "d/y/z")], ["2", "2", "2"]);
        assert_eq!(read(&seen, "..1/gone"), "1");
        assert_eq!((projection.generation(), projection.versions()), (2, &versions("2")));
        assert!(projection.rotated() >= first && projection.intact());

        projection.commit().unwrap();
        assert_eq!(read(&seen, "..1/gone"), "1", "for who reads it");
        projection.replace(&set([("a", "3")]), versions("3")).unwrap();
        projection.commit().unwrap();
        assert_eq!(names(&seen), ["..2", "..3", "..data", "a"]);
    });
}

#[test]
fn what_was_committed_last_is_what_a_revert_goes_back_to_however_many_came_after_it() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &set([("a", "1")])).unwrap();
        for n in ["2", "3", "4"] {
            projection.replace(&set([("a", n)]), versions(n)).unwrap();
            assert_eq!(projection.base(), Some(1));
        }
        let seen = world.on_host("v");
        assert_eq!(names(&seen), ["..1", "..3", "..4", "..data", "a"]);
        projection.revert().unwrap();
        assert_eq!((read(&seen, "a"), projection.generation()), ("1".to_owned(), 1));
        assert_eq!((projection.base(), projection.refused()), (None, &versions("4")));
        projection.replace(&set([("a", "5")]), versions("5")).unwrap();
        assert!(projection.refused().is_empty(), "of what is served now nothing is refused");
        assert_eq!(names(&seen), ["..1", "..5", "..data", "a"]);
    });
}

#[test]
fn what_is_refused_is_known_to_the_next_process_until_it_is_forgiven() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &set([("a", "1")])).unwrap();
        projection.replace(&set([("a", "2")]), versions("2")).unwrap();
        projection.revert().unwrap();
        drop(projection);
        let mut adopted = Projection::adopt(world.restart_plugin(), "v", SIZE).unwrap();
        assert_eq!((adopted.generation(), adopted.refused()), (1, &versions("2")));
        adopted.forgive().unwrap();
        assert!(Projection::adopt(world.restart_plugin(), "v", SIZE).unwrap().refused().is_empty());
    });
}

#[test]
fn the_next_process_can_be_told_what_to_go_back_to() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &set([("a", "1")])).unwrap();
        for n in ["2", "3", "4"] {
            projection.replace(&set([("a", n)]), versions(n)).unwrap();
        }
        drop(projection);
        let mut adopted = Projection::adopt(world.restart_plugin(), "v", SIZE).unwrap();
        assert!(!adopted.hold(2).unwrap(), "it was pruned");
        assert!(adopted.hold(1).unwrap());
        adopted.replace(&set([("a", "5")]), versions("5")).unwrap();
        adopted.revert().unwrap();
        assert_eq!(read(&world.on_host("v"), "a"), "1");
    });
}

#[test]
fn a_name_may_turn_from_a_file_into_a_directory_and_back() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &set([("a", "1")])).unwrap();
        projection.replace(&set([("a/b", "2")]), versions("2")).unwrap();
        assert_eq!(read(&world.on_host("v"), "a/b"), "2");
        projection.replace(&set([("a", "3")]), versions("3")).unwrap();
        assert_eq!(read(&world.on_host("v"), "a"), "3");
    });
}

#[test]
fn what_is_the_same_is_not_written_again_and_only_its_versions_are_noted() {
    in_world(|world| {
        let files = set([("a", "1"), ("d/b", "2"), ("empty", "")]);
        let mut projection = create(world.tmpfs(), &files).unwrap();
        let (seen, rotated) = (world.on_host("v"), projection.rotated());
        let inode = fs::metadata(seen.join("a")).unwrap().ino();
        let marker = read(&seen, "..data/..dso");

        assert_eq!(projection.replace(&files, versions("1")).unwrap(), Change::Same);
        assert_eq!(read(&seen, "..data/..dso"), marker);

        assert_eq!(projection.replace(&files, versions("2")).unwrap(), Change::Same);
        assert_eq!((projection.generation(), projection.versions()), (1, &versions("2")));
        assert_eq!(projection.rotated(), rotated);
        assert_eq!(fs::metadata(seen.join("a")).unwrap().ino(), inode);
        assert_eq!(names(&seen.join("..data")), ["..dso", "a", "d", "empty"]);
        assert!(read(&seen, "..data/..dso").contains(r#""label":"2""#));
        assert_eq!(owner_and_mode(&seen.join("..data/..dso")), (0o400, 0, 0));
    });
}

#[test]
fn any_difference_is_a_rotation() {
    in_world(|world| {
        let mut files = FileSet::new();
        files.insert("a", file("1", 0o444, 0)).unwrap();
        let mut projection = create(world.tmpfs(), &files).unwrap();
        for (path, file) in [
            ("a", file("1", 0o440, 0)),
            ("a", file("1", 0o440, 1000)),
            ("a", file("2", 0o440, 1000)),
            ("a", file("22", 0o440, 1000)),
            ("a", file("2", 0o440, 1000)),
            ("b", file("2", 0o440, 1000)),
        ] {
            let mut files = FileSet::new();
            files.insert(path, file).unwrap();
            let before = projection.generation();
            assert_eq!(projection.replace(&files, versions("1")).unwrap(), Change::Rotated);
            assert_eq!(projection.generation(), before + 1);
            assert_eq!(projection.replace(&files, versions("1")).unwrap(), Change::Same);
        }
    });
}

#[test]
fn a_difference_deep_in_a_long_file_is_seen() {
    in_world(|world| {
        let mut long = vec![7; 100_000];
        let mut files = FileSet::new();
        files.insert("a", file(long.clone(), 0o444, 0)).unwrap();
        let mut projection = create(world.tmpfs(), &files).unwrap();
        assert_eq!(projection.replace(&files, versions("1")).unwrap(), Change::Same);
        long[99_999] = 8;
        let mut files = FileSet::new();
        files.insert("a", file(long, 0o444, 0)).unwrap();
        assert_eq!(projection.replace(&files, versions("1")).unwrap(), Change::Rotated);
    });
}

#[test]
fn reverting_serves_the_previous_generation_and_numbers_go_on_growing() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &set([("a", "1"), ("old", "1")])).unwrap();
        assert!(matches!(projection.revert(), Err(ProjectionError::NoPrevious)));
        projection.replace(&set([("a", "2"), ("new", "2")]), versions("2")).unwrap();
        projection.revert().unwrap();
        let seen = world.on_host("v");
        assert_eq!(names(&seen), ["..1", "..2", "..data", "a", "old"]);
        assert_eq!([read(&seen, "a"), read(&seen, "old")], ["1", "1"]);
        assert_eq!((projection.generation(), projection.versions()), (1, &versions("1")));
        assert!(projection.intact());
        assert!(matches!(projection.revert(), Err(ProjectionError::NoPrevious)));

        projection.replace(&set([("a", "3")]), versions("3")).unwrap();
        assert_eq!(names(&seen), ["..1", "..3", "..data", "a"]);
        projection.revert().unwrap();
        assert_eq!(read(&seen, "a"), "1");
    });
}

#[test]
fn damage_is_noticed_and_the_next_replacement_mends_it() {
    in_world(|world| {
        let files = set([("a", "1"), ("d/b", "2")]);
        let mut projection = create(world.tmpfs(), &files).unwrap();
        let root = world.private().join("rw/v");
        let damages: [&dyn Fn(); 5] = [
            &|| fs::remove_file(root.join("..data/a")).unwrap(),
            &|| fs::write(root.join("..data/d/b"), "longer").unwrap(),
            &|| rustix::fs::chmod(root.join("..data/a"), rustix::fs::Mode::RWXU).unwrap(),
            &|| fs::remove_file(root.join("a")).unwrap(),
            &|| fs::remove_file(root.join("..data")).unwrap(),
        ];
        for damage in damages {
            assert!(projection.intact());
            damage();
            assert!(!projection.intact());
            assert_eq!(projection.replace(&files, versions("1")).unwrap(), Change::Rotated);
            assert_eq!([read(&world.on_host("v"), "a"), read(&world.on_host("v"), "d/b")], ["1", "2"]);
        }
    });
}
