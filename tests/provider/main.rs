//! Provider `vault` against the real OpenBao server.

#[path = "../support/mod.rs"]
mod support;

mod caller;
mod capture;
mod checking;
mod cloud;
mod documented;
mod examining;
mod failing;
mod identity;
mod logging_in;
mod reading;
mod reviewer;
mod signer;
mod world;
