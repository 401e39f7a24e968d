//! Files that are published and not verified yet: who is to be told of them, and when.

use super::{
    journal::{Course, Entry, Log, Rollout, Step, Trial},
    plan::Plan,
    report,
    rollout::{Action, Rollouts},
    run::{Pause, Run},
};
use crate::{docker::Container, driver::Shown, volume::VolumeName};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

// === impl Rollouts ===

impl Rollouts {
    /// Tells the containers of what was published.
    pub(super) async fn tell(
        &self,
        volume: &VolumeName,
        mut trial: Trial,
        shown: &Shown,
        published: (u64, SystemTime),
    ) -> Result<Action, Pause> {
        let is_same = trial.published.is_some_and(|(generation, _)| generation == published.0);
        trial.published = Some(published);
        let listed = self.runtime.containers(&BTreeSet::from([volume.to_string()])).await;
        let mut containers = listed.map_err(|error| Pause::Engine(error.to_string()))?;
        containers.retain(|container| !self.is_making(container));
        let plan = self.plan(volume, &containers, published.1);
        for (container, fault) in &plan.faults {
            tracing::error!(%volume, container, fault, "a container's labels are at fault: it is left alone");
        }
        if plan.targets.is_empty() && trial.told.is_empty() {
            return self.commit_untold(volume, &trial, shown).await;
        }
        let entries = entries(plan, std::mem::take(&mut trial.told), &containers, is_same);
        let rollout = Rollout {
            id: random_id(),
            target: shown.generation,
            to: shown.versions.clone(),
            began: self.now(),
            fresh: published.1,
            course: Course::Forward,
            entries,
        };
        if let Some(wait) = self.must_wait(&rollout.entries) {
            return self.put_off(volume, trial, rollout, wait).await;
        }
        let (begun, on) = (rollout.clone(), trial.clone());
        let begin = |log: &mut Log| (log.trial, log.rollout) = (Some(trial), Some(rollout));
        self.journal.write(volume, begin).await?;
        report::began(&self.driver, volume, &on, &begun);
        Run::resume(self, volume).await
    }

    /// There is nobody to be told.
    async fn commit_untold(&self, volume: &VolumeName, trial: &Trial, shown: &Shown) -> Result<Action, Pause> {
        self.driver.commit(volume).await?;
        self.end_trial(volume).await?;
        report::published(&self.driver, volume, trial, shown, self.now());
        Ok(Action::Done)
    }

    /// How long until the first of the containers may be told, where there are some and none may be now.
    fn must_wait(&self, entries: &[Entry]) -> Option<Duration> {
        let waiting: Vec<_> = entries.iter().filter(|entry| entry.step == Step::Waiting).collect();
        let waits = waiting.iter().map(|entry| if entry.restarts() { self.budget_wait(&entry.name) } else { None });
        waits.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    async fn put_off(
        &self,
        volume: &VolumeName,
        mut trial: Trial,
        rollout: Rollout,
        wait: Duration,
    ) -> Result<Action, Pause> {
        let ended = |entry: &Entry| entry.step.is_end();
        trial.told = rollout.entries.iter().filter(|entry| ended(entry)).cloned().collect();
        if self.trial(volume).as_ref() != Some(&trial) {
            self.journal.write(volume, |log| log.trial = Some(trial.clone())).await?;
            report::put_off(&self.driver, volume, &trial, &rollout, wait, self.now());
        }
        self.driver.explain(volume, Some(report::budget_reason(wait)));
        Ok(Action::After(wait))
    }
}

/// What a rollout begins with: what the plan says, and what an earlier rollout of the same trial has done, where that is
/// either still true or would have to be undone.
fn entries(plan: Plan, told: Vec<Entry>, containers: &[Container], is_same: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    for target in plan.targets {
        let earlier = told.iter().find(|entry| entry.runs_as() == target.id);
        match earlier.filter(|earlier| is_same && matches!(earlier.step, Step::Done | Step::Failed)) {
            Some(done) => entries.push(done.clone()),
            None => {
                let touched = earlier.is_some_and(|entry| entry.touched);
                entries.push(Entry { touched, ..Entry::new(target) });
            }
        }
    }
    let is_there = |entry: &Entry| containers.iter().any(|container| container.id == entry.runs_as());
    let is_planned = |entry: &Entry| entries.iter().any(|planned| planned.runs_as() == entry.runs_as());
    let others: Vec<_> =
        told.into_iter().filter(|entry| entry.touched && is_there(entry) && !is_planned(entry)).collect();
    entries.extend(others);
    entries
}

fn random_id() -> String {
    let mut bytes = [0; 8];
    // Without randomness there is nothing to be done; the time tells rollouts of one volume apart too.
    if getrandom::fill(&mut bytes).is_err() {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        bytes = u64::try_from(since.as_nanos()).unwrap_or_default().to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
