//! One structured record for each decision: to the log, to the volume's status, to the journal, to whoever looks.

pub mod answer;

use super::{
    journal::{Decision, Entry, Log, Rollout, Told, Trial},
    plan::Way,
};
use crate::{
    driver::{Driver, Outcome, Shown},
    volume::VolumeName,
};
use serde_json::json;
use std::time::{Duration, SystemTime};

/// Files without anybody to be told of them.
pub fn published(driver: &Driver, volume: &VolumeName, trial: &Trial, shown: &Shown, now: SystemTime) {
    let decision = Decision {
        from: trial.base,
        to: shown.generation,
        from_versions: trial.from.clone(),
        to_versions: shown.versions.clone(),
        cause: trial.cause.clone(),
        result: "published".into(),
        reason: None,
        containers: Vec::new(),
        began: rfc3339(shown.published),
        ended: rfc3339(now),
    };
    driver.explain(volume, None);
    tell(driver, volume, &decision);
}

/// Every container that is left has been restarted too often.
pub fn put_off(
    driver: &Driver,
    volume: &VolumeName,
    trial: &Trial,
    rollout: &Rollout,
    wait: Duration,
    now: SystemTime,
) {
    tell(driver, volume, &decision(trial, rollout, "deferred", Some(budget_reason(wait)), now));
}

/// What an earlier process decided last.
pub fn recall(driver: &Driver, log: &Log) {
    let Some(last) = log.decisions.back() else { return };
    driver.set_outcome(&log.volume, outcome(last));
    if driver.is_refusing(&log.volume) {
        driver.explain(&log.volume, last.reason.as_deref().map(taken_back));
    }
}

pub fn taken_back(why: &str) -> String {
    format!("the last change was taken back: {why}")
}

fn outcome(decision: &Decision) -> Outcome {
    Outcome {
        result: decision.result.clone(),
        cause: decision.cause.clone(),
        from: decision.from,
        to: decision.to,
        at: decision.ended.clone(),
        reason: decision.reason.clone(),
    }
}

pub fn budget_reason(wait: Duration) -> String {
    // Whole seconds: a person reads it.
    let wait = Duration::from_secs(wait.as_secs() + 1);
    format!(
        "files are published, but a container has used up its budget of restarts and still runs with the old ones: it is \
         restarted in {}",
        humantime::format_duration(wait)
    )
}

pub fn decision(trial: &Trial, rollout: &Rollout, result: &str, reason: Option<String>, now: SystemTime) -> Decision {
    Decision {
        from: trial.base,
        to: rollout.target,
        from_versions: trial.from.clone(),
        to_versions: rollout.to.clone(),
        cause: trial.cause.clone(),
        result: result.into(),
        reason,
        containers: rollout.entries.iter().map(told).collect(),
        began: rfc3339(rollout.began),
        ended: rfc3339(now),
    }
}

pub fn tell(driver: &Driver, volume: &VolumeName, decision: &Decision) {
    let Decision { from, to, cause, result, began, ended, .. } = decision;
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    tracing::info!(
        %volume,
        from,
        to,
        from_versions = %json(serde_json::to_string(&decision.from_versions)),
        to_versions = %json(serde_json::to_string(&decision.to_versions)),
        cause,
        result,
        reason = decision.reason,
        containers = %json(serde_json::to_string(&decision.containers)),
        began,
        ended,
        "decided"
    );
    driver.set_outcome(volume, outcome(decision));
    driver.events().tell("decided", Some(volume.as_str()), decision);
    driver.metrics().rotated(result, duration(decision).filter(|_| !decision.containers.is_empty()));
}

/// Containers are about to be told.
pub fn began(driver: &Driver, volume: &VolumeName, trial: &Trial, rollout: &Rollout) {
    let containers: Vec<_> = rollout.entries.iter().map(|entry| &entry.name).collect();
    let fields = json!({"from": trial.base, "to": rollout.target, "cause": trial.cause, "containers": containers});
    driver.events().tell("rollout_started", Some(volume.as_str()), fields);
}

/// One container has been told, or not.
pub fn container(driver: &Driver, volume: &VolumeName, entry: &Entry) {
    let mut fields = json!({
        "container": entry.name, "id": entry.runs_as(), "action": entry.action, "result": entry.ended_as(),
    });
    if !entry.notes.is_empty() {
        fields["reason"] = entry.notes.join("; ").into();
    }
    driver.events().tell("container", Some(volume.as_str()), fields);
}

fn duration(decision: &Decision) -> Option<Duration> {
    let [began, ended] = [&decision.began, &decision.ended].map(|time| humantime::parse_rfc3339(time).ok());
    Some(ended?.duration_since(began?).unwrap_or_default())
}

fn told(entry: &Entry) -> Told {
    let way = match &entry.way {
        Way::Itself => None,
        Way::Beside => Some("beside".to_owned()),
        Way::InPlace(reason) => Some(format!("in place: {reason}")),
    };
    Told {
        name: entry.name.clone(),
        id: entry.runs_as().to_owned(),
        action: entry.action.clone(),
        way,
        result: entry.result(),
        began: entry.began.map(rfc3339),
        ended: entry.ended.map(rfc3339),
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
