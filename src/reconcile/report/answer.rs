//! What those are told who asked for a volume to be looked at.

use super::super::asked::Ask;
use crate::{
    driver::{Driver, Outcome, State, Status},
    volume::VolumeName,
};
use serde::Serialize;

#[derive(Serialize)]
struct Refreshed<'a> {
    ok: bool,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The look has ended with all that came of it. With `failed`, something that may pass is still in the way; with `deferred`, some
/// container has to wait.
pub fn ended(driver: &Driver, volume: &VolumeName, ask: &Ask, failed: bool, deferred: bool) {
    let Ok(inspected) = driver.inspect(volume.as_str()) else { return gone(driver, volume, ask.request) };
    let decided = inspected.status.last_rotation.as_ref().filter(|_| driver.decisions(volume) > ask.decisions);
    let refusing = driver.is_refusing(volume);
    tell(driver, volume, ask.request, &outcome(&inspected.status, decided, refusing, failed, deferred));
}

/// There is no such volume any more.
pub fn gone(driver: &Driver, volume: &VolumeName, request: u64) {
    let reason = Some("the volume was removed".into());
    tell(driver, volume, request, &Refreshed { ok: false, result: "removed", reason });
}

fn tell(driver: &Driver, volume: &VolumeName, request: u64, refreshed: &Refreshed<'_>) {
    driver.events().answer("refreshed", volume.as_str(), request, refreshed);
}

fn outcome<'a>(
    status: &Status,
    decided: Option<&'a Outcome>,
    is_refusing: bool,
    failed: bool,
    deferred: bool,
) -> Refreshed<'a> {
    let because = |result| Refreshed { ok: false, result, reason: status.error.clone() };
    match (decided, status.state) {
        (Some(last), _) if matches!(last.result.as_str(), "rolled back" | "kept" | "deferred") => {
            Refreshed { ok: false, result: &last.result, reason: last.reason.clone() }
        }
        (_, State::Stale) if is_refusing => because("refused"),
        (_, State::Stale | State::Failed | State::Orphaned) => because("failed"),
        _ if failed => because("waiting"),
        (Some(last), _) => Refreshed { ok: true, result: &last.result, reason: last.reason.clone() },
        (None, State::Idle) => Refreshed { ok: true, result: "not mounted", reason: None },
        // What an earlier look could not do is still to be done: a container's budget is spent.
        (None, State::Current) if deferred => because("deferred"),
        (None, State::Current) => Refreshed { ok: true, result: "unchanged", reason: status.error.clone() },
    }
}
