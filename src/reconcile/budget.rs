//! How often a container may be restarted. Pure.

use std::time::{Duration, SystemTime};

/// How long until one more restart is within the budget of `most` in any `window`; `None` if it is now. Times to come count
/// as now: a clock that was set back must not lock a container out for longer than the window.
pub fn wait(
    history: impl IntoIterator<Item = SystemTime>,
    most: u32,
    window: Duration,
    now: SystemTime,
) -> Option<Duration> {
    let ages = history.into_iter().map(|at| now.duration_since(at).unwrap_or_default());
    let mut recent: Vec<_> = ages.filter(|age| *age < window).collect();
    recent.sort();
    if most == 0 {
        return Some(window);
    }
    // The youngest `most` are those that must not all be within the window.
    let oldest_that_counts = recent.get(most as usize - 1)?;
    Some(window - *oldest_that_counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    fn ago(now: SystemTime, seconds: &[u64]) -> Vec<SystemTime> {
        seconds.iter().map(|seconds| now - Duration::from_secs(*seconds)).collect()
    }

    #[test]
    fn within_the_budget_nothing_waits_and_beyond_it_until_the_oldest_leaves_the_window() {
        let now = SystemTime::now();
        let wait = |seconds: &[u64]| wait(ago(now, seconds), 3, WINDOW, now).map(|wait| wait.as_secs());
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[1, 2]), None);
        assert_eq!(wait(&[1, 2, 3]), Some(597));
        assert_eq!(wait(&[1, 2, 600]), None, "what is as old as the window is out of it");
        assert_eq!(wait(&[599, 1, 2]), Some(1));
        assert_eq!(wait(&[1, 2, 3, 500]), Some(597), "a rollback went over it: three must be left");
    }

    #[test]
    fn a_clock_that_was_set_back_locks_out_for_a_window_at_most() {
        let now = SystemTime::now();
        let later = vec![now + Duration::from_secs(86400); 3];
        assert_eq!(wait(later, 3, WINDOW, now), Some(WINDOW));
    }

    #[test]
    fn a_budget_of_nothing_never_lets_a_restart_through() {
        assert_eq!(wait([], 0, WINDOW, SystemTime::now()), Some(WINDOW));
    }
}
