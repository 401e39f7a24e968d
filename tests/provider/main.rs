//! Provider `vault` against the real OpenBao server.

#[path = "../support/mod.rs"]
mod support;

mod capture;
mod checking;
mod failing;
mod logging_in;
mod reading;
mod world;
