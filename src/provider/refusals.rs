//! Calls that a server or its policy refused: remembered, so that a check stays one call, and tried again now and then, since
//! policies change.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a refusal is taken for granted.
const TRY_AGAIN: Duration = Duration::from_secs(600);

/// Calls that were refused, by whatever names the provider gives them, and until when that is taken for granted.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<String, Instant>>);

// === impl Refusals ===

impl Refusals {
    pub fn has(&self, call: &str) -> bool {
        self.calls().get(call).is_some_and(|until| Instant::now() < *until)
    }

    pub fn note(&self, call: String) {
        let now = Instant::now();
        let mut calls = self.calls();
        calls.retain(|_, until| now < *until);
        calls.insert(call, now + TRY_AGAIN);
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
