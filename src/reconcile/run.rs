//! One rollout, as its journal says: forward, or back. The one that begins and the one that is found are driven alike.

use super::{
    journal::{Course, Entry, Log, Rollout, Step, Trial},
    policy::{OnFailure, Policy},
    report,
    rollout::{Action, Rollouts},
};
use crate::{
    docker::{Container, RuntimeError},
    driver::DriverError,
    volume::VolumeName,
};
use futures_util::{StreamExt, stream};
use std::{collections::BTreeSet, io, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, sleep, timeout_at},
};

/// Why a rollout stands still; it goes on from where its journal says.
#[derive(Debug, Error)]
pub enum Pause {
    #[error("its journal cannot be written: {0}: is the disk of the engine's data root full?")]
    Journal(#[from] io::Error),
    #[error("{0}")]
    Engine(String),
    #[error("{0}")]
    Driver(#[from] DriverError),
    #[error("container `{container}` is in the hands of volume `{volume}`, whose rollout is not ended")]
    Busy { container: String, volume: VolumeName },
    #[error("the rollout of another volume has container `{container}` in hand")]
    Held { container: String },
}

/// A rollout that is being driven.
pub(super) struct Run<'a> {
    pub on: &'a Rollouts,
    pub volume: &'a VolumeName,
    /// As it was when this began, whatever the settings say meanwhile.
    pub policy: Arc<Policy>,
    /// Entries are written one at a time.
    writing: AsyncMutex<()>,
    /// When it has taken too long.
    pub deadline: Instant,
    course: Course,
    /// Whether another process began it, and this one has not driven it yet.
    pub is_found: bool,
}

/// Pause between two tries to reach the engine, or two looks at a container; grows to the second.
pub(super) const POLL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

// === impl Run ===

impl<'a> Run<'a> {
    /// Drives the volume's rollout from where its journal says to its end.
    pub async fn resume(on: &'a Rollouts, volume: &'a VolumeName) -> Result<Action, Pause> {
        loop {
            let Some(Log { trial: Some(trial), rollout: Some(rollout), .. }) = on.journal.read(volume) else {
                return Ok(Action::Done);
            };
            on.driver.keep(volume).await?;
            let is_found = on.is_found(&rollout.id);
            let (policy, course) = (on.policy(), rollout.course.clone());
            let deadline = Instant::now() + policy.limit;
            let run = Self { on, volume, policy, writing: AsyncMutex::default(), deadline, course, is_found };
            match &rollout.course {
                Course::Forward => {
                    run.forward().await?;
                    match run.verdict() {
                        None if run.is_proved() => return run.conclude("verified", None).await,
                        // Nobody who was well before has said so.
                        None => return run.conclude("unverified", None).await,
                        Some(course) => drop(run.write(|rollout| rollout.course = course).await?),
                    }
                }
                Course::Reverting(why) => run.turn_back(&trial, &rollout, why).await?,
                Course::Back(why) => {
                    run.each(run.entries_where(|entry| !entry.step.is_end() && entry.back || entry.is_half_replaced()))
                        .await?;
                    return run.conclude("rolled back", Some(why.clone())).await;
                }
                Course::Keeping(why) => {
                    run.each(run.entries_where(Entry::is_half_replaced)).await?;
                    return run.conclude("kept", Some(why.clone())).await;
                }
            }
        }
    }

    /// Another process may have published what is on trial.
    async fn hold(&self, trial: &Trial) -> Result<(), Pause> {
        let shown = self.on.driver.shown(self.volume);
        if shown.is_some_and(|shown| shown.base.is_none() && shown.generation > trial.base)
            && !self.on.driver.hold(self.volume, trial.base).await?
        {
            tracing::warn!(volume = %self.volume, generation = trial.base, "the generation to go back to is gone");
        }
        Ok(())
    }

    async fn forward(&self) -> Result<(), Pause> {
        // What an earlier process left in the middle first; what condemns the files is put back after they are.
        self.each(self.entries_where(|entry| entry.is_begun() && !entry.condemns())).await?;
        // One canary: the first that can tell whether the files are good.
        let waits = |entry: &Entry| entry.step == Step::Waiting;
        while !self.is_condemned() && !self.is_proved() {
            let Some(next) = self.entries_where(|entry| waits(entry) && entry.judges).first().copied() else { break };
            if Instant::now() >= self.deadline {
                break;
            }
            self.container(next).await?;
        }
        self.each(self.entries_where(waits)).await
    }

    /// Each of `indices`, some at a time; none is begun once the files are condemned or it has taken too long.
    async fn each(&self, indices: Vec<usize>) -> Result<(), Pause> {
        let parallel = self.policy.parallel as usize;
        let one = |index: usize| async move {
            let forward =
                self.course == Course::Forward && self.see(|rollout| rollout.entries[index].step == Step::Waiting);
            if forward && (self.is_condemned() || Instant::now() >= self.deadline) {
                return Ok(());
            }
            self.container(index).await
        };
        let ended: Vec<_> = stream::iter(indices).map(one).buffer_unordered(parallel).collect().await;
        ended.into_iter().collect()
    }

    fn is_condemned(&self) -> bool {
        self.has(Entry::condemns)
    }

    fn is_proved(&self) -> bool {
        self.has(|entry| entry.judges && entry.step == Step::Done)
    }

    /// Whether the files must be taken back, and why.
    fn verdict(&self) -> Option<Course> {
        let entries = self.see(|rollout| rollout.entries.clone());
        let why = |entry: &Entry| {
            let reason = entry.notes.last().map_or("failed", String::as_str);
            format!("container `{}`, {}: {reason}", entry.name, entry.action)
        };
        let failed: Vec<_> = entries.iter().filter(|entry| entry.condemns()).collect();
        if let Some(first) = failed.iter().find(|entry| entry.on_failure == OnFailure::Rollback) {
            return Some(Course::Reverting(why(first)));
        }
        if let Some(first) = failed.first() {
            return Some(Course::Keeping(why(first)));
        }
        let left = entries.iter().filter(|entry| entry.step == Step::Waiting && entry.judges).count();
        let limit = humantime::format_duration(self.policy.limit);
        (left > 0).then(|| Course::Reverting(format!("{left} container(s) could not be told within {limit}")))
    }

    /// Takes the files back, and finds whom to tell.
    async fn turn_back(&self, trial: &Trial, rollout: &Rollout, why: &str) -> Result<(), Pause> {
        self.hold(trial).await?;
        if let Err(lost) = self.revert(trial, why).await {
            // Containers are put back, but there is nothing to tell them of.
            let why = format!("{why}; the files could not be taken back: {lost}");
            self.write(|rollout| rollout.course = Course::Keeping(why)).await?;
            return Ok(());
        }
        let now = self.on.now();
        let listed =
            self.call(|| async { self.on.runtime.containers(&BTreeSet::from([self.volume.to_string()])).await });
        let listed = listed.await.map_err(|error| Pause::Engine(error.to_string()))?;
        let others = self.started_since(&listed, rollout);
        let is_new = |container: &&Container| container.started.is_some_and(|started| started >= rollout.fresh);
        let restarted: BTreeSet<_> = listed.iter().filter(is_new).map(|container| container.id.clone()).collect();
        self.write(|rollout| {
            rollout.course = Course::Back(why.to_owned());
            rollout.fresh = now;
            for entry in &mut rollout.entries {
                // Also what was started again by somebody else while they were on trial.
                entry.touched |= restarted.contains(&entry.id) && !entry.is_half_replaced();
                entry.turn_back();
            }
            rollout.entries.extend(others);
        })
        .await?;
        Ok(())
    }

    async fn revert(&self, trial: &Trial, why: &str) -> Result<(), String> {
        match self.on.driver.shown(self.volume) {
            None => Err("nobody has the volume mounted any more".into()),
            // An earlier process did, and died before it could write that.
            Some(shown) if shown.generation == trial.base => {
                self.on.driver.explain(self.volume, Some(why.to_owned()));
                Ok(())
            }
            Some(shown) if shown.base != Some(trial.base) => Err("the generation before is gone".into()),
            Some(_) => self.on.driver.revert(self.volume, why).await.map(drop).map_err(|error| error.to_string()),
        }
    }

    /// Containers that began to run while the files were on trial, and have read them.
    fn started_since(&self, listed: &[Container], rollout: &Rollout) -> Vec<Entry> {
        let known =
            |id: &str| rollout.entries.iter().any(|entry| entry.id == id || entry.replacement.as_deref() == Some(id));
        let has_read = |container: &&Container| {
            container.started.is_some_and(|started| started >= rollout.fresh)
                && !self.on.is_making(container)
                && !known(&container.id)
        };
        let have: Vec<_> = listed.iter().filter(has_read).cloned().collect();
        let targets = self.on.plan(self.volume, &have, self.on.now()).targets;
        targets.into_iter().map(|target| Entry { touched: true, back: true, ..Entry::new(target) }).collect()
    }

    /// The files stay as they are now; what was done is reported and remembered.
    async fn conclude(&self, result: &str, reason: Option<String>) -> Result<Action, Pause> {
        let driver = &self.on.driver;
        let Some(Log { trial: Some(mut trial), rollout: Some(rollout), .. }) = self.on.journal.read(self.volume) else {
            return Ok(Action::Done);
        };
        // Those that were not well before may be left when time is up: the next rollout goes on with them.
        let untold = rollout.entries.iter().filter(|entry| matches!(entry.step, Step::Deferred | Step::Waiting));
        let waits = untold.map(|entry| match entry.step {
            Step::Deferred => self.on.budget_wait(&entry.name).unwrap_or_default(),
            _ => Duration::ZERO,
        });
        let wait = waits.min().filter(|_| rollout.course == Course::Forward);
        let (result, reason) = match wait {
            Some(Duration::ZERO) => ("deferred", Some("not every container could be told in time".into())),
            Some(wait) => ("deferred", Some(report::budget_reason(wait))),
            None => (result, reason),
        };
        let (now, rollout_id) = (self.on.now(), rollout.id.clone());
        let decision = report::decision(&trial, &rollout, result, reason.clone(), now);
        if wait.is_none() {
            driver.commit(self.volume).await?;
        }
        driver.let_go(self.volume).await?;
        self.on
            .journal
            .write(self.volume, |log| {
                trial.told = rollout.entries.into_iter().filter(|entry| entry.touched).collect();
                (log.trial, log.rollout) = (wait.map(|_| trial), None);
                log.remember(decision.clone());
            })
            .await?;
        self.on.is_over(&rollout_id);
        let explained = match (result, reason) {
            ("verified" | "unverified", _) => None,
            ("kept", Some(why)) => Some(format!("the new files stay, but {why}")),
            ("rolled back", Some(why)) => Some(report::taken_back(&why)),
            (_, why) => why,
        };
        driver.explain(self.volume, explained);
        report::tell(driver, self.volume, &decision);
        Ok(wait.map_or(Action::Done, Action::After))
    }

    /// Asks the engine; waits for one that is out of reach until the rollout has taken too long.
    pub async fn call<T, F: Future<Output = Result<T, RuntimeError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, RuntimeError> {
        let mut pause = POLL.0;
        loop {
            let answer = timeout_at(self.deadline, call()).await;
            match answer.unwrap_or_else(|_| Err(self.too_long())) {
                Err(error) if error.is_transient() && Instant::now() + pause < self.deadline => sleep(pause).await,
                answer => return answer,
            }
            pause = (pause * 2).min(POLL.1);
        }
    }

    pub fn too_long(&self) -> RuntimeError {
        RuntimeError::TimedOut { doing: "the rollout".into(), seconds: self.policy.limit.as_secs() }
    }

    pub fn is_forward(&self) -> bool {
        self.course == Course::Forward
    }

    pub async fn write(&self, change: impl FnOnce(&mut Rollout)) -> Result<(), Pause> {
        self.write_log(|log| {
            if let Some(rollout) = &mut log.rollout {
                change(rollout);
            }
        })
        .await
    }

    pub async fn write_log(&self, change: impl FnOnce(&mut Log)) -> Result<(), Pause> {
        let _one = self.writing.lock().await;
        self.on.journal.write(self.volume, change).await?;
        Ok(())
    }

    /// What `see` sees in the rollout. Copies nothing.
    pub fn see<T>(&self, see: impl FnOnce(&Rollout) -> T) -> T {
        // Only this run takes it away, at its end.
        let seen = self.on.journal.look(self.volume, |log| log.rollout.as_ref().map(see));
        seen.flatten().unwrap_or_else(|| unreachable!("a rollout that is being driven is in the journal"))
    }

    pub fn entry(&self, index: usize) -> Entry {
        self.see(|rollout| rollout.entries[index].clone())
    }

    fn has(&self, wanted: impl Fn(&Entry) -> bool) -> bool {
        self.see(|rollout| rollout.entries.iter().any(wanted))
    }

    fn entries_where(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<usize> {
        let numbered = |rollout: &Rollout| {
            let found = rollout.entries.iter().enumerate().filter(|(_, entry)| wanted(entry));
            found.map(|(index, _)| index).collect()
        };
        self.see(numbered)
    }
}
