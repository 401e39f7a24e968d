//! That the files of a volume change together, seen from within containers.

use crate::support::{engine::Engine, local::LocalSecrets, plugin::Plugin, reader::Reader};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
};
use std::{fs, mem::MaybeUninit, os::fd::OwnedFd, path::PathBuf, time::Duration};

const ROTATIONS: u64 = 1000;
const FILES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn readers_of_ten_files_see_one_generation_at_a_time_through_a_thousand_rotations() {
    let plugin = Plugin::on(&Engine::system()).start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    store.set_all("set", FILES, "rotation 0");
    let (engine, volume) = (plugin.engine(), plugin.named("volume"));
    let mount = plugin.mount(&volume, "/s", &["from=local://set"]);
    let readers = ["0", "1000:1000"].map(|user| Reader::start(engine, &mount, FILES, &["--user", user]));
    for reader in &readers {
        reader.wait_for("rotation 0");
    }
    let published = Published::watch(plugin.shown(&volume));
    for number in 1..=ROTATIONS {
        let text = format!("rotation {number}");
        store.set_all("set", FILES, &text);
        published.wait_for(&text);
    }
    let end = format!("rotation {ROTATIONS}");
    for reader in &readers {
        let said = reader.wait_for(&end);
        eprintln!("{ROTATIONS} rotations: {said:?}");
        assert_eq!((said.torn, said.failed), (0, 0), "{said:?}");
        // A reader that stood still would have seen one.
        assert!(said.generations > ROTATIONS as usize / 10, "{said:?}");
        assert!(said.reads > ROTATIONS, "{said:?}");
    }
    // Every rotation was published, none of them twice.
    assert_eq!(plugin.status(&volume)["generation"], ROTATIONS + 1);
}

/// Tells of renames in a volume as they happen: asking every 20 ms would take longer than the rotations do.
struct Published {
    inotify: OwnedFd,
    volume: PathBuf,
}

// === impl Published ===

impl Published {
    fn watch(volume: PathBuf) -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&inotify, &volume, WatchFlags::MOVED_TO).unwrap();
        Self { inotify, volume }
    }

    fn wait_for(&self, text: &str) {
        let limit = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        while fs::read_to_string(self.volume.join("f0")).unwrap() != text {
            let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
            assert_eq!(poll(&mut ready, Some(&limit)), Ok(1), "waited in vain for `{text}`");
            let mut events = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(&self.inotify, &mut events);
            while events.next().is_ok() {}
        }
    }
}
