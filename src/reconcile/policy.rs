//! What is to be done to which container after a change: settings, options and labels, read strictly.

use crate::{
    docker::Container,
    faults::{self, Faults},
    settings::Settings,
    units,
    volume::OnRotate,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use toml::Table;

/// The table `[rotation]` of dso.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where neither the container's label nor the volume's option says.
    pub on_rotate: OnRotate,
    pub verify_timeout: Duration,
    pub on_failure: OnFailure,
    /// How long a container without a health check must run.
    pub settle: Duration,
    /// How often a container may be restarted or replaced within the window.
    pub restart_budget: u32,
    pub restart_window: Duration,
    /// Containers of a volume at a time, after the first.
    pub parallel: u32,
    /// The longest that a rollout may take; undoing it may take as long again.
    pub limit: Duration,
}

/// What becomes of the files when a container does not take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    #[default]
    Rollback,
    Keep,
}

/// What is to be done to one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub action: OnRotate,
    pub verify_timeout: Duration,
    pub on_failure: OnFailure,
    /// What is wrong with its labels, or with doing to it what they say; it is then left alone.
    pub fault: Option<String>,
}

/// Labels that begin with this are dso's.
const PREFIX: &str = "dso.";
const ON_ROTATE: &str = "dso.on-rotate";
const VERIFY_TIMEOUT: &str = "dso.verify-timeout";
const ON_FAILURE: &str = "dso.on-failure";
/// On containers that a rollout made: which rollout, and in place of which container.
pub const ROLLOUT: &str = "dso.rollout";
pub const REPLACES: &str = "dso.replaces";
const LABELS: [&str; 5] = [ON_ROTATE, VERIFY_TIMEOUT, ON_FAILURE, ROLLOUT, REPLACES];
const SWARM_TASK: &str = "com.docker.swarm.task.id";

// === impl Policy ===

impl Default for Policy {
    fn default() -> Self {
        Self {
            on_rotate: OnRotate::None,
            verify_timeout: Duration::from_secs(60),
            on_failure: OnFailure::Rollback,
            settle: Duration::from_secs(5),
            restart_budget: 3,
            restart_window: Duration::from_secs(600),
            parallel: 4,
            limit: Duration::from_secs(600),
        }
    }
}

impl Policy {
    /// Reads `[rotation]`. What is faulty has its default, and is told beside it.
    pub fn parse(table: Table) -> (Self, Faults) {
        let (mut policy, mut settings) = (Self::default(), Settings::new("[rotation]", table));
        if let Some(text) = settings.string("on_rotate") {
            match text.parse() {
                Ok(action) => policy.on_rotate = action,
                Err(fault) => drop(settings.wrong::<()>("on_rotate", &format!("is no action: {fault}"))),
            }
        }
        if let Some(text) = settings.string("on_failure") {
            match on_failure(&text) {
                Ok(choice) => policy.on_failure = choice,
                Err(fault) => drop(settings.wrong::<()>("on_failure", &fault)),
            }
        }
        for (key, into) in [
            ("verify_timeout", &mut policy.verify_timeout),
            ("settle", &mut policy.settle),
            ("restart_window", &mut policy.restart_window),
            ("limit", &mut policy.limit),
        ] {
            match settings.duration(key) {
                Some(time) if time.is_zero() => drop(settings.wrong::<()>(key, "must be more than 0")),
                Some(time) if time > LONGEST => drop(settings.wrong::<()>(key, "must be at most 1d")),
                Some(time) => *into = time,
                None => {}
            }
        }
        policy.restart_budget = settings.integer("restart_budget", 0..=1000).unwrap_or(policy.restart_budget);
        policy.parallel = settings.integer("parallel", 1..=64).unwrap_or(policy.parallel);
        let faults = settings.finish(|| ()).err().unwrap_or_default();
        (policy, faults)
    }

    /// What is to be done to `container`: its label goes before the volume's `option`, and that before the setting.
    pub fn wish(&self, option: Option<&OnRotate>, container: &Container) -> Wish {
        let mut faults = Faults::default();
        let label = |name: &str| container.labels.get(name).map(String::as_str);
        let mut wish = Wish {
            action: option.unwrap_or(&self.on_rotate).clone(),
            verify_timeout: self.verify_timeout,
            on_failure: self.on_failure,
            fault: None,
        };
        if let Some(text) = label(ON_ROTATE) {
            wish.action = faults.note(text.parse(), named(ON_ROTATE)).unwrap_or_default();
        }
        if let Some(text) = label(VERIFY_TIMEOUT) {
            wish.verify_timeout = faults.note(timeout(text), named(VERIFY_TIMEOUT)).unwrap_or_default();
        }
        if let Some(text) = label(ON_FAILURE) {
            let choice = on_failure(text).map_err(|fault| format!("`{text}` {fault}"));
            wish.on_failure = faults.note(choice, named(ON_FAILURE)).unwrap_or_default();
        }
        for name in container.labels.keys().filter(|name| name.starts_with(PREFIX) && !LABELS.contains(&name.as_str()))
        {
            faults.push(faults::unknown("label", name, LABELS));
        }
        if let Some(why) = impossible(&wish.action, container) {
            faults.push(why);
        }
        if !faults.is_empty() {
            (wish.action, wish.fault) = (OnRotate::None, Some(faults.to_string()));
        }
        wish
    }
}

/// Longer than anybody waits for a container; and an instant that far away can still be told.
const LONGEST: Duration = Duration::from_secs(86400);

fn named(label: &str) -> String {
    format!("label `{label}`")
}

fn timeout(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    match time {
        Duration::ZERO => Err("must be more than 0".into()),
        time if time > LONGEST => Err("must be at most 1d".into()),
        time => Ok(time),
    }
}

fn on_failure(text: &str) -> Result<OnFailure, String> {
    match text {
        "rollback" => Ok(OnFailure::Rollback),
        "keep" => Ok(OnFailure::Keep),
        _ => Err("must be `rollback` or `keep`".into()),
    }
}

/// Why this cannot be done to that container.
fn impossible(action: &OnRotate, container: &Container) -> Option<String> {
    let (restart, rolling) = (*action == OnRotate::Restart, *action == OnRotate::Rolling);
    if (restart || rolling) && container.labels.contains_key(SWARM_TASK) {
        return Some(format!(
            "`{action}` of a task: Swarm replaces its tasks itself; use `docker service update --force`"
        ));
    }
    if rolling && !container.dependents.is_empty() {
        let count = container.dependents.len();
        return Some(format!("`rolling`: {count} other container(s) use its namespaces, and would lose them with it"));
    }
    match &container.exclusive {
        Some(reason) if rolling && container.auto_remove => Some(format!(
            "`rolling`: it must be stopped first ({reason}), and with `--rm` it would then be gone for good: there would be no way back"
        )),
        _ => None,
    }
}
