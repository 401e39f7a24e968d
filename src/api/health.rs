//! `GET /healthz`: 200 if the plugin is alive and ready, 503 if not.
//!
//! - *ready*: it has taken over what an earlier process left, and answers Docker's calls.
//! - *alive*: the loop that follows the providers turns. It does so every few seconds, whatever providers and the engine do; where it
//!   stands still, files are not kept current any more, and the plugin should be disabled and enabled.

use super::answer::Answer;
use crate::driver::{Driver, STILL};
use hyper::StatusCode;
use serde::Serialize;

pub const PATH: &str = "/healthz";

#[derive(Serialize)]
struct Health {
    alive: bool,
    ready: bool,
}

pub fn answer(driver: Option<&Driver>) -> Answer {
    let alive = driver.and_then(Driver::since_turn).is_none_or(|since| since < STILL);
    let health = Health { alive, ready: driver.is_some() };
    let status = if health.alive && health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Answer::json(status, &health)
}
