//! What the journal says of one volume. No values: versions, names and IDs alone.

use super::super::{
    plan::{Target, Way},
    policy::OnFailure,
};
use crate::{
    driver::Shown,
    volume::{OnRotate, VolumeName, records::Remembered},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime},
};

/// The format that this version writes; a file with another is set aside.
const FORMAT: u32 = 1;
/// How many decisions are remembered.
const REMEMBERED: usize = 20;

/// One volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: u32,
    pub volume: VolumeName,
    pub trial: Option<Trial>,
    pub rollout: Option<Rollout>,
    /// When containers were restarted or replaced for this volume's sake, by name.
    pub restarts: BTreeMap<String, Vec<SystemTime>>,
    /// The last ones, oldest first.
    pub decisions: VecDeque<Decision>,
}

/// Files that are, or may soon be, published and are not verified yet. Written before they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The generation to go back to, and the versions that it shows.
    pub base: u64,
    pub from: BTreeMap<String, String>,
    pub cause: String,
    /// The newest generation that was published on trial, once it is known, and a time at which it was.
    pub published: Option<(u64, SystemTime)>,
    /// What an earlier rollout of this trial has done, where some container had to wait.
    pub told: Vec<Entry>,
}

/// Containers are being told of files on trial, or of their end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Random; containers that it makes carry it as a label.
    pub id: String,
    pub target: u64,
    pub to: BTreeMap<String, String>,
    pub began: SystemTime,
    /// What started at this time or later has read the files.
    pub fresh: SystemTime,
    pub course: Course,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    Forward,
    /// The files are about to be taken back, for this reason.
    Reverting(String),
    /// Containers are being told that they were.
    Back(String),
    /// Something failed, and the files stay: its container alone is put back.
    Keeping(String),
}

/// One container in a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub id: String,
    pub name: String,
    /// As in `dso.on-rotate`.
    pub action: String,
    pub way: Way,
    pub verify_timeout: Duration,
    pub on_failure: OnFailure,
    pub judges: bool,
    pub step: Step,
    /// The container that takes its place.
    pub replacement: Option<String>,
    /// Whether something was done to it that has to be done again if the files are taken back.
    pub touched: bool,
    /// Whether it is being told of the files' return.
    pub back: bool,
    /// Whether it failed on the way forward: if it does not run, that is why.
    pub fell: bool,
    /// Whether a replacement was begun; whether the container that it replaces was given up; and whether, after a failure,
    /// everything that was done in its place is undone.
    pub replacing: bool,
    pub gave_up_old: bool,
    pub withdrawn: bool,
    /// What became of it, in words; first of the way forward, then of the way back.
    pub notes: Vec<String>,
    pub began: Option<SystemTime>,
    pub ended: Option<SystemTime>,
}

/// What is being done, or was done last. Each is written before what it says is done, so that it is done again, or found
/// done, by the next process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Waiting,
    /// A signal, a command or a restart, not before `at`.
    Acting {
        at: SystemTime,
        before: Baseline,
    },
    Verifying(Baseline),
    // Of a replacement, in the order of the way beside; in place `Stopping`, `SettingAside` come first, and `Removing` is the last.
    Creating,
    Starting,
    Proving(Baseline),
    Aliasing,
    ProvingAgain(Baseline),
    Stopping,
    SettingAside,
    Removing,
    Renaming,
    // How it ends.
    Done,
    Failed,
    /// Nothing had to be done, or there was nobody to do it to.
    Left,
    /// It was restarted too often lately.
    Deferred,
}

/// What a container's process is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Only health checks that began at this time or later count.
    pub since: SystemTime,
    pub started: Option<SystemTime>,
    pub restarts: u64,
}

/// How a change ended; for people, so its times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    pub from: u64,
    pub to: u64,
    pub from_versions: BTreeMap<String, String>,
    pub to_versions: BTreeMap<String, String>,
    pub cause: String,
    pub result: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub containers: Vec<Told>,
    pub began: String,
    pub ended: String,
}

/// What became of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    pub name: String,
    pub id: String,
    pub action: String,
    /// For a replacement: `beside`, or `in place` and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
    pub result: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

// === impl Log ===

impl Remembered for Log {
    const FORMAT: u32 = FORMAT;
    const WHAT: &'static str = "log";

    fn volume(&self) -> &VolumeName {
        &self.volume
    }
}

impl Log {
    pub fn new(volume: VolumeName) -> Self {
        let (restarts, decisions) = (BTreeMap::new(), VecDeque::new());
        Self { format: FORMAT, volume, trial: None, rollout: None, restarts, decisions }
    }

    pub fn remember(&mut self, decision: Decision) {
        self.decisions.push_back(decision);
        while self.decisions.len() > REMEMBERED {
            self.decisions.pop_front();
        }
    }

    /// Notes a restart, and forgets those that no budget asks for any more.
    pub fn count_restart(&mut self, name: &str, now: SystemTime, window: Duration) {
        self.restarts.entry(name.to_owned()).or_default().push(now);
        let recent = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age < window) || *at > now;
        self.restarts.values_mut().for_each(|times| times.retain(recent));
        self.restarts.retain(|_, times| !times.is_empty());
    }
}

// === impl Trial ===

impl Trial {
    pub fn of(shown: &Shown, cause: &str) -> Self {
        Self {
            base: shown.base.unwrap_or(shown.generation),
            from: shown.versions.clone(),
            cause: cause.to_owned(),
            published: None,
            told: Vec::new(),
        }
    }
}

// === impl Entry ===

impl Entry {
    pub fn new(target: Target) -> Self {
        Self {
            id: target.id,
            name: target.name,
            action: target.action.to_string(),
            way: target.way,
            verify_timeout: target.verify_timeout,
            on_failure: target.on_failure,
            judges: target.judges,
            step: Step::Waiting,
            replacement: None,
            touched: false,
            back: false,
            fell: false,
            replacing: false,
            gave_up_old: false,
            withdrawn: false,
            notes: Vec::new(),
            began: None,
            ended: None,
        }
    }

    /// The files are taken back: what was done to it is done again.
    pub fn turn_back(&mut self) {
        if !self.touched || self.is_half_replaced() {
            return;
        }
        self.id = self.runs_as().to_owned();
        self.fell = self.step == Step::Failed;
        (self.step, self.back, self.replacement) = (Step::Waiting, true, None);
        (self.replacing, self.gave_up_old, self.withdrawn) = (false, false, false);
    }

    /// Whether something is being made or moved in its place.
    pub fn is_replacing(&self) -> bool {
        self.replacing && !self.step.is_end()
    }

    /// Whether something was begun with it, and not ended.
    pub fn is_begun(&self) -> bool {
        (self.step != Step::Waiting && !self.step.is_end()) || self.is_half_replaced()
    }

    /// Whether it counts against the container's budget of restarts.
    pub fn restarts(&self) -> bool {
        self.is_replaced() || self.action == OnRotate::Restart.to_string()
    }

    /// The ID of the container that has its name now.
    pub fn runs_as(&self) -> &str {
        match &self.replacement {
            Some(replacement) if self.step == Step::Done => replacement,
            _ => &self.id,
        }
    }

    /// What became of it, for people.
    pub fn result(&self) -> String {
        let words: Vec<_> = std::iter::once(self.ended_as()).chain(self.notes.iter().map(String::as_str)).collect();
        words.join("; ")
    }

    /// The same without what was noted.
    pub fn ended_as(&self) -> &'static str {
        match (self.step, self.back, self.judges) {
            (Step::Done, true, _) => "told again",
            (Step::Done, false, true) => "verified",
            (Step::Done, false, false) => "told; it was not well before either, and proves nothing",
            (Step::Failed, ..) => "failed",
            (Step::Left, ..) => "left alone",
            (Step::Deferred, ..) => "deferred: its budget of restarts is used up",
            _ => "not told",
        }
    }

    pub fn is_replaced(&self) -> bool {
        self.way != Way::Itself
    }

    /// Whether a replacement of it failed, and what that left is not undone yet.
    pub fn is_half_replaced(&self) -> bool {
        self.replacing && self.step == Step::Failed && !self.withdrawn
    }

    /// Whether it condemns the files.
    pub fn condemns(&self) -> bool {
        self.step == Step::Failed && self.judges && !self.back
    }
}

// === impl Step ===

impl Step {
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Left | Self::Deferred)
    }
}
