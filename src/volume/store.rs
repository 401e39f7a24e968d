//! What outlives a process: for each volume its options and its mounts, never a value.
//!
//! The files are those of [`super::records`].
//!
//! # Guarantees
//! - A record with new options is on disk when [`Store::save`] returns. One that differs in its mounts alone is not
//!   synced: mounts do not outlive the machine's boot, and a Mount must not wait for a disk.

use super::{
    MountId, Options, VolumeName,
    records::{Records, Remembered, SetAside},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, io, path::PathBuf, sync::Arc};

/// The format that this version writes; a file with another is set aside.
const FORMAT: u32 = 1;

/// One volume, as it is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub format: u32,
    pub name: VolumeName,
    pub options: Options,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The last generation that was published; the next mount goes on from it.
    #[serde(default)]
    pub generation: u64,
    #[serde(default)]
    pub ledger: Ledger,
}

/// Who has the volume mounted: how often by each mount ID.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// The boot in which the mounts were made: no mount outlives it.
    #[serde(default)]
    boot: String,
    #[serde(default)]
    mounts: BTreeMap<MountId, Mounts>,
}

/// How often one mount ID is mounted, and for which run of the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mounts {
    count: u32,
    #[serde(default)]
    engine: String,
}

/// The records on disk.
pub struct Store {
    records: Records,
    before_write: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
}

// === impl Store ===

impl Store {
    /// Opens the folder, and makes it if it is missing.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self { records: Records::open(dir)?, before_write: Arc::new(|| Ok(())) })
    }

    /// Lets `hook` fail writes, for tests of what happens then.
    pub fn intercept(mut self, hook: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.before_write = Arc::new(hook);
        self
    }

    /// All records that can be read, and what was set aside.
    pub fn load(&self) -> io::Result<(Vec<Record>, Vec<SetAside>)> {
        self.records.load()
    }

    /// Writes a record whose options are new: it is on disk when this returns.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        self.write(record, true)
    }

    /// Writes a record in which only the mounts or the generation changed.
    pub fn save_mounts(&self, record: &Record) -> io::Result<()> {
        self.write(record, false)
    }

    /// Forgets a volume; one that is not there is forgotten already.
    pub fn remove(&self, name: &VolumeName) -> io::Result<()> {
        (self.before_write)()?;
        self.records.remove(name)
    }

    fn write(&self, record: &Record, durable: bool) -> io::Result<()> {
        (self.before_write)()?;
        self.records.replace(&record.name, &serde_json::to_vec(record)?, durable)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("records", &self.records).finish_non_exhaustive()
    }
}

// === impl Record ===

impl Remembered for Record {
    const FORMAT: u32 = FORMAT;
    const WHAT: &'static str = "record";

    fn volume(&self) -> &VolumeName {
        &self.name
    }
}

impl Record {
    pub fn new(name: VolumeName, options: Options, created: String) -> Self {
        Self { format: FORMAT, name, options, created, generation: 0, ledger: Ledger::default() }
    }
}

// === impl Ledger ===

impl Ledger {
    /// One more mount by `id`. What an earlier run of the engine counted for the same ID is void: it
    /// mounts again after a crash, without an unmount.
    pub fn add(&mut self, id: &MountId, engine: &str) {
        let mounts = self.mounts.entry(id.clone()).or_insert_with(|| Mounts { count: 0, engine: engine.to_owned() });
        if mounts.engine != engine {
            *mounts = Mounts { count: 0, engine: engine.to_owned() };
        }
        mounts.count += 1;
    }

    /// One mount less by `id`; false if there was none, as may be after a live restore.
    pub fn release(&mut self, id: &MountId) -> bool {
        let Some(mounts) = self.mounts.get_mut(id) else { return false };
        mounts.count = mounts.count.saturating_sub(1);
        if mounts.count == 0 {
            self.mounts.remove(id);
        }
        true
    }

    pub fn holds(&self, id: &MountId) -> bool {
        self.mounts.contains_key(id)
    }

    /// Forgets the mounts of an earlier boot: they ended with it.
    pub fn enter_boot(&mut self, boot: &str) {
        if self.boot != boot {
            self.mounts.clear();
            boot.clone_into(&mut self.boot);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// Whether some mount was made for `engine`, the run of the engine that asks.
    pub fn is_used_by(&self, engine: &str) -> bool {
        self.mounts.values().any(|mounts| mounts.engine == engine)
    }

    /// How many mounts there are, counting each as often as it was made.
    pub fn count(&self) -> u32 {
        self.mounts.values().map(|mounts| mounts.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn record(name: &str) -> Record {
        let options = [("from".to_owned(), "vault://secret/app".to_owned())].into();
        Record::new(name.parse().unwrap(), options, "2026-01-01T00:00:00Z".into())
    }

    #[test]
    fn a_record_reads_back_as_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut saved = record("a.b");
        saved.ledger.enter_boot("boot");
        saved.ledger.add(&MountId::new("m1"), "7:1");
        store.save(&saved).unwrap();
        let (records, aside) = store.load().unwrap();
        assert_eq!((records, aside.len()), (vec![saved.clone()], 0));
        store.remove(&saved.name).unwrap();
        store.remove(&saved.name).unwrap();
        assert!(store.load().unwrap().0.is_empty());
    }

    #[test]
    fn an_unreadable_file_is_set_aside_and_the_others_are_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save(&record("good")).unwrap();
        fs::write(dir.path().join("garbage.json"), b"{\"format\":1").unwrap();
        fs::write(dir.path().join("empty.json"), b"").unwrap();
        fs::write(dir.path().join("newer.json"), br#"{"format":2,"name":"newer","options":{},"created":""}"#).unwrap();
        fs::write(dir.path().join("other.json"), serde_json::to_vec(&record("good")).unwrap()).unwrap();
        fs::write(dir.path().join("crash.json.new"), b"half").unwrap();
        let (records, aside) = store.load().unwrap();
        assert_eq!(records, [record("good")]);
        assert_eq!(aside.len(), 4);
        assert!(aside.iter().all(|aside| aside.file.exists() && !aside.reason.is_empty()));
        assert!(!dir.path().join("crash.json.new").exists());
        assert_eq!(store.load().unwrap().1.len(), 0, "what was set aside is not read again");
    }

    #[test]
    fn mounts_are_counted_by_id() {
        let (mut ledger, a, b) = (Ledger::default(), MountId::new("a"), MountId::new("b"));
        ledger.add(&a, "e");
        ledger.add(&a, "e");
        ledger.add(&b, "e");
        assert_eq!(ledger.count(), 3);
        assert!(ledger.release(&a) && ledger.release(&b));
        assert!(!ledger.release(&b), "an unknown ID releases nothing");
        assert!(!ledger.is_empty(), "docker cp's unmount leaves the container's own mount");
        assert!(ledger.release(&a) && ledger.is_empty());
    }

    #[test]
    fn a_mount_by_a_new_run_of_the_engine_replaces_the_count_of_the_old_one() {
        let (mut ledger, id) = (Ledger::default(), MountId::new("a"));
        ledger.add(&id, "old");
        ledger.add(&id, "old");
        ledger.add(&id, "new");
        assert!(ledger.is_used_by("new") && !ledger.is_used_by("old"));
        assert!(ledger.release(&id) && ledger.is_empty());
    }

    #[test]
    fn no_mount_outlives_a_boot() {
        let mut ledger = Ledger::default();
        ledger.enter_boot("one");
        ledger.add(&MountId::new("a"), "e");
        ledger.enter_boot("one");
        assert_eq!(ledger.count(), 1);
        ledger.enter_boot("two");
        assert!(ledger.is_empty());
    }
}
