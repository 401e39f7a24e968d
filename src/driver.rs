//! The use cases: create, mount, unmount, remove and refresh a volume.
//!
//! Data flows one way: a request names a volume; its spec names secrets; the provider seam gives their
//! values; they are rendered into a set of files; the projection shows the set; the volume's name goes to the
//! reconcile queue, which comes back with [`Driver::check`] and [`Driver::refresh`].
//!
//! # Guarantees
//! - What happens to one volume happens one after the other; volumes do not wait for each other.
//! - A volume exists by its record alone: no provider is asked to create, list, inspect or remove it.
//! - A mount succeeds with every file or not at all, and leaves nothing behind when it fails.

mod check;
mod deliveries;
mod doctor;
mod error;
mod fill;
mod heal;
mod mount;
mod preview;
mod refresh;
mod render;
mod rotation;
mod serve;
mod served;
mod services;
mod start;
mod status;
mod takeback;
mod telling;
mod users;

use crate::{
    audit::Audit,
    events::Events,
    faults::Faults,
    projection::{Mounter, Projection},
    provider::Cache,
    secret::SecretId,
    volume::{Options, Record, Store, VolumeName, VolumeSpec},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc},
    time::Instant,
};
use tokio_util::task::TaskTracker;

pub use check::{CheckKey, Checked, Wanted};
pub use doctor::STILL;
pub use error::DriverError;
pub use heal::InUse;
pub use preview::{Preview, PreviewedFile, Sizes, Sourced};
pub use refresh::Refreshed;
pub use rotation::{Outcome, Shown, User};
pub use serve::{Asked, Served};
pub use served::Followed;
pub use status::{State, Status};

/// What the driver tells the reconcile queue: which volume, never what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has just been given its files.
    Projected(VolumeName),
    /// A person wants it looked at now, also for what was taken back; the number is the request's, of whose end is told.
    Forced(VolumeName, u64),
    /// It is gone; one of the same name may be there already.
    Removed(VolumeName),
    /// It shows files that were not checked just now: somebody else mounted it, or it was taken over from an earlier process.
    Joined(VolumeName),
    /// Swarm has asked for a secret, as the manager does that leads it.
    Served,
    /// How often the secrets of services are checked has changed.
    Interval,
}

/// What the driver is made of.
pub struct Parts {
    pub store: Store,
    pub cache: Arc<Cache>,
    pub mounter: Arc<dyn Mounter>,
    /// How often versions are checked where a volume does not say, until [`Driver::set_refresh`].
    pub refresh: Duration,
    /// Identifies the machine's boot: mounts do not outlive it.
    pub boot: String,
    pub events: mpsc::UnboundedSender<Event>,
    pub tasks: TaskTracker,
}

/// The volumes, and what is done with them.
pub struct Driver {
    parts: Parts,
    volumes: Mutex<BTreeMap<VolumeName, Arc<Volume>>>,
    /// Held by whoever adds a volume.
    creating: AsyncMutex<()>,
    users: users::Users,
    /// What services were given.
    served: served::Ledger,
    /// The run of the engine that mounted last, and when it was first heard of.
    engine: Mutex<Option<(String, Instant)>>,
    /// Held by whoever looks for orphans.
    looking: Arc<AsyncMutex<()>>,
    /// What happens, for whoever looks.
    happenings: Arc<Events>,
    audit: Arc<Audit>,
    /// When the reconcile loop turned last.
    turned: Mutex<Option<Instant>>,
    /// Whether the engine tells of its containers; `None` before it was first asked.
    engine_tells: Mutex<Option<Result<(), String>>>,
}

/// One volume. `work` is held by whoever changes it; `seen` is for those who only look.
struct Volume {
    name: VolumeName,
    /// RFC 3339.
    created: String,
    /// A stored record may have options that this version does not take.
    spec: Result<VolumeSpec, String>,
    work: AsyncMutex<Work>,
    /// Changed only under `work`; a refresh looks at its versions without.
    projection: Mutex<Option<Projection>>,
    seen: Mutex<Seen>,
}

struct Work {
    record: Record,
    removed: bool,
    /// When it was last given files, and whether its last mount ended too soon for a container to have run.
    filled: Option<Instant>,
    was_brief: bool,
    /// When the last mount was counted, or this process began.
    entered: Instant,
}

/// What can be told of a volume without waiting for work on it.
#[derive(Clone, Debug, Default)]
struct Seen {
    mounts: u32,
    /// When this process counted the last of them.
    entered: Option<Instant>,
    /// The last one that was published, also when it is not mounted any more.
    generation: u64,
    live: Option<Live>,
    error: Option<String>,
    /// Why what is shown is not what the provider has, or why containers were not told of it.
    explained: Option<String>,
    users: Vec<User>,
    outcome: Option<Outcome>,
    /// How many outcomes there were.
    decisions: u64,
    /// Why it was told to be stale, if it was.
    told_stale: Option<String>,
    /// Which containers have files of an earlier mount, and what to do.
    left_behind: Option<String>,
}

/// The projection, as it was after the last work on it.
#[derive(Clone, Debug)]
struct Live {
    generation: u64,
    rotated: SystemTime,
    files: BTreeMap<String, String>,
}

// === impl Driver ===

impl Driver {
    pub fn new(parts: Parts) -> Arc<Self> {
        let users = users::Users::new(parts.refresh);
        Arc::new(Self {
            parts,
            volumes: Mutex::default(),
            creating: AsyncMutex::default(),
            users,
            served: served::Ledger::default(),
            engine: Mutex::default(),
            looking: Arc::default(),
            happenings: Arc::default(),
            audit: Arc::default(),
            turned: Mutex::default(),
            engine_tells: Mutex::default(),
        })
    }

    /// Creates a volume from its options. Creating it again with the same options changes nothing.
    pub async fn create(self: &Arc<Self>, name: &str, options: Options) -> Result<(), DriverError> {
        let name: VolumeName = name.parse().map_err(|fault| DriverError::invalid(name, Faults::from(fault)))?;
        let spec = self.parse(&options).map_err(|faults| DriverError::invalid(name.as_str(), faults))?;
        let (this, volume) = (self.clone(), name.clone());
        let task = self.parts.tasks.spawn(async move { this.create_now(name, options, spec).await });
        task.await.unwrap_or(Err(DriverError::Internal { volume }))
    }

    async fn create_now(
        self: &Arc<Self>,
        name: VolumeName,
        options: Options,
        spec: VolumeSpec,
    ) -> Result<(), DriverError> {
        let existing = self.find(&name);
        let mut work = match &existing {
            Some(volume) => Some(volume.work.lock().await),
            None => None,
        };
        // After the volume's own lock, and never the other way round.
        let _creating = self.creating.lock().await;
        if existing.as_ref().map(Arc::as_ptr) != self.find(&name).as_ref().map(Arc::as_ptr) {
            drop(work);
            // Somebody created or removed it meanwhile: look again.
            return Box::pin(self.create_now(name, options, spec)).await;
        }
        let mut record = Record::new(name.clone(), options, rfc3339(SystemTime::now()));
        if let Some(old) = &work {
            if old.record.options == record.options {
                return Ok(());
            }
            if !old.record.ledger.is_empty() {
                return Err(DriverError::OtherOptions { volume: name });
            }
            record.generation = old.record.generation;
        }
        let record = self.save_new(record).await?;
        if let Some(work) = &mut work {
            work.removed = true;
        }
        lock(&self.volumes).insert(name.clone(), Volume::new(record, Ok(spec)));
        tracing::info!(volume = %name, "created");
        Ok(())
    }

    /// Waits for the disk, and so where that keeps nobody else waiting.
    async fn save_new(self: &Arc<Self>, record: Record) -> Result<Record, DriverError> {
        let (this, volume) = (self.clone(), record.name.clone());
        let save = move || this.parts.store.save(&record).map(|()| record);
        let saved = self.parts.tasks.spawn_blocking(save).await;
        let saved = saved.map_err(|_| DriverError::Internal { volume: volume.clone() })?;
        saved.map_err(|source| DriverError::Store { volume, source })
    }

    /// Forgets a volume that nobody has mounted; one that is not there is forgotten already. Mounts that are out
    /// of reach do not count: there is nothing to take from them.
    pub async fn remove(self: &Arc<Self>, name: &str, engine: &str) -> Result<(), DriverError> {
        let Some(volume) = self.lookup(name) else { return Ok(()) };
        let (this, task_volume, engine) = (self.clone(), volume.clone(), engine.to_owned());
        let task = self.parts.tasks.spawn(async move { this.remove_now(&task_volume, &engine).await });
        task.await.unwrap_or(Err(DriverError::Internal { volume: volume.name.clone() }))
    }

    async fn remove_now(&self, volume: &Arc<Volume>, engine: &str) -> Result<(), DriverError> {
        let mut work = volume.work.lock().await;
        if work.removed {
            return Ok(());
        }
        if volume.is_live() && work.record.ledger.is_used_by(engine) {
            return Err(DriverError::InUse { volume: volume.name.clone(), mounts: work.record.ledger.count() });
        }
        // First, so that after a failure it can be asked for again.
        self.take_down(volume).await?;
        let store = |source| DriverError::Store { volume: volume.name.clone(), source };
        self.parts.store.remove(&volume.name).map_err(store)?;
        work.removed = true;
        lock(&self.volumes).remove(&volume.name);
        self.tell(Event::Removed(volume.name.clone()));
        tracing::info!(volume = %volume.name, "removed");
        Ok(())
    }

    /// Where the volume is mounted, if it is.
    pub fn path(&self, name: &str) -> Result<Option<PathBuf>, DriverError> {
        let volume = self.get(name)?;
        Ok(volume.mountpoint(self))
    }

    /// Every volume and where it is mounted, if it is.
    pub fn list(&self) -> Vec<(VolumeName, Option<PathBuf>)> {
        let volumes: Vec<_> = lock(&self.volumes).values().cloned().collect();
        volumes.iter().map(|volume| (volume.name.clone(), volume.mountpoint(self))).collect()
    }

    /// Where it is told what happens.
    pub fn events(&self) -> &Arc<Events> {
        &self.happenings
    }

    /// The reconcile loop turns: every ten seconds at least, whatever providers and the engine do.
    pub fn note_turn(&self) {
        *lock(&self.turned) = Some(Instant::now());
    }

    /// How long ago it did.
    pub fn since_turn(&self) -> Option<Duration> {
        lock(&self.turned).map(|at| at.elapsed())
    }

    /// What became of the last look at the engine's containers.
    pub fn note_engine(&self, tells: Result<(), String>) {
        *lock(&self.engine_tells) = Some(tells);
    }

    /// Why the newest settings are not in use, if so.
    pub fn settings_fault(&self) -> Option<String> {
        self.parts.cache.registry().refused()
    }

    /// How often versions are checked from now on, where a volume does not say.
    pub fn set_refresh(&self, refresh: Duration) {
        self.users.set_refresh(refresh);
        for volume in lock(&self.volumes).values().filter(|volume| volume.is_live()) {
            // Its next check may be due sooner, or be the first one.
            self.tell(Event::Joined(volume.name.clone()));
        }
        self.tell(Event::Interval);
    }

    fn parse(&self, options: &Options) -> Result<VolumeSpec, Faults> {
        let (spec, mut faults) = VolumeSpec::read(options);
        for id in spec.secrets() {
            // Without its parameters: what was written for one that is unknown may be a credential.
            let place = format_args!("{}: `{}://{}`", spec.options_for(&id), id.provider(), id.path());
            faults.note(self.parts.cache.registry().validate(&id), place);
        }
        faults.or(spec)
    }

    fn get(&self, name: &str) -> Result<Arc<Volume>, DriverError> {
        self.lookup(name).ok_or_else(|| DriverError::NoSuchVolume { volume: name.to_owned() })
    }

    fn lookup(&self, name: &str) -> Option<Arc<Volume>> {
        self.find(&name.parse().ok()?)
    }

    fn find(&self, name: &VolumeName) -> Option<Arc<Volume>> {
        lock(&self.volumes).get(name).cloned()
    }

    /// How often the secrets of `spec` are checked; `None` for never.
    fn interval(&self, spec: &VolumeSpec) -> Option<Duration> {
        self.users.interval_of(spec.refresh)
    }

    fn tell(&self, event: Event) {
        // The queue ends before the driver does, and then nobody is interested any more.
        let _ = self.parts.events.send(event);
    }
}

// === impl Volume ===

impl Volume {
    fn new(record: Record, spec: Result<VolumeSpec, String>) -> Arc<Self> {
        let seen = Seen { mounts: record.ledger.count(), generation: record.generation, ..Seen::default() };
        Arc::new(Self {
            name: record.name.clone(),
            created: record.created.clone(),
            spec,
            work: AsyncMutex::new(Work {
                record,
                removed: false,
                filled: None,
                was_brief: false,
                entered: Instant::now(),
            }),
            projection: Mutex::default(),
            seen: Mutex::new(seen),
        })
    }

    fn spec(&self) -> Result<&VolumeSpec, DriverError> {
        self.spec.as_ref().map_err(|fault| DriverError::invalid(self.name.as_str(), Faults::from(fault.clone())))
    }

    fn secrets(&self) -> BTreeSet<Arc<SecretId>> {
        self.spec.as_ref().map(VolumeSpec::secrets).unwrap_or_default()
    }

    fn is_live(&self) -> bool {
        lock(&self.seen).live.is_some()
    }

    fn mountpoint(&self, driver: &Driver) -> Option<PathBuf> {
        self.is_live().then(|| driver.parts.mounter.mountpoint(self.name.as_str()))
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under one of these locks leaves its contents whole: they are replaced, never edited in part.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod workbench;
