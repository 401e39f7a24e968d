//! Provider `aws` against the real moto server, behind a gate that checks what moto does not.

#[path = "../support/mod.rs"]
mod support;

mod batching;
mod capture;
mod checking;
mod failing;
mod identities;
mod reading;
mod signatures;
mod traffic;
mod world;
