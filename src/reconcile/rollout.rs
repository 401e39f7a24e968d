//! Tells containers of new files, and takes the files back where a container does not take them.
//!
//! # Guarantees
//! - Whatever is done is in the journal before it is done: a process that dies at any step is followed by one that finishes
//!   or undoes it.
//! - Files are published first; containers are told after, one first, the others once that one is well.
//! - A version that was taken back is not tried again before the provider has another one, or a person asks for it.
//! - No container is removed that is not this rollout's own by its labels, or replaced by one that is verified and runs.
//!
//! # Assumptions
//! - One call of [`Rollouts::reconcile`] for a volume at a time. It may be dropped at any point: that is as if the process died.
//!
//! # Caveats
//! - A signal or a command is sent again if the process died before it could note that it was: at least once, not exactly once.

use super::{
    budget,
    journal::{Journal, Trial},
    plan::{self, Plan},
    policy::{Policy, REPLACES, ROLLOUT},
    recipients, report,
    run::{Pause, Run},
    table::Table,
};
use crate::{
    docker::{Container, ContainerRuntime},
    driver::{Driver, DriverError, Refreshed},
    volume::{OnRotate, VolumeName},
};
use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{sync::Mutex as AsyncMutex, task::yield_now};

/// When to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// When something happens.
    Done,
    /// Something that may pass was in the way: soon, and then less and less soon.
    Retry,
    After(Duration),
}

/// Where a process that started after the files were published cannot be told from one that started before: the time in the
/// files' marker was taken just before they were.
const BLUR: Duration = Duration::from_secs(1);

/// How long after a mount the engine's word of its container may be on its way.
const UNHEARD: Duration = Duration::from_secs(2);

/// All rollouts.
pub struct Rollouts {
    pub(super) driver: Arc<Driver>,
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    policy: Mutex<Arc<Policy>>,
    pub(super) journal: Journal,
    pub(super) names: Names,
    table: Arc<Table>,
    /// Rollouts that this process has driven.
    driven: Mutex<BTreeSet<String>>,
    /// Volumes that were removed, and may be in the journal still.
    gone: Mutex<BTreeSet<VolumeName>>,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

/// A container may mount several volumes: whoever does something to it holds its name.
#[derive(Default)]
pub(super) struct Names(Mutex<HashMap<String, Arc<AsyncMutex<()>>>>);

// === impl Rollouts ===

impl Rollouts {
    /// Reads the journal in `dir`, and tells the driver of the last decisions: it has taken over its volumes by now.
    pub fn new(
        driver: Arc<Driver>,
        runtime: Arc<dyn ContainerRuntime>,
        policy: Policy,
        table: Arc<Table>,
        dir: impl Into<PathBuf>,
    ) -> io::Result<Self> {
        let (journal, names, driven) = (Journal::open(dir)?, Names::default(), Mutex::default());
        let (gone, policy) = (Mutex::default(), Mutex::new(Arc::new(policy)));
        for log in journal.all() {
            if driver.has(&log.volume) || journal.is_open(&log.volume) {
                report::recall(&driver, &log);
            } else if let Err(error) = journal.forget(&log.volume) {
                // Removed, and the process died before it could forget that: no reason not to start.
                tracing::error!(volume = %log.volume, %error, "the journal of a volume that is gone cannot be removed");
            }
        }
        Ok(Self { driver, runtime, policy, journal, names, table, driven, gone, clock: Arc::new(SystemTime::now) })
    }

    /// What holds from now on, also for what has begun.
    pub fn set_policy(&self, policy: Policy) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Volumes of which an earlier process, or this one, has begun something that is not ended: to be reconciled at a start.
    pub fn unfinished(&self) -> Vec<VolumeName> {
        self.journal.open_ones()
    }

    /// Whether something of the volume has begun and is not ended.
    pub fn is_unfinished(&self, volume: &VolumeName) -> bool {
        self.journal.is_open(volume)
    }

    /// The volume is gone: what is known of it is not another one's of the same name. It is forgotten by the next
    /// [`Rollouts::reconcile`], which nothing else of the volume runs beside.
    pub fn note_gone(&self, volume: &VolumeName) {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).insert(volume.clone());
    }

    /// What a change of the volume does to the container, and what is wrong with its labels.
    pub fn describe(&self, volume: &VolumeName, container: &Container) -> (OnRotate, Option<String>) {
        let wish = self.policy().wish(self.driver.on_rotate(volume).as_ref(), container);
        (wish.action, wish.fault)
    }

    /// Finishes what was begun, then makes what the volume shows what its providers have, and what its containers run with what
    /// it shows. `cause` is what a record says of why.
    pub async fn reconcile(&self, volume: &VolumeName, cause: &str) -> Action {
        if self.is_gone(volume)
            && let Err(pause) = self.forget(volume).await
        {
            tracing::warn!(%volume, %pause, "the rollout of a volume that was removed has to wait");
            return Action::Retry;
        }
        if !self.journal.is_open(volume) && !self.concerns(volume) {
            return self.refresh_alone(volume, cause).await;
        }
        match self.reconcile_with_containers(volume, cause).await {
            Ok(action) => action,
            Err(pause) => {
                let why = format!("its containers are not told of a change yet: {pause}");
                // Once: an engine may be absent for ever, and it is tried again every minute.
                match self.driver.explain(volume, Some(why)) {
                    true => tracing::warn!(%volume, %pause, "a rollout has to wait"),
                    false => tracing::debug!(%volume, %pause, "a rollout still has to wait"),
                }
                Action::Retry
            }
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// Whether some container may have to be told of a change. Nobody knows before the engine was asked, nor just after a mount
    /// that no container is known to have: one has begun, and the engine's word of it is on its way.
    fn concerns(&self, volume: &VolumeName) -> bool {
        let option = self.driver.on_rotate(volume);
        let policy = self.policy();
        let acted_on = |container: &Container| policy.wish(option.as_ref(), container).action != OnRotate::None;
        !self.table.is_complete()
            || self.driver.mounts_within(volume, UNHEARD) as usize > self.table.mounts(volume.as_str())
            || self.table.any(volume.as_str(), acted_on)
    }

    fn is_gone(&self, volume: &VolumeName) -> bool {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).contains(volume) || !self.driver.has(volume)
    }

    /// Ends what was begun for a volume that was removed, and forgets it.
    async fn forget(&self, volume: &VolumeName) -> Result<(), Pause> {
        if self.journal.has_rollout(volume) {
            Run::resume(self, volume).await?;
        }
        self.journal.forget(volume)?;
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).remove(volume);
        Ok(())
    }

    async fn refresh_alone(&self, volume: &VolumeName, cause: &str) -> Action {
        let before = self.driver.shown(volume);
        match self.driver.refresh(volume).await {
            Ok(Refreshed::Rotated { .. }) => {
                if let Some(before) = &before {
                    recipients::changed(&self.driver, &self.table, volume, &before.versions);
                }
                // What others are to show goes before the tidying up of what this one has shown.
                yield_now().await;
                if let Err(error) = self.driver.commit(volume).await {
                    tracing::error!(%volume, %error, "what was published could not be committed");
                }
                if let (Some(before), Some(after)) = (before, self.driver.shown(volume)) {
                    report::published(&self.driver, volume, &Trial::of(&before, cause), &after, self.now());
                }
                Action::Done
            }
            Ok(_) => Action::Done,
            Err(error) => after(&error),
        }
    }

    async fn reconcile_with_containers(&self, volume: &VolumeName, cause: &str) -> Result<Action, Pause> {
        if self.journal.has_rollout(volume) {
            Run::resume(self, volume).await?;
        }
        let Some(shown) = self.driver.shown(volume) else {
            // Nobody has it mounted: whoever mounts it next reads the newest.
            self.end_trial(volume).await?;
            return Ok(Action::Done);
        };
        if self.trial(volume).is_none() && self.driver.is_behind(volume) {
            self.journal.write(volume, |log| log.trial = Some(Trial::of(&shown, cause))).await?;
        }
        if let Some(trial) = self.trial(volume).filter(|trial| shown.generation > trial.base) {
            self.driver.hold(volume, trial.base).await?;
        }
        let refreshed = self.driver.refresh(volume).await;
        let now = self.now();
        let Some(after) = self.driver.shown(volume) else { return Ok(Action::Done) };
        let published = match &refreshed {
            Ok(Refreshed::Rotated { generation }) => {
                recipients::changed(&self.driver, &self.table, volume, &shown.versions);
                Some((*generation, now))
            }
            _ => None,
        };
        let trial = match self.trial(volume) {
            Some(trial) => trial,
            // A check came in between: it was not behind a moment ago.
            None if published.is_some() => Trial::of(&shown, cause),
            None => return Ok(refreshed.as_ref().err().map_or(Action::Done, self::after)),
        };
        if after.generation == trial.base {
            self.end_trial(volume).await?;
            return Ok(refreshed.as_ref().err().map_or(Action::Done, self::after));
        }
        let known = trial.published.filter(|(generation, _)| *generation == after.generation);
        let published = published.or(known).unwrap_or((after.generation, after.published + BLUR));
        let action = self.tell(volume, trial, &after, published).await?;
        Ok(match refreshed {
            // What is on trial is looked after; what comes next is not there yet.
            Err(error) if action == Action::Done => self::after(&error),
            _ => action,
        })
    }

    pub(super) fn plan(&self, volume: &VolumeName, containers: &[Container], fresh: SystemTime) -> Plan {
        plan::plan(&self.policy(), self.driver.on_rotate(volume).as_ref(), containers, volume, fresh)
    }

    /// How long until a container may be restarted again.
    pub(super) fn budget_wait(&self, name: &str) -> Option<Duration> {
        let (history, policy) = (self.journal.restarts_of(name), self.policy());
        budget::wait(history, policy.restart_budget, policy.restart_window, self.now())
    }

    /// Whether a rollout that is not ended made the container, to take another one's place.
    pub(super) fn is_making(&self, container: &Container) -> bool {
        self.journal.is_making(container.labels.get(ROLLOUT), container.labels.get(REPLACES))
    }

    /// Whether another process began the rollout; from now on it is this one's.
    pub(super) fn is_found(&self, rollout: &str) -> bool {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner).insert(rollout.to_owned())
    }

    pub(super) fn is_over(&self, rollout: &str) {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner).remove(rollout);
    }

    pub(super) fn trial(&self, volume: &VolumeName) -> Option<Trial> {
        self.journal.look(volume, |log| log.trial.clone())?
    }

    pub(super) async fn end_trial(&self, volume: &VolumeName) -> Result<(), Pause> {
        if self.trial(volume).is_some() {
            self.journal.write(volume, |log| log.trial = None).await?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn scripted(
        mut self,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
        gate: Arc<crate::docker::scripted::Gate>,
    ) -> Self {
        (self.clock, self.journal) = (Arc::new(clock), self.journal.guarded(gate));
        self
    }
}

// === impl Names ===

impl Names {
    pub fn of(&self, name: &str) -> Arc<AsyncMutex<()>> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, lock| Arc::strong_count(lock) > 1);
        names.entry(name.to_owned()).or_default().clone()
    }
}

/// A refresh that failed for good is looked at again after the next check, and costs nothing until then.
fn after(error: &DriverError) -> Action {
    if error.is_transient() { Action::Retry } else { Action::Done }
}

#[cfg(test)]
mod tests;
