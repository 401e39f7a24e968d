//! Tests on a real engine. One binary, for link time; `tests/support` is what they stand on.

#[path = "../support/mod.rs"]
mod support;

mod canary;
mod harness;
mod messages;
mod packaging;
mod readonly;
mod serve;
mod share;
mod survive;
mod torn;
mod vault;
mod wire;
