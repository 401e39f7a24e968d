//! What people have asked for: when the look at a volume that somebody wants has ended, with all that came of it.
//!
//! Such a look is a check of each secret that began after it was asked for, and after those a run for the volume. Pure, but for
//! what it is asked to tell.

use super::Key;
use crate::{driver::CheckKey, volume::VolumeName};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::time::Instant;

/// How long an engine may be out of reach before those who wait are told that their containers have to.
const PATIENCE: Duration = Duration::from_secs(60);

/// The looks that have not ended.
#[derive(Debug, Default)]
pub struct Asked(BTreeMap<VolumeName, Vec<Ask>>);

/// One look that somebody wants.
#[derive(Debug)]
pub struct Ask {
    pub request: u64,
    /// How many outcomes the volume had when it was asked for.
    pub decisions: u64,
    began: Instant,
    /// Checks to be made, and whether each has begun.
    checks: HashMap<CheckKey, bool>,
    /// Whether a run for the volume has begun after all checks had ended.
    runs: bool,
}

// === impl Asked ===

impl Asked {
    /// Somebody wants the volume looked at, which means these checks.
    pub fn add(
        &mut self,
        volume: &VolumeName,
        request: u64,
        decisions: u64,
        checks: impl IntoIterator<Item = CheckKey>,
    ) {
        let checks = checks.into_iter().map(|check| (check, false)).collect();
        let ask = Ask { request, decisions, began: Instant::now(), checks, runs: false };
        self.0.entry(volume.clone()).or_default().push(ask);
    }

    /// A run for `key` begins.
    pub fn began(&mut self, key: &Key) {
        match key {
            Key::Check(check) => {
                for ask in self.0.values_mut().flatten() {
                    if let Some(has_begun) = ask.checks.get_mut(check) {
                        *has_begun = true;
                    }
                }
            }
            Key::Volume(volume) => {
                for ask in self.0.get_mut(volume).into_iter().flatten() {
                    ask.runs = ask.checks.is_empty();
                }
            }
            _ => {}
        }
    }

    /// A check has ended, and hands some of what it stood for on to others. Returns the volumes of which all checks are made: they
    /// are to be run.
    pub fn checked<'a>(
        &mut self,
        check: &CheckKey,
        others: impl Iterator<Item = &'a CheckKey> + Clone,
    ) -> Vec<VolumeName> {
        let mut ready = Vec::new();
        for (volume, asks) in &mut self.0 {
            for ask in asks.iter_mut().filter(|ask| ask.checks.get(check) == Some(&true)) {
                ask.checks.remove(check);
                ask.checks.extend(others.clone().map(|other| (other.clone(), false)));
                if ask.checks.is_empty() && !ready.contains(volume) {
                    ready.push(volume.clone());
                }
            }
        }
        ready
    }

    /// A run for the volume has ended: those looks have ended with it that began before. With `unfinished`, something is in the
    /// way of what has begun: only those that have waited long are let go.
    pub fn ran(&mut self, volume: &VolumeName, unfinished: bool) -> Vec<Ask> {
        self.take(volume, |ask| ask.runs && !(unfinished && ask.began.elapsed() < PATIENCE))
    }

    /// The volume is gone.
    pub fn gone(&mut self, volume: &VolumeName) -> Vec<Ask> {
        self.0.remove(volume).unwrap_or_default()
    }

    fn take(&mut self, volume: &VolumeName, is_over: impl Fn(&Ask) -> bool) -> Vec<Ask> {
        let Some(asks) = self.0.get_mut(volume) else { return Vec::new() };
        let ended = asks.extract_if(.., |ask| is_over(ask)).collect();
        if asks.is_empty() {
            self.0.remove(volume);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn check(secret: &str) -> CheckKey {
        CheckKey::One(Arc::new(format!("p://{secret}").parse().unwrap()))
    }

    fn requests(ended: Vec<Ask>) -> Vec<u64> {
        ended.into_iter().map(|ask| ask.request).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_ends_with_the_run_that_began_after_its_checks_had_and_they_after_it() {
        let (mut asked, v) = (Asked::default(), "v".parse::<VolumeName>().unwrap());
        let volume = Key::Volume(v.clone());
        asked.began(&Key::Check(check("a")));
        asked.add(&v, 1, 0, [check("a"), check("b")]);
        // What had begun before says nothing.
        assert!(asked.checked(&check("a"), std::iter::empty()).is_empty());
        asked.began(&volume);
        for secret in ["a", "b"] {
            asked.began(&Key::Check(check(secret)));
        }
        assert!(asked.checked(&check("a"), std::iter::empty()).is_empty());
        // The server tells versions in another way now: `b` is checked by another key.
        assert!(asked.checked(&check("b"), [check("c")].iter()).is_empty());
        assert!(requests(asked.ran(&v, false)).is_empty(), "its run began before");
        asked.began(&Key::Check(check("c")));
        assert_eq!(asked.checked(&check("c"), std::iter::empty()), std::slice::from_ref(&v));
        asked.began(&volume);
        asked.add(&v, 2, 0, []);
        assert!(requests(asked.ran(&v, true)).is_empty());
        tokio::time::advance(PATIENCE).await;
        assert_eq!(requests(asked.ran(&v, true)), [1], "it has waited long enough");
        assert_eq!(requests(asked.gone(&v)), [2]);
        assert!(asked.0.is_empty());
    }
}
