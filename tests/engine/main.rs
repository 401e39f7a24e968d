//! Tests on a real engine. One binary, for link time; `tests/support` is what they stand on.

#[path = "../support/mod.rs"]
mod support;

mod aws;
mod azure;
mod canary;
mod cli;
mod examples;
mod hanging;
mod harness;
mod logging;
mod messages;
mod orphans;
mod packaging;
mod programs;
mod readonly;
mod reconcile;
mod serve;
mod share;
mod socket;
mod survive;
mod swarm;
mod torn;
mod vault;
mod wire;
