use crate::world::*;
use dso::projection::{Change, Projection};
use std::{fs, path::PathBuf, sync::Arc};

fn size_of_tmpfs(world: &World) -> String {
    let options = mount_at(&world.on_host("v")).super_options;
    assert!(options.iter().any(|option| option == "noswap"), "{options:?}");
    options.into_iter().find(|option| option.starts_with("size=")).unwrap()
}

#[test]
fn a_set_that_does_not_fit_is_refused_before_anything_is_mounted() {
    in_world(|world| {
        let large = "x".repeat(SIZE as usize);
        let error = create(world.tmpfs(), &set([("a", &*large), ("b", "1")])).err().unwrap();
        assert_eq!(
            error.to_string(),
            "the files need 1.1 MiB, and option `size` allows 1 MiB: set `size` to 2m or more (at most 64m)"
        );
        assert_eq!(world.volume_mounts(), Vec::<PathBuf>::new());
        assert_eq!(names(&world.shared()), Vec::<String>::new());
    });
}

#[test]
fn what_does_not_fit_any_more_leaves_what_is_served() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &set([("a", "1")])).unwrap();
        projection.replace(&set([("a", "2")]), versions("2")).unwrap();
        let large = "x".repeat(SIZE as usize);
        let error = projection.replace(&set([("a", &*large)]), versions("3")).unwrap_err();
        assert!(error.to_string().contains("option `size` allows 1 MiB"), "{error}");
        assert_eq!(read(&world.on_host("v"), "a"), "2");
        assert_eq!((projection.generation(), projection.versions()), (2, &versions("2")));
        projection.revert().unwrap();
        assert_eq!(read(&world.on_host("v"), "a"), "1");
    });
}

#[test]
fn a_set_that_fills_its_size_to_the_last_page_can_be_written_rotated_and_reverted() {
    in_world(|world| {
        let page = rustix::param::page_size();
        // One page is the marker's.
        let [first, second] = ["1", "2"].map(|text| text.repeat(SIZE as usize - page));
        let mut projection = create(world.tmpfs(), &set([("a", &*first)])).unwrap();
        assert_eq!(size_of_tmpfs(world), "size=1024k");
        projection.replace(&set([("a", &*second)]), versions("2")).unwrap();
        assert_eq!(read(&world.on_host("v"), "a"), second);
        assert_eq!(size_of_tmpfs(world), "size=2048k");
        assert_eq!(projection.replace(&set([("a", &*second)]), versions("3")).unwrap(), Change::Same);
        projection.revert().unwrap();
        assert_eq!(read(&world.on_host("v"), "a"), first);

        projection.replace(&set([("a", "small")]), versions("4")).unwrap();
        projection.commit().unwrap();
        projection.replace(&set([("a", "smaller")]), versions("5")).unwrap();
        assert_eq!(size_of_tmpfs(world), "size=1024k");
    });
}

#[test]
fn versions_can_be_noted_in_a_volume_that_is_full() {
    in_world(|world| {
        let full = "1".repeat(SIZE as usize - rustix::param::page_size());
        let mut projection = create(world.tmpfs(), &set([("a", &*full)])).unwrap();
        assert_eq!(projection.replace(&set([("a", &*full)]), versions("2")).unwrap(), Change::Same);
        assert_eq!(projection.versions(), &versions("2"));
    });
}

#[test]
fn small_rotations_leave_the_size_as_it_was_asked_for() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &set([("a", "0")])).unwrap();
        for n in 1..10 {
            projection.replace(&set([("a", &*n.to_string())]), versions("1")).unwrap();
            assert_eq!(size_of_tmpfs(world), "size=1024k");
        }
    });
}

#[test]
fn a_tmpfs_that_someone_else_filled_gives_a_clear_error_and_serves_on() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &set([("a", "1"), ("b", "1")])).unwrap();
        let root = world.private().join("rw/v");
        let foreign = root.join("..foreign");
        let _full = fs::write(&foreign, vec![0; 2 * SIZE as usize]).unwrap_err();
        let error = projection.replace(&set([("a", "2"), ("c", "2")]), versions("2")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write file `a`: the volume's memory is full ("), "{error}");
        assert_eq!(names(&root), ["..1", "..data", "..foreign", "a", "b"]);
        assert_eq!(read(&world.on_host("v"), "b"), "1");
        assert!(projection.intact());

        fs::remove_file(foreign).unwrap();
        projection.replace(&set([("a", "2")]), versions("2")).unwrap();
        assert_eq!(names(&root), ["..1", "..3", "..data", "a"]);
    });
}

#[test]
fn long_names_many_directories_and_many_files_are_within_what_was_counted() {
    in_world(|world| {
        let paths: Vec<String> =
            (0..40).flat_map(|n| [format!("{n:0>200}/{n}/x/f"), format!("{n:0>3}-{}", "y".repeat(240))]).collect();
        let files = set(paths.iter().map(|path| (path.as_str(), "1")));
        // The smallest size that is taken.
        let tmpfs = world.tmpfs();
        let made = (1..500).find_map(|pages| {
            Projection::create(Arc::clone(&tmpfs) as _, "v", pages * 4096, 1, &files, versions("1")).ok()
        });
        let mut projection = made.unwrap();
        assert_eq!(projection.replace(&files, versions("2")).unwrap(), Change::Same);
        let others = set(paths.iter().map(|path| (path.as_str(), "2")));
        assert_eq!(projection.replace(&others, versions("2")).unwrap(), Change::Rotated);
        projection.revert().unwrap();
    });
}
