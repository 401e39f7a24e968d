//! One container of a rollout, from the step that its journal says to its end.

use super::{
    journal::{Baseline, Entry, Step},
    plan::Way,
    policy::REPLACES,
    report,
    run::{POLL, Pause, Run},
    verify::{self, Verdict},
};
use crate::{
    docker::{Container, RuntimeError, State},
    volume::OnRotate,
};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Why a container goes no further.
pub(super) enum Stop {
    Failed(String),
    /// There is nobody to be told.
    Left(String),
    Pause(Pause),
}

impl From<Pause> for Stop {
    fn from(pause: Pause) -> Self {
        Self::Pause(pause)
    }
}

/// How long a container that has ended may take to be removed by whoever stopped it.
const REMOVAL: Duration = Duration::from_secs(2);

// === impl Run ===

impl Run<'_> {
    /// Brings the entry to its end.
    pub async fn container(&self, index: usize) -> Result<(), Pause> {
        let entry = self.entry(index);
        let name = self.on.names.of(&entry.name);
        let Ok(_held) = timeout_at(self.deadline, name.lock()).await else {
            return Err(Pause::Held { container: entry.name });
        };
        if let Some(volume) = self.on.journal.in_hand(&entry.name, self.volume) {
            return Err(Pause::Busy { container: entry.name, volume });
        }
        if entry.is_half_replaced() {
            self.withdraw(index).await?;
        }
        let woken = if self.is_found && entry.is_begun() { self.wake(index, &entry).await } else { Ok(()) };
        let ended = match woken {
            Ok(()) => self.advance(index).await,
            stopped => stopped,
        };
        match ended {
            Ok(()) => Ok(()),
            Err(Stop::Left(why)) => self.leave(index, why).await,
            Err(Stop::Failed(why)) => self.fail(index, why).await,
            Err(Stop::Pause(pause)) => Err(pause),
        }
    }

    async fn advance(&self, index: usize) -> Result<(), Stop> {
        loop {
            let entry = self.entry(index);
            match entry.step {
                step if step.is_end() => return Ok(()),
                Step::Waiting => self.begin(index, &entry).await?,
                Step::Acting { at, before } => self.act(index, &entry, at, before).await?,
                Step::Verifying(baseline) => {
                    self.verify(&entry, &entry.id, baseline).await?;
                    self.end(index, Step::Done, None).await?;
                }
                _ => self.replace(index, &entry).await?,
            }
        }
    }

    /// Looks again, since the container may have been with another rollout, and notes what is done first.
    async fn begin(&self, index: usize, entry: &Entry) -> Result<(), Stop> {
        let Some(seen) = self.find(entry).await? else { return Err(Stop::Left("it is gone".into())) };
        let (now, fresh) = (self.on.now(), self.see(|rollout| rollout.fresh));
        let before = Baseline { since: now, started: seen.started, restarts: seen.restarts };
        let runs = seen.state == State::Running;
        if !runs && !(entry.back && (entry.fell || seen.state == State::Restarting)) {
            let why = match seen.state {
                State::Paused => "it is paused: it is not told before the files change again",
                _ => "it does not run",
            };
            return Err(Stop::Left(why.into()));
        }
        let is_new = runs && seen.started.is_some_and(|started| started >= fresh);
        if !is_new && entry.restarts() && !entry.back && self.on.budget_wait(&entry.name).is_some() {
            return Ok(self.end(index, Step::Deferred, None).await?);
        }
        let step = match &entry.way {
            // Its process began after the change, whoever started it.
            _ if is_new => Step::Verifying(Baseline { since: seen.started.unwrap_or(now), ..before }),
            Way::Itself => Step::Acting { at: now, before },
            Way::Beside => Step::Creating,
            Way::InPlace(_) => Step::Stopping,
        };
        let window = self.policy.restart_window;
        self.write_log(|log| {
            if !is_new && entry.restarts() {
                log.count_restart(&entry.name, now, window);
            }
            let Some(rollout) = &mut log.rollout else { return };
            let entry = &mut rollout.entries[index];
            (entry.step, entry.touched, entry.began) = (step, true, Some(now));
            entry.replacing = matches!(step, Step::Creating | Step::Stopping);
            entry.id = seen.id;
        })
        .await?;
        Ok(())
    }

    /// The container, or the one that another volume's rollout has put in its place.
    async fn find(&self, entry: &Entry) -> Result<Option<Container>, Stop> {
        let found = self.inspect(&entry.id).await?;
        if found.is_some() {
            return Ok(found);
        }
        let named = self.inspect(&entry.name).await?;
        Ok(named.filter(|named| named.labels.get(REPLACES) == Some(&entry.id)))
    }

    async fn act(&self, index: usize, entry: &Entry, at: std::time::SystemTime, before: Baseline) -> Result<(), Stop> {
        let action: OnRotate = entry.action.parse().unwrap_or_default();
        let Some(seen) = self.inspect(&entry.id).await? else { return Err(Stop::Left("it is gone".into())) };
        let (runs, is_restart) = (seen.state == State::Running, action == OnRotate::Restart);
        match action {
            // An earlier process did it and died, or the container died and is brought back.
            _ if runs && seen.started > before.started && seen.started.is_some_and(|started| started > at) => {}
            OnRotate::Restart if seen.is_up() => self.tried(self.call(|| self.on.runtime.restart(&entry.id)).await)?,
            OnRotate::Restart => self.tried(self.call(|| self.on.runtime.start(&entry.id)).await)?,
            // It fell when it was told: it is brought back whatever was to be done to it.
            _ if !runs && entry.back => self.tried(self.call(|| self.on.runtime.restart(&entry.id)).await)?,
            // It ran a moment ago, unless another process wrote that: either it did not survive what it was told, or a
            // person stopped it since.
            _ if !runs && was_stopped(&seen) => return Err(Stop::Left("it had stopped".into())),
            _ if !runs => return Err(Stop::Failed(format!("its process ended with {}", seen.exit_code))),
            OnRotate::Signal(name) => {
                let sent = self.tried(self.call(|| self.on.runtime.signal(&entry.id, &name)).await);
                self.unless_stopped(entry, sent).await?;
            }
            OnRotate::Exec(command) => {
                let ended = self.exec(entry, &command).await;
                self.unless_stopped(entry, ended).await?;
            }
            OnRotate::None | OnRotate::Rolling => {}
        }
        let Some(after) = self.inspect(&entry.id).await? else { return Err(Stop::Left("it is gone".into())) };
        let is_new = after.started > before.started;
        let baseline = Baseline {
            since: after.started.filter(|_| is_new).unwrap_or_else(|| self.on.now()),
            started: after.started,
            // Who was only told must still be the same process; the engine counts anew for one that was started.
            restarts: if runs && !is_restart { before.restarts } else { after.restarts },
        };
        Ok(self.step(index, Step::Verifying(baseline)).await?)
    }

    /// What cannot be told because a person stopped it meanwhile says nothing of the files.
    async fn unless_stopped(&self, entry: &Entry, told: Result<(), Stop>) -> Result<(), Stop> {
        let Err(Stop::Failed(why)) = told else { return told };
        match self.inspect(&entry.id).await? {
            Some(seen) if seen.state == State::Exited && was_stopped(&seen) => Err(Stop::Left("it had stopped".into())),
            _ => Err(Stop::Failed(why)),
        }
    }

    async fn exec(&self, entry: &Entry, command: &[String]) -> Result<(), Stop> {
        let call = || self.on.runtime.exec(&entry.id, command, entry.verify_timeout);
        let ended = self.tried(self.call(call).await)?;
        match ended.exit_code {
            0 => Ok(()),
            code if ended.stderr.trim().is_empty() => Err(Stop::Failed(format!("the command ended with {code}"))),
            code => Err(Stop::Failed(format!("the command ended with {code}: {}", ended.stderr.trim()))),
        }
    }

    /// Waits until the container with this ID is well, or it is too late.
    pub async fn verify(&self, entry: &Entry, id: &str, mut baseline: Baseline) -> Result<(), Stop> {
        let deadline = (Instant::now() + entry.verify_timeout).min(self.deadline);
        let settle = self.policy.settle.min(entry.verify_timeout);
        let (mut pause, mut since, mut stopped) = (POLL.0, Instant::now(), None);
        loop {
            let Some(seen) = self.inspect(id).await? else { return Err(Stop::Left("it is gone".into())) };
            let process = baseline.started;
            let verdict = verify::judge(&seen, &mut baseline);
            if baseline.started != process {
                since = Instant::now();
            }
            match verdict {
                Verdict::Well => return Ok(()),
                Verdict::Running if since.elapsed() >= settle => return Ok(()),
                Verdict::Running | Verdict::Undecided => stopped = None,
                Verdict::Stopped if entry.restarts() => return Err(Stop::Left("a person stopped it".into())),
                // Whoever stopped it may be about to remove it: then it says nothing of the files.
                Verdict::Stopped | Verdict::Failed(_) if is_ended(&seen) => {
                    if stopped.get_or_insert_with(Instant::now).elapsed() >= REMOVAL {
                        return Err(Stop::Failed(format!("its process ended with {}", seen.exit_code)));
                    }
                }
                Verdict::Stopped => stopped = None,
                Verdict::Failed(why) => return Err(Stop::Failed(why)),
            }
            if Instant::now() >= deadline {
                return Err(Stop::Failed(verify::late(&seen, baseline.since, entry.verify_timeout)));
            }
            sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(POLL.1);
        }
    }

    pub async fn inspect(&self, container: &str) -> Result<Option<Container>, Stop> {
        self.tried(self.look(container).await)
    }

    pub async fn look(&self, container: &str) -> Result<Option<Container>, RuntimeError> {
        self.call(|| self.on.runtime.inspect(container)).await
    }

    /// An engine that is out of reach is a failure on the way forward, and waited for on the way back.
    pub fn tried<T>(&self, answer: Result<T, RuntimeError>) -> Result<T, Stop> {
        answer.map_err(|error| match error {
            RuntimeError::Gone(_) => Stop::Left("it is gone".into()),
            error if error.is_transient() && !self.is_forward() => Stop::Pause(Pause::Engine(error.to_string())),
            error => Stop::Failed(error.to_string()),
        })
    }

    pub async fn step(&self, index: usize, step: Step) -> Result<(), Pause> {
        self.write(|rollout| rollout.entries[index].step = step).await
    }

    pub async fn end(&self, index: usize, step: Step, note: Option<String>) -> Result<(), Pause> {
        let now = self.on.now();
        self.write(|rollout| {
            let entry = &mut rollout.entries[index];
            (entry.step, entry.ended) = (step, Some(now));
            entry.notes.extend(note);
        })
        .await?;
        report::container(&self.on.driver, self.volume, &self.entry(index));
        Ok(())
    }

    async fn leave(&self, index: usize, why: String) -> Result<(), Pause> {
        if !self.see(|rollout| rollout.entries[index].is_replacing()) {
            return self.end(index, Step::Left, Some(why)).await;
        }
        // It says nothing of the files; but what was made in its place is to be looked after.
        self.write(|rollout| rollout.entries[index].judges = false).await?;
        self.fail(index, why).await
    }

    async fn fail(&self, index: usize, why: String) -> Result<(), Pause> {
        self.end(index, Step::Failed, Some(why)).await?;
        let entry = self.entry(index);
        // What condemns the files is put back once they are what they were.
        match entry.is_half_replaced() && !entry.condemns() {
            true => self.withdraw(index).await,
            false => Ok(()),
        }
    }
}

/// Whether it ended as `docker stop` and `docker kill` end a container.
pub(super) fn was_stopped(seen: &Container) -> bool {
    const SIGKILL: i64 = 128 + 9;
    const SIGTERM: i64 = 128 + 15;
    matches!(seen.exit_code, 0 | SIGKILL | SIGTERM)
}

fn is_ended(seen: &Container) -> bool {
    matches!(seen.state, State::Exited | State::Dead | State::Removing)
}
