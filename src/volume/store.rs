//! What outlives a process: for each volume its options and its mounts, never a value.
//!
//! One file for each volume, `<dir>/<name>.json`, replaced by atomic rename.
//!
//! # Guarantees
//! - A crash of the process leaves the old record or the new one.
//! - A record with new options is on disk when [`Store::save`] returns. One that differs in its mounts alone is not
//!   synced: mounts do not outlive the machine's boot, and a Mount must not wait for a disk.
//! - A file that cannot be read is set aside as `<name>.json.unreadable-<n>` and reported; the others are loaded.

use super::{MountId, Options, VolumeName};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

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
    dir: PathBuf,
    before_write: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
}

/// A state file that could not be read.
#[derive(Debug)]
pub struct SetAside {
    pub file: PathBuf,
    pub reason: String,
}

// === impl Store ===

impl Store {
    /// Opens the folder, and makes it if it is missing.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, before_write: Arc::new(|| Ok(())) })
    }

    /// Lets `hook` fail writes, for tests of what happens then.
    pub fn intercept(mut self, hook: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.before_write = Arc::new(hook);
        self
    }

    /// All records that can be read, and what was set aside.
    pub fn load(&self) -> io::Result<(Vec<Record>, Vec<SetAside>)> {
        let (mut records, mut aside) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(".new") {
                // Left by a crash in the middle of a write: the record itself is untouched.
                fs::remove_file(&path)?;
            } else if let Some(name) = name.strip_suffix(".json") {
                match read(&path, name) {
                    Ok(record) => records.push(record),
                    Err(reason) => aside.push(self.set_aside(&path, reason)?),
                }
            }
        }
        Ok((records, aside))
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
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&self, record: &Record, durable: bool) -> io::Result<()> {
        (self.before_write)()?;
        let path = self.path(&record.name);
        let new = path.with_extension("json.new");
        let written = write_new(&new, record, durable).and_then(|()| fs::rename(&new, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        if durable {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    fn path(&self, name: &VolumeName) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    fn set_aside(&self, path: &Path, reason: String) -> io::Result<SetAside> {
        let mut file = path.to_owned();
        for n in 1.. {
            file = path.with_extension(format!("json.unreadable-{n}"));
            if !file.try_exists()? {
                break;
            }
        }
        fs::rename(path, &file)?;
        Ok(SetAside { file, reason })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn write_new(path: &Path, record: &Record, durable: bool) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    if durable { file.sync_all() } else { Ok(()) }
}

fn read(path: &Path, name: &str) -> Result<Record, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    if format != Some(FORMAT.into()) {
        return Err(format!("its format is {format:?}, and this version reads {FORMAT}"));
    }
    let record: Record = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if record.name.as_str() != name {
        return Err(format!("it is the record of `{}`", record.name));
    }
    Ok(record)
}

// === impl Record ===

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
