use crate::world::*;
use dso::projection::{Change, FileSet};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use std::{cell::RefCell, fs, os::unix::fs::MetadataExt, path::Path};

/// Paths that often clash or share directories: what cannot be inserted is left out.
fn any_set() -> impl Strategy<Value = FileSet> {
    let path = prop_oneof!["[a-c](/[a-c]){0,3}", "[^/\0]{1,30}", "\\.[a-z. ]{1,5}/[^/\0]{1,20}"];
    let owner = prop_oneof![Just(0), 0..u32::MAX];
    let contents = prop_oneof![vec(any::<u8>(), 0..64), vec(any::<u8>(), 4000..9000)];
    let any_file = (path, contents, 0..0o10000u32, owner);
    vec(any_file, 0..12).prop_map(|files| {
        let mut set = FileSet::new();
        for (path, contents, mode, owner) in files {
            let _clash = set.insert(path, file(contents, mode, owner));
        }
        set
    })
}

/// Everything that a reader finds, but for dso's own names.
fn read_back(root: &Path, at: &Path, found: &mut FileSet) {
    for name in names(at) {
        if name.starts_with("..") && (at == root || name == "..dso") {
            continue;
        }
        let path = at.join(&name);
        let meta = fs::metadata(&path).unwrap();
        if meta.is_dir() {
            read_back(root, &path, found);
        } else {
            let contents = fs::read(&path).unwrap();
            let mut file = file(contents, meta.mode() & 0o7777, meta.uid());
            file.gid = meta.gid();
            found.insert(path.strip_prefix(root).unwrap().to_str().unwrap(), file).unwrap();
        }
    }
}

#[test]
fn any_set_reads_back_as_it_was_written() {
    in_world(|world| {
        let projection = RefCell::new(create(world.tmpfs(), &FileSet::new()).unwrap());
        let seen = world.on_host("v");
        let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&any_set(), |set| {
            let mut projection = projection.borrow_mut();
            projection.replace(&set, versions("1")).unwrap();
            let mut found = FileSet::new();
            read_back(&seen, &seen, &mut found);
            prop_assert_eq!(&found, &set);
            prop_assert!(projection.intact());
            prop_assert_eq!(projection.replace(&set, versions("1")).unwrap(), Change::Same);
            Ok(())
        });
        outcome.unwrap();
    });
}
