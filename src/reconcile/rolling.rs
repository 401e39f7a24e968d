//! Replaces a container by one that is equal and healthy.
//!
//! Beside: the new one runs under a name of its own, becomes healthy, takes the old one's aliases, and is healthy still; then
//! the old one is stopped and removed, and the new one takes its name. In place, where two cannot live at once: the old one is stopped
//! and set aside whole, and removed when the new one is healthy. Until then there is a way back at every step.

use super::{
    apply::{Stop, was_stopped},
    journal::{Baseline, Course, Entry, Step},
    plan::Way,
    policy::{REPLACES, ROLLOUT},
    run::{Pause, Run},
};
use crate::docker::{Container, RuntimeError, State};
use std::collections::BTreeMap;

/// Digits of a rollout's ID in names.
const SHORT: usize = 8;

// === impl Run ===

impl Run<'_> {
    /// Does the entry's step, and notes the next one.
    pub(super) async fn replace(&self, index: usize, entry: &Entry) -> Result<(), Stop> {
        let next = match entry.step {
            Step::Stopping => self.stop_old(entry).await?,
            Step::SettingAside => self.set_aside(entry).await?,
            Step::Creating => return self.create(index, entry).await,
            Step::Starting => self.start_new(entry).await?,
            Step::Proving(baseline) => {
                self.prove(entry, baseline).await?;
                if entry.way == Way::Beside { Step::Aliasing } else { Step::Removing }
            }
            Step::Aliasing => self.alias(entry).await?,
            Step::ProvingAgain(baseline) => {
                self.prove(entry, baseline).await?;
                self.old_is_there(entry).await?;
                Step::Stopping
            }
            Step::Removing => self.remove_old(entry).await?,
            Step::Renaming => match self.take_name(entry).await {
                // The old one is gone, and this one is well: it stays, whatever it is called.
                Err(Stop::Failed(why)) => {
                    return Ok(self.end(index, Step::Done, Some(format!("it has another name: {why}"))).await?);
                }
                named => named?,
            },
            // The others are not of a replacement.
            other => other,
        };
        if next == Step::Done {
            return Ok(self.end(index, Step::Done, None).await?);
        }
        self.write(|rollout| {
            let entry = &mut rollout.entries[index];
            entry.step = next;
            entry.gave_up_old |= next == Step::Removing;
        })
        .await?;
        Ok(())
    }

    /// Goes on with what an earlier process left in the middle. The engine may have died with it, and its containers with the
    /// engine: a replacement that does not run is started and proves itself anew, and one that a person could have stopped is
    /// left alone.
    pub(super) async fn wake(&self, index: usize, entry: &Entry) -> Result<(), Stop> {
        if matches!(entry.step, Step::Verifying(_)) {
            let seen = self.inspect(&entry.id).await?;
            let is_down = seen.is_some_and(|seen| seen.state == State::Exited && was_stopped(&seen));
            return if is_down { Err(Stop::Left("it had stopped".into())) } else { Ok(()) };
        }
        let Some(id) = entry.replacement.as_deref().filter(|_| entry.is_replacing()) else { return Ok(()) };
        let Some(new) = self.inspect(id).await? else { return Ok(()) };
        if new.is_up() {
            return self.keep_old_stopped(entry).await;
        }
        let old = self.inspect(&entry.id).await?;
        match entry.step {
            // What it replaces is there no more: there is nothing left to prove.
            _ if old.is_none() => self.of_new(self.call(|| self.on.runtime.start(&new.id)).await),
            Step::Starting => Ok(()),
            _ => Ok(self.step(index, Step::Starting).await?),
        }
    }

    async fn stop_old(&self, entry: &Entry) -> Result<Step, Stop> {
        let in_place = entry.way != Way::Beside;
        if !in_place {
            self.still_runs(entry).await?;
        }
        match self.call(|| self.on.runtime.stop(&entry.id)).await {
            // With `--rm` it is gone as soon as it stops; and whoever removed it meanwhile has a healthy one in its place.
            Err(RuntimeError::Gone(_)) if !in_place => {}
            answer => self.tried(answer)?,
        }
        Ok(if in_place { Step::SettingAside } else { Step::Removing })
    }

    async fn set_aside(&self, entry: &Entry) -> Result<Step, Stop> {
        let Some(old) = self.inspect(&entry.id).await? else { return Err(Stop::Left("it is gone".into())) };
        let aside = self.aside(entry);
        if old.name != aside {
            self.tried(self.call(|| self.on.runtime.rename(&entry.id, &aside)).await)?;
        }
        Ok(Step::Creating)
    }

    async fn create(&self, index: usize, entry: &Entry) -> Result<(), Stop> {
        self.keep_old_stopped(entry).await?;
        let name = self.name_of_new(entry);
        // Of a process that died in the middle: it may lack networks, and never ran.
        if let Some(half_made) = self.tried(self.find_new(entry).await)? {
            self.tried(self.call(|| self.on.runtime.remove(&half_made.id)).await)?;
        }
        let labels = BTreeMap::from([(ROLLOUT.to_owned(), self.id()), (REPLACES.to_owned(), entry.id.clone())]);
        let aliased = entry.way != Way::Beside;
        let id = self.tried(self.call(|| self.on.runtime.replicate(&entry.id, &name, &labels, aliased)).await)?;
        let change = |entry: &mut Entry| (entry.replacement, entry.step) = (Some(id), Step::Starting);
        self.write(|rollout| change(&mut rollout.entries[index])).await?;
        Ok(())
    }

    async fn start_new(&self, entry: &Entry) -> Result<Step, Stop> {
        self.keep_old_stopped(entry).await?;
        let id = replacement(entry)?;
        let at = self.on.now();
        self.of_new(self.call(|| self.on.runtime.start(id)).await)?;
        let seen = self.new_one(entry).await?;
        let since = seen.started.unwrap_or(at);
        Ok(Step::Proving(Baseline { since, started: seen.started, restarts: seen.restarts }))
    }

    async fn prove(&self, entry: &Entry, baseline: Baseline) -> Result<(), Stop> {
        let id = replacement(entry)?;
        match self.verify(entry, id, baseline).await {
            Err(Stop::Left(why)) => Err(Stop::Failed(format!("its replacement: {why}"))),
            Err(Stop::Failed(why)) => Err(Stop::Failed(format!("its replacement: {why}"))),
            other => other,
        }
    }

    async fn alias(&self, entry: &Entry) -> Result<Step, Stop> {
        let id = replacement(entry)?;
        let seen = self.new_one(entry).await?;
        self.old_is_there(entry).await?;
        // Its own check, and then another one of what it is once it is reached: the new one never has less than both.
        self.of_new(self.call(|| self.on.runtime.take_aliases(id, &entry.id, &entry.name)).await)?;
        let since = self.on.now();
        Ok(Step::ProvingAgain(Baseline { since, started: seen.started, restarts: seen.restarts }))
    }

    async fn remove_old(&self, entry: &Entry) -> Result<Step, Stop> {
        self.still_runs(entry).await?;
        match self.call(|| self.on.runtime.remove(&entry.id)).await {
            Err(RuntimeError::Gone(_)) => {}
            answer => self.tried(answer)?,
        }
        Ok(if entry.way == Way::Beside { Step::Renaming } else { Step::Done })
    }

    async fn take_name(&self, entry: &Entry) -> Result<Step, Stop> {
        let id = replacement(entry)?;
        let seen = self.new_one(entry).await?;
        if seen.name != entry.name {
            self.of_new(self.call(|| self.on.runtime.rename(id, &entry.name)).await)?;
        }
        Ok(Step::Done)
    }

    /// Undoes a replacement that failed. May be repeated from its beginning at any point.
    pub(super) async fn withdraw(&self, index: usize) -> Result<(), Pause> {
        let entry = self.entry(index);
        let (mut old, mut note) = (None, None);
        match self.put_back(&entry).await {
            Ok(put_back) => old = Some(put_back),
            Err(Stop::Pause(pause)) => return Err(pause),
            Err(Stop::Failed(why)) => note = Some(format!("it could not be put back: {why}")),
            Err(Stop::Left(why)) => note = Some(why),
        }
        if let Some(note) = &note {
            tracing::error!(volume = %self.volume, container = entry.name, note, "a replacement could not be undone");
        }
        self.write(|rollout| {
            // Whoever started it, it has read the files that were on trial.
            let started = old.and_then(|old| old.started).filter(|started| *started > rollout.began);
            let is_back = rollout.course != Course::Forward;
            let has_read = started.is_some_and(|started| !is_back || started < rollout.fresh);
            let entry = &mut rollout.entries[index];
            (entry.withdrawn, entry.touched) = (true, has_read);
            entry.notes.extend(note);
            if matches!(rollout.course, Course::Back(_)) {
                entry.turn_back();
            }
        })
        .await
    }

    async fn put_back(&self, entry: &Entry) -> Result<Container, Stop> {
        let new = undone(self.find_new(entry).await)?;
        let old = undone(self.look(&entry.id).await)?;
        // Somebody removed the old one. In place, the new one is all that is left of it; beside, it was removed while it
        // served, and the new one is not wanted either.
        let is_last = old.is_none() && (entry.way != Way::Beside || entry.gave_up_old);
        if let Some(new) = new.as_ref().filter(|_| is_last) {
            undone(self.call(|| self.on.runtime.start(&new.id)).await)?;
            if new.name != entry.name {
                undone(self.call(|| self.on.runtime.rename(&new.id, &entry.name)).await)?;
            }
        } else if let Some(new) = new {
            undone(self.call(|| self.on.runtime.stop(&new.id)).await).or_else(or_gone)?;
            undone(self.call(|| self.on.runtime.remove(&new.id)).await).or_else(or_gone)?;
        }
        let Some(old) = old else { return Err(Stop::Left("it is gone".into())) };
        // First, and also where its name was taken meanwhile.
        undone(self.call(|| self.on.runtime.start(&old.id)).await)?;
        if old.name != entry.name {
            undone(self.call(|| self.on.runtime.rename(&old.id, &entry.name)).await)?;
        }
        undone(self.look(&old.id).await)?.ok_or_else(|| Stop::Left("it is gone".into()))
    }

    /// The replacement that this rollout made, and proves to be that by its labels.
    async fn find_new(&self, entry: &Entry) -> Result<Option<Container>, RuntimeError> {
        let rollout = self.id();
        let is_ours = |found: &Container| {
            found.labels.get(ROLLOUT) == Some(&rollout) && found.labels.get(REPLACES) == Some(&entry.id)
        };
        let by_id = match &entry.replacement {
            Some(id) => self.look(id).await?,
            None => None,
        };
        match by_id.filter(is_ours) {
            Some(found) => Ok(Some(found)),
            None => Ok(self.look(&self.name_of_new(entry)).await?.filter(is_ours)),
        }
    }

    async fn new_one(&self, entry: &Entry) -> Result<Container, Stop> {
        let found = self.inspect(replacement(entry)?).await?;
        found.ok_or_else(|| Stop::Failed("its replacement is gone".into()))
    }

    /// The old one is given up only for one that runs.
    async fn still_runs(&self, entry: &Entry) -> Result<(), Stop> {
        match self.new_one(entry).await?.is_up() {
            true => Ok(()),
            false => Err(Stop::Failed("its replacement does not run any more".into())),
        }
    }

    /// Whoever removed the old one while it served did not ask for another.
    async fn old_is_there(&self, entry: &Entry) -> Result<(), Stop> {
        match self.inspect(&entry.id).await? {
            Some(_) => Ok(()),
            None => Err(Stop::Left("it is gone".into())),
        }
    }

    /// An engine that starts starts with it what was stopped, if its restart policy is `always`.
    async fn keep_old_stopped(&self, entry: &Entry) -> Result<(), Stop> {
        if entry.way == Way::Beside {
            return Ok(());
        }
        match self.call(|| self.on.runtime.stop(&entry.id)).await {
            // It is kept for the case of a failure; somebody has removed it.
            Err(RuntimeError::Gone(_)) => Ok(()),
            answer => self.tried(answer),
        }
    }

    /// What is asked of the replacement: that it is gone is a failure.
    fn of_new<T>(&self, answer: Result<T, RuntimeError>) -> Result<T, Stop> {
        self.tried(answer).map_err(|stop| match stop {
            Stop::Left(_) => Stop::Failed("its replacement is gone".into()),
            other => other,
        })
    }

    /// The rollout's.
    fn id(&self) -> String {
        self.see(|rollout| rollout.id.clone())
    }

    fn name_of_new(&self, entry: &Entry) -> String {
        match entry.way {
            Way::Beside => format!("{}-dso-{}", entry.name, &self.id()[..SHORT]),
            _ => entry.name.clone(),
        }
    }

    fn aside(&self, entry: &Entry) -> String {
        format!("{}-dso-old-{}", entry.name, &self.id()[..SHORT])
    }
}

fn replacement(entry: &Entry) -> Result<&str, Stop> {
    entry.replacement.as_deref().ok_or_else(|| Stop::Failed("its replacement was not made".into()))
}

/// On the way back an engine that is out of reach is waited for, also within a rollout that goes forward.
fn undone<T>(answer: Result<T, RuntimeError>) -> Result<T, Stop> {
    answer.map_err(|error| match error {
        RuntimeError::Gone(_) => Stop::Left("it is gone".into()),
        RuntimeError::Unreachable(_) | RuntimeError::TimedOut { .. } => Stop::Pause(Pause::Engine(error.to_string())),
        RuntimeError::Refused { .. } => Stop::Failed(error.to_string()),
    })
}

fn or_gone(stop: Stop) -> Result<(), Stop> {
    match stop {
        Stop::Left(_) => Ok(()),
        stop => Err(stop),
    }
}
