//! What is logged is searched: all of it, also the SDK's own events.

use crate::support::{bao::unique, capture};

pub use capture::contains;

pub fn start() {
    capture::start(|_| true);
}

#[test]
fn the_capture_finds_what_was_planted_by_dso_and_by_a_library() {
    start();
    let (ours, theirs) = (unique(), unique());
    tracing::trace!(planted = ours, "a canary");
    tracing::debug!(target: "azure_core::http", "read: {theirs}");
    assert!(contains(&ours) && contains(&theirs));
    assert!(!contains(&unique()));
}
