//! What is logged is searched, but for the events of Amazon's SDK: see `tests/aws/capture.rs`.

use crate::support::capture;

pub use capture::contains;

pub fn start() {
    capture::start(|target| !target.starts_with("aws_"));
}
