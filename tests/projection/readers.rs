use crate::world::*;
use dso::projection::FileSet;
use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

const FILES: usize = 10;
const ROTATIONS: usize = 1000;

/// Ten files that all say which rotation they are of, with lengths that differ from one rotation to the next.
fn rotation(n: usize) -> FileSet {
    let mut set = FileSet::new();
    for i in 0..FILES {
        let path = if i % 2 == 0 { format!("f{i}") } else { format!("d/f{i}") };
        set.insert(path, file(format!("{n} ").repeat(1 + n % 7), 0o444, 0)).unwrap();
    }
    set
}

/// What the ten files of one generation say; an error if the generation was removed while they were read. There is
/// always one that is served.
fn read_once(dir: &Path) -> io::Result<Vec<String>> {
    let generation = dir.join(fs::read_link(dir.join("..data")).unwrap());
    (0..FILES)
        .map(|i| {
            let path = if i % 2 == 0 { format!("f{i}") } else { format!("d/f{i}") };
            fs::read_to_string(generation.join(path))
        })
        .collect()
}

/// Ends the readers when the writer ends, even by a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Seen {
    whole: usize,
    torn: usize,
    overtaken: usize,
}

fn read_until(done: &AtomicBool, dir: &Path) -> Seen {
    let mut seen = Seen::default();
    while !done.load(Ordering::Relaxed) {
        match read_once(dir) {
            Ok(files) if files.windows(2).all(|pair| pair[0] == pair[1]) => seen.whole += 1,
            Ok(_) => seen.torn += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => seen.overtaken += 1,
            Err(error) => panic!("{error}"),
        }
    }
    seen
}

/// Names are opened as an application does it: through the links at the top. The links are there at any moment; an open
/// that two rotations overtake may miss the file that it was led to.
fn open_until(done: &AtomicBool, dir: &Path) -> usize {
    let mut opened = 0;
    while !done.load(Ordering::Relaxed) {
        for path in ["f0", "d/f1"] {
            let name = path.split('/').next().unwrap();
            assert!(fs::symlink_metadata(dir.join(name)).unwrap().is_symlink());
            match fs::read_to_string(dir.join(path)) {
                Ok(text) => opened += usize::from(!text.is_empty()),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
            }
        }
    }
    opened
}

#[test]
fn a_thousand_rotations_under_readers_show_no_torn_read_and_no_missing_name() {
    in_world(|world| {
        let mut projection = create(world.tmpfs(), &rotation(0)).unwrap();
        let (inside, done) = (world.container("v"), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let readers = [0; 4].map(|_| scope.spawn(|| read_until(&done, &inside)));
            let opener = scope.spawn(|| open_until(&done, &inside));
            let writing = Done(&done);
            for n in 1..=ROTATIONS {
                projection.replace(&rotation(n), versions(&n.to_string())).unwrap();
                projection.commit().unwrap();
            }
            drop(writing);
            for reader in readers {
                let seen = reader.join().unwrap();
                assert!(seen.torn == 0 && seen.whole > 100, "{seen:?}");
            }
            assert!(opener.join().unwrap() > 100);
        });
        assert_eq!(projection.generation() as usize, ROTATIONS + 1);
        assert_eq!(names(&inside), ["..1000", "..1001", "..data", "d", "f0", "f2", "f4", "f6", "f8"]);
    });
}
