//! What is logged is searched, but for the SDK's own events: at `trace` they show the answers of the metadata service. dso's log
//! lets out nobody's events but its own (see `dso::logging`); that the plugin's log holds nothing at `trace` is seen in
//! `tests/engine/aws.rs`.

use crate::support::{bao::unique, capture};

pub use capture::contains;

pub fn start() {
    capture::start(|target| !target.starts_with("aws_"));
}

#[test]
fn the_capture_finds_what_was_planted_by_dso_and_by_a_library() {
    start();
    let (ours, theirs) = (unique(), unique());
    tracing::trace!(planted = ours, "a canary");
    log::trace!(target: "reqwest::connect", "read: {theirs}");
    assert!(contains(&ours) && contains(&theirs));
    assert!(!contains(&unique()));
}
