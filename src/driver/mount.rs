//! Mount and unmount.
//!
//! # Guarantees
//! - The work is detached from the connection that asked. If that is gone when the work is done, the mount
//!   is taken back: the engine did not hear of it, and will not unmount it.
//! - Fails closed: no file without all files, nothing mounted after a failure.
//! - A mounted volume is given to the next container as it is, without asking the provider; the queue
//!   then looks whether it is still the newest.

use super::{Driver, DriverError, Event, Live, Volume, Work, lock, render, render::Secrets};
use crate::{
    faults::Faults,
    projection::{FileSet, Projection, ProjectionError, Versions},
    provider::ProviderError,
    secret::{Secret, SecretId},
    volume::{Ledger, MountId, Record, VolumeName, VolumeSpec},
};
use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// How long a mount may wait for providers. The engine itself gives up after two minutes, and at boot it
/// restores containers before its API answers.
pub(super) const LIMIT: Duration = Duration::from_secs(25);

/// A value confirmed within this is taken without asking again where `docker run` mounts, unmounts and mounts
/// again, and where a check is wanted at once.
pub(super) const FRESH: Duration = Duration::from_millis(500);

/// A mount that ended within this was the engine's look at `docker create`, and no container ran: that takes longer.
/// After one that ran the provider is asked, however soon: a person who rotates a secret and then starts a
/// container means the new value.
const BRIEF: Duration = Duration::from_millis(100);

/// For how long after it was first heard of a run of the engine may still be cleaning up after a crash.
const UNSETTLED: Duration = Duration::from_secs(120);

/// Contents that are written without another thread: well below a millisecond of copying.
const SMALL: usize = 256 << 10;

impl Driver {
    /// Mounts the volume for `id`, and fills it first if nobody has it mounted yet.
    pub async fn mount(self: &Arc<Self>, name: &str, id: MountId, engine: &str) -> Result<PathBuf, DriverError> {
        let volume = self.get(name)?;
        let (reply, outcome) = oneshot::channel();
        let (this, task_volume, engine) = (self.clone(), volume.clone(), engine.to_owned());
        self.parts.tasks.spawn(async move {
            let result = this.mount_now(&task_volume, &id, &engine).await;
            let mounted = result.is_ok();
            if reply.send(result).is_err() && mounted {
                tracing::info!(volume = %task_volume.name, mount = %id, "the engine hung up before it heard of the mount: taken back");
                if let Err(error) = this.unmount_now(&task_volume, &id).await {
                    tracing::error!(volume = %task_volume.name, %error, "cannot take the mount back");
                }
            }
        });
        // The reply is dropped unsent only by a panic, which the panic hook has logged.
        outcome.await.unwrap_or(Err(DriverError::Internal { volume: volume.name.clone() }))
    }

    /// Ends one mount by `id`, and takes the files away after the last one. An ID that was never seen is
    /// no fault: after a live restore the engine unmounts what an earlier process mounted.
    pub async fn unmount(self: &Arc<Self>, name: &str, id: &MountId) -> Result<(), DriverError> {
        let volume = self.get(name)?;
        let (this, task_volume, id) = (self.clone(), volume.clone(), id.clone());
        let task = self.parts.tasks.spawn(async move { this.unmount_now(&task_volume, &id).await });
        task.await.unwrap_or(Err(DriverError::Internal { volume: volume.name.clone() }))
    }

    async fn mount_now(&self, volume: &Arc<Volume>, id: &MountId, engine: &str) -> Result<PathBuf, DriverError> {
        let deadline = Instant::now() + LIMIT;
        let waiting = |waiting: String| timed_out(&volume.name, waiting);
        let mut work =
            timeout_at(deadline, volume.work.lock()).await.map_err(|_| waiting("an earlier request".into()))?;
        if work.removed {
            return Err(DriverError::NoSuchVolume { volume: volume.name.to_string() });
        }
        if !volume.is_live() && !work.record.ledger.is_empty() {
            // Containers have it, out of sight: this one is to have the same files.
            self.take_back_one(volume, &mut work).await;
        }
        let fresh = !volume.is_live();
        let result = match fresh {
            true => {
                let window = if work.was_brief { FRESH } else { Duration::ZERO };
                let fetched = timeout_at(deadline, self.fetch(volume, window)).await;
                match fetched.unwrap_or_else(|_| self.known(volume, || waiting(providers_of(volume)))) {
                    Ok((set, versions)) => self.project(volume, &mut work, set, versions).await,
                    Err(error) => Err(error),
                }
            }
            false => Ok(false),
        };
        let result = match result {
            Ok(_) if !self.is_seen_by(volume, engine).await => {
                Err(DriverError::OutOfSight { volume: volume.name.clone() })
            }
            Ok(anew) => self.enter(volume, &mut work, id, engine, anew),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                let event = if fresh { Event::Projected } else { Event::Joined };
                self.tell(event(volume.name.clone()));
                tracing::info!(volume = %volume.name, mount = %id, filled = fresh, "mounted");
                self.tell_mounted(volume, id, fresh);
                Ok(self.parts.mounter.mountpoint(volume.name.as_str()))
            }
            Err(error) => {
                if fresh {
                    // Whatever was made is taken away again, unless containers have it from an earlier process.
                    if work.record.ledger.is_empty()
                        && let Err(error) = self.take_down(volume).await
                    {
                        tracing::error!(volume = %volume.name, %error, "cannot clean up after a mount that failed");
                    }
                    lock(&volume.seen).error = Some(error.to_string());
                }
                tracing::error!(volume = %volume.name, mount = %id, %error, "mount failed");
                self.tell_mount_failed(volume, id, &error);
                Err(error)
            }
        }
    }

    pub(super) async fn unmount_now(&self, volume: &Arc<Volume>, id: &MountId) -> Result<(), DriverError> {
        let mut work = volume.work.lock().await;
        let mut record = work.record.clone();
        let known = record.ledger.release(id);
        let last = record.ledger.is_empty();
        // The engine does not ask again after a failure, so each half is done whatever becomes of the other; and an ID
        // that is unknown may be one whose unmount failed half way, so both are done again.
        let saved = self.save(volume, &mut work, record);
        if known && last {
            // A refresh that failed concerns nobody any more: `failed` means that a mount did.
            lock(&volume.seen).error = None;
        }
        let brief = work.filled.is_some_and(|filled| filled.elapsed() < BRIEF);
        work.was_brief = known && last && brief;
        let taken = if last { self.take_down(volume).await } else { Ok(()) };
        tracing::info!(volume = %volume.name, mount = %id, known, left = work.record.ledger.count(), "unmounted");
        self.tell_unmounted(volume, id, work.record.ledger.count());
        saved.and(taken)
    }

    /// The volume's files from their providers, or from the last known values where those may serve.
    /// A value confirmed within `window` is taken as it is.
    pub(super) async fn fetch(&self, volume: &Volume, window: Duration) -> Result<(FileSet, Versions), DriverError> {
        let spec = volume.spec()?;
        let (mut found, mut failed) = (Secrets::new(), Vec::new());
        let mut ask = Vec::new();
        for id in spec.secrets() {
            match self.parts.cache.fresh(&id, window) {
                Some(secret) => drop(found.insert(id, secret)),
                None => ask.push(id),
            }
        }
        let asked = self.parts.cache.get_all(ask, window).await;
        found.extend(asked.found);
        for (id, error) in asked.failed {
            match self.last_known(spec, &id, &error) {
                Some(secret) => {
                    tracing::warn!(volume = %volume.name, secret = %id, %error, "out of reach: mounting the last known good value");
                    found.insert(id, secret);
                }
                None => failed.push((id, error)),
            }
        }
        self.assemble(volume, spec, found, &failed)
    }

    /// The volume's files from last known values alone, after `late` providers; its error where one may not serve.
    fn known(&self, volume: &Volume, late: impl Fn() -> DriverError) -> Result<(FileSet, Versions), DriverError> {
        let spec = volume.spec()?;
        let mut found = Secrets::new();
        for id in spec.secrets() {
            let refused = self.parts.cache.known(&id).error.is_some_and(|error| !error.kind().is_transient());
            let held = self.parts.cache.last_known(&id, spec.max_stale).filter(|_| !refused).ok_or_else(&late)?;
            found.insert(id, held);
        }
        tracing::warn!(volume = %volume.name, "no answer in time: mounting the last known good values");
        self.assemble(volume, spec, found, &[])
    }

    /// The last value that its provider confirmed, where that is out of reach and the value not too old.
    fn last_known(&self, spec: &VolumeSpec, id: &Arc<SecretId>, error: &ProviderError) -> Option<Arc<Secret>> {
        error.kind().is_transient().then(|| self.parts.cache.last_known(id, spec.max_stale))?
    }

    /// The set of files, if every secret was found and every file can be made of them.
    pub(super) fn assemble(
        &self,
        volume: &Volume,
        spec: &VolumeSpec,
        found: Secrets,
        failed: &[(Arc<SecretId>, ProviderError)],
    ) -> Result<(FileSet, Versions), DriverError> {
        let error =
            |faults, kind, transient| DriverError::Secrets { volume: volume.name.clone(), faults, kind, transient };
        if !failed.is_empty() {
            let mut faults = Faults::default();
            for (id, fault) in failed {
                faults.push(format!("{}: `{id}`: {fault}", spec.options_for(id)));
            }
            let transient = failed.iter().all(|(_, error)| error.kind().is_transient());
            return Err(error(faults, failed.first().map(|(_, error)| error.kind()), transient));
        }
        let versions = found.iter().map(|(id, secret)| (id.to_string(), secret.version.clone())).collect();
        let set = render::render(spec, &found).map_err(|faults| error(faults, None, false))?;
        Ok((set, versions))
    }

    /// Gives the volume its tmpfs and its first files.
    async fn project(
        &self,
        volume: &Arc<Volume>,
        work: &mut Work,
        set: FileSet,
        versions: Versions,
    ) -> Result<bool, DriverError> {
        let spec = volume.spec()?;
        let (mounter, size, next) = (self.parts.mounter.clone(), spec.size, work.record.generation + 1);
        let (name, counted) = (volume.name.clone(), !work.record.ledger.is_empty());
        let bytes = bytes_of(&set);
        let made = self.on_files(volume, bytes, move |projection| {
            let name = name.as_str();
            // Containers have it, and the start could not take it over: now they get the new files too, if that works now.
            let adopted = counted.then(|| Projection::adopt(mounter.clone(), name, size).ok()).flatten();
            let (made, anew) = match adopted {
                Some(mut adopted) => {
                    adopted.replace(&set, versions)?;
                    (adopted, false)
                }
                None => {
                    // Left by an unmount that failed, or out of reach since `docker plugin disable -f`.
                    mounter.destroy(name).map_err(cannot_take_away)?;
                    (Projection::create(mounter, name, size, next, &set, versions)?, true)
                }
            };
            Ok((projection.insert(made).generation(), anew))
        });
        let (generation, anew) = made.await?;
        work.record.generation = generation;
        work.filled = Some(Instant::now());
        self.users.add(&volume.name, spec.secrets(), spec.refresh);
        let mut seen = lock(&volume.seen);
        seen.error = None;
        seen.live = live(volume);
        Ok(anew)
    }

    /// Whether the engine sees the mount; it is made to, if it does not. After a crash of its own it may unmount the folder
    /// of a plugin that it has just started again: what the plugin mounts from then on stays with the plugin. Looked at
    /// while that may happen, as it means reading all of the engine's mounts.
    async fn is_seen_by(&self, volume: &Arc<Volume>, engine: &str) -> bool {
        let pid = engine.split(':').next().and_then(|pid| pid.parse().ok());
        let Some(pid) = pid.filter(|_| self.is_new_engine(engine)) else { return true };
        let (mounter, name) = (self.parts.mounter.clone(), volume.name.clone());
        let look = move || {
            if mounter.reaches(name.as_str(), pid) {
                return true;
            }
            match mounter.reconnect(pid) {
                Ok(()) => tracing::warn!("the engine had unmounted the plugin's folder: mounted there again"),
                Err(error) => tracing::error!(%error, "the engine has unmounted the plugin's folder"),
            }
            mounter.reaches(name.as_str(), pid)
        };
        self.on_files(volume, 0, move |_| Ok(look())).await.unwrap_or(true)
    }

    /// Whether this run of the engine was heard of for the first time a short while ago.
    fn is_new_engine(&self, engine: &str) -> bool {
        let mut known = lock(&self.engine);
        match &*known {
            Some((run, since)) if run == engine => since.elapsed() < UNSETTLED,
            _ => {
                *known = Some((engine.to_owned(), Instant::now()));
                true
            }
        }
    }

    /// Counts the mount, on disk and in memory; in neither, if it fails. What was counted before the files were mounted
    /// anew holds others, which are out of reach: nobody may ever tell of their end, and these files do not wait for it.
    pub(super) fn enter(
        &self,
        volume: &Volume,
        work: &mut Work,
        id: &MountId,
        engine: &str,
        anew: bool,
    ) -> Result<(), DriverError> {
        let before = work.record.clone();
        let mut record = before.clone();
        if anew {
            record.ledger = Ledger::default();
        }
        record.ledger.enter_boot(&self.parts.boot);
        record.ledger.add(id, engine);
        work.entered = Instant::now();
        lock(&volume.seen).entered = Some(work.entered);
        self.save(volume, work, record).inspect_err(|_| {
            lock(&volume.seen).mounts = before.ledger.count();
            work.record = before;
        })
    }

    /// Makes `record` the volume's, on disk and in memory. Where the disk fails it is in memory alone, and gets to the disk
    /// with the next one.
    pub(super) fn save(&self, volume: &Volume, work: &mut Work, record: Record) -> Result<(), DriverError> {
        let saved = if work.removed { Ok(()) } else { self.parts.store.save_mounts(&record) };
        let mut seen = lock(&volume.seen);
        (seen.mounts, seen.generation) = (record.ledger.count(), record.generation);
        drop(seen);
        work.record = record;
        saved.map_err(|source| DriverError::Store { volume: volume.name.clone(), source })
    }

    /// Takes the volume's files away. The values of its secrets stay for `max-stale`.
    pub(super) async fn take_down(&self, volume: &Arc<Volume>) -> Result<(), DriverError> {
        self.users.remove(&volume.name, volume.secrets());
        {
            let mut seen = lock(&volume.seen);
            (seen.live, seen.left_behind) = (None, None);
        }
        let (mounter, name) = (self.parts.mounter.clone(), volume.name.clone());
        self.on_files(volume, 0, move |projection| {
            // Also what is mounted without a projection: leftovers of a failure or of an earlier process.
            drop(projection.take());
            mounter.destroy(name.as_str()).map_err(cannot_take_away)
        })
        .await
    }

    /// Runs work on the volume's files, which writes `bytes` of contents.
    ///
    /// Mounting and writing a few files in memory takes the kernel less time than handing it to another thread and
    /// waiting for that; only what is large goes to a thread that may block.
    pub(super) async fn on_files<T: Send + 'static>(
        &self,
        volume: &Arc<Volume>,
        bytes: usize,
        work: impl FnOnce(&mut Option<Projection>) -> Result<T, ProjectionError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let result = if bytes <= SMALL {
            work(&mut lock(&volume.projection))
        } else {
            let shared = volume.clone();
            let task = self.parts.tasks.spawn_blocking(move || work(&mut lock(&shared.projection)));
            task.await.map_err(|_| DriverError::Internal { volume: volume.name.clone() })?
        };
        result.map_err(|source| DriverError::Projection { volume: volume.name.clone(), source })
    }
}

/// What the files hold.
pub(super) fn bytes_of(set: &FileSet) -> usize {
    set.iter().map(|(_, file)| file.contents.len()).sum()
}

fn cannot_take_away(error: io::Error) -> ProjectionError {
    ProjectionError::Io { doing: "take the tmpfs away".into(), error }
}

/// What can be told of the projection, for those who only look.
pub(super) fn live(volume: &Volume) -> Option<Live> {
    let projection = lock(&volume.projection);
    let projection = projection.as_ref()?;
    let versions = projection.versions();
    let label = |ids: Vec<String>| {
        let mut labels: Vec<_> = ids.iter().filter_map(|id| Some(versions.get(id)?.label())).collect();
        labels.dedup();
        labels.join(",")
    };
    let spec = volume.spec.as_ref().ok()?;
    let files: BTreeMap<_, _> = projection
        .files()
        .map(|path| {
            let own = spec.files.get(path).map(|source| source.references());
            let references = own.unwrap_or_else(|| spec.from.iter().collect());
            (path.to_owned(), label(references.iter().map(|reference| reference.id.to_string()).collect()))
        })
        .collect();
    Some(Live { generation: projection.generation(), rotated: projection.rotated(), files })
}

pub(super) fn timed_out(volume: &VolumeName, waiting: String) -> DriverError {
    DriverError::TimedOut { volume: volume.clone(), waiting, limit: LIMIT.as_secs() }
}

pub(super) fn providers_of(volume: &Volume) -> String {
    let mut names: Vec<_> = volume.secrets().iter().map(|id| format!("provider `{}`", id.provider())).collect();
    names.dedup();
    names.join(", ")
}
