//! Whether a container is well with the files that it was told of.

use super::journal::Baseline;
use crate::docker::{Container, HealthStatus, State};
use std::time::{Duration, SystemTime};

/// What one look at a container says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A health check that began late enough has passed.
    Well,
    /// It runs, and has no health check: it is well if it goes on running.
    Running,
    /// It has a health check, and none that counts has ended.
    Undecided,
    Failed(String),
    /// Its engine would have started it again if it had ended by itself.
    Stopped,
}

/// Compares a container with how it was when it was told. A process that is newer than that, and that the engine did not start
/// because the one before it failed, was started by a person or by the engine's own start: from then on it counts.
pub fn judge(seen: &Container, baseline: &mut Baseline) -> Verdict {
    if seen.restarts > baseline.restarts {
        return Verdict::Failed(format!("its process ended with {}, and the engine started it again", seen.exit_code));
    }
    match seen.state {
        State::Running => {}
        State::Paused => return Verdict::Undecided,
        State::Exited if seen.restarted_by_engine => return Verdict::Stopped,
        _ => return Verdict::Failed(ended(seen)),
    }
    if seen.started > baseline.started {
        baseline.started = seen.started;
        baseline.since = baseline.since.max(seen.started.unwrap_or(baseline.since));
    }
    let Some(health) = &seen.health else { return Verdict::Running };
    let newest = health.checks.iter().rfind(|check| check.began >= baseline.since);
    match (newest.map(|check| check.passed), health.status) {
        (Some(true), HealthStatus::Healthy) => Verdict::Well,
        (Some(false), HealthStatus::Unhealthy) => Verdict::Failed("its health check fails".into()),
        _ => Verdict::Undecided,
    }
}

/// Why a container was not well in time.
pub fn late(seen: &Container, since: SystemTime, timeout: Duration) -> String {
    let timeout = humantime::format_duration(timeout);
    let Some(health) = &seen.health else { return format!("it does not run steadily after {timeout}") };
    match health.checks.iter().any(|check| check.began >= since) {
        true => format!("it is not healthy after {timeout}"),
        false => format!(
            "no health check began and ended within {timeout}: `dso.verify-timeout` must be longer than the interval of the checks"
        ),
    }
}

fn ended(seen: &Container) -> String {
    match seen.error.is_empty() {
        true => format!("its process ended with {}", seen.exit_code),
        false => format!("it did not start: {}", seen.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::{
        Health, HealthCheck,
        scripted::{Engine, Script},
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn container(change: impl FnOnce(&mut Container)) -> Container {
        let engine = Engine::new(String::new);
        engine.run("web", "none", Script::default());
        engine.edit("web", |web| {
            web.started = Some(at(10));
            change(web);
        });
        engine.look("web").unwrap()
    }

    fn health(status: HealthStatus, checks: &[(u64, bool)]) -> Option<Health> {
        let checks = checks.iter().map(|(began, passed)| HealthCheck { began: at(*began), passed: *passed });
        Some(Health { status, checks: checks.collect() })
    }

    /// Of a container that was told at 100, and had started at 10.
    fn verdict(change: impl FnOnce(&mut Container)) -> Verdict {
        judge(&container(change), &mut Baseline { since: at(100), started: Some(at(10)), restarts: 2 })
    }

    #[test]
    fn only_a_check_that_began_after_it_was_told_counts_and_the_last_one_decides() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        for (status, checks, expected) in [
            (Healthy, &[(99, true)][..], Verdict::Undecided),
            (Healthy, &[(99, true), (100, true)], Verdict::Well),
            (Healthy, &[(101, true), (102, false)], Verdict::Undecided),
            (Healthy, &[(101, false), (102, true)], Verdict::Well),
            (Unhealthy, &[(99, false)], Verdict::Undecided),
            (Unhealthy, &[(101, false)], Verdict::Failed("its health check fails".into())),
            (Starting, &[(101, false)], Verdict::Undecided),
            (Starting, &[], Verdict::Undecided),
        ] {
            assert_eq!(verdict(|web| web.health = health(status, checks)), expected, "{status:?} {checks:?}");
        }
    }

    #[test]
    fn a_process_that_ended_or_was_started_again_by_the_engine_has_failed() {
        let failed = |text: &str| Verdict::Failed(text.into());
        assert_eq!(verdict(|_| ()), Verdict::Running);
        assert_eq!(
            verdict(|web| (web.restarts, web.exit_code) = (3, 7)),
            failed("its process ended with 7, and the engine started it again")
        );
        assert_eq!(verdict(|web| web.state = State::Restarting), failed("its process ended with 0"));
        assert_eq!(verdict(|web| (web.state, web.exit_code) = (State::Exited, 1)), failed("its process ended with 1"));
        assert_eq!(
            verdict(|web| (web.state, web.error) = (State::Created, "no such mount".into())),
            failed("it did not start: no such mount")
        );
        assert_eq!(
            verdict(|web| (web.state, web.restarted_by_engine) = (State::Exited, true)),
            Verdict::Stopped,
            "the engine would have started it again"
        );
        assert_eq!(verdict(|web| web.state = State::Paused), Verdict::Undecided);
    }

    #[test]
    fn a_process_that_somebody_started_since_counts_from_its_own_start() {
        let started = container(|web| {
            web.started = Some(at(200));
            web.health = health(HealthStatus::Healthy, &[(150, true)]);
        });
        let mut baseline = Baseline { since: at(100), started: Some(at(10)), restarts: 2 };
        assert_eq!(judge(&started, &mut baseline), Verdict::Undecided);
        assert_eq!(baseline, Baseline { since: at(200), started: Some(at(200)), restarts: 2 });
    }

    #[test]
    fn who_is_late_is_told_whether_a_check_ran_at_all() {
        let (timeout, since) = (Duration::from_secs(60), at(100));
        let late = |checks: &[(u64, bool)]| {
            late(&container(|web| web.health = health(HealthStatus::Starting, checks)), since, timeout)
        };
        assert!(late(&[(99, true)]).contains("`dso.verify-timeout` must be longer"));
        assert_eq!(late(&[(101, false)]), "it is not healthy after 1m");
    }
}
