//! From what is wanted and what is observed to what is done to which container. Pure.

use super::policy::{OnFailure, Policy};
use crate::{
    docker::{Container, HealthStatus, State},
    volume::{OnRotate, VolumeName},
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// What a rollout does, in this order; the first that can judge the new files is the canary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub targets: Vec<Target>,
    /// Containers whose labels are at fault, by name: nothing is done to them.
    pub faults: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub id: String,
    pub name: String,
    /// Never `none`.
    pub action: OnRotate,
    pub way: Way,
    pub verify_timeout: Duration,
    pub on_failure: OnFailure,
    /// Whether it was well before, and so may condemn the new files.
    pub judges: bool,
}

/// How it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// To the container itself.
    Itself,
    /// Its replacement becomes healthy beside it.
    Beside,
    /// It is stopped first, and kept: two of them cannot live at once, for this reason.
    InPlace(String),
}

/// What is done to the containers of `volume`, which shows files that any process started at `fresh` or later has read.
pub fn plan(
    policy: &Policy,
    option: Option<&OnRotate>,
    containers: &[Container],
    volume: &VolumeName,
    fresh: SystemTime,
) -> Plan {
    let mut plan = Plan::default();
    for container in containers.iter().filter(|container| container.mounts(volume.as_str())) {
        let wish = policy.wish(option, container);
        if let Some(fault) = wish.fault {
            plan.faults.push((container.name.clone(), fault));
        }
        if wish.action == OnRotate::None || !is_outdated(container, fresh) {
            continue;
        }
        plan.targets.push(Target {
            id: container.id.clone(),
            name: container.name.clone(),
            way: way(&wish.action, container),
            action: wish.action,
            verify_timeout: wish.verify_timeout,
            on_failure: wish.on_failure,
            judges: judges(container),
        });
    }
    plan.targets.sort_by(|a, b| (!a.judges, &a.name, &a.id).cmp(&(!b.judges, &b.name, &b.id)));
    plan.faults.sort();
    plan
}

/// Whether it has a process that began before the files were what they are. One that the engine is about to start again reads
/// the new ones by itself; one that is paused can neither be told nor judge, and the record says that it was not told.
fn is_outdated(container: &Container, fresh: SystemTime) -> bool {
    matches!(container.state, State::Running | State::Paused) && container.started.is_none_or(|started| started < fresh)
}

fn way(action: &OnRotate, container: &Container) -> Way {
    match (action, &container.exclusive) {
        (OnRotate::Rolling, Some(reason)) => Way::InPlace(reason.clone()),
        (OnRotate::Rolling, None) => Way::Beside,
        _ => Way::Itself,
    }
}

fn judges(container: &Container) -> bool {
    container.state == State::Running
        && container.health.as_ref().is_none_or(|health| health.status == HealthStatus::Healthy)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
