//! Provider `azure` against a Key Vault, Entra ID and endpoints of identities that are written for the tests: see
//! `tests/support/azure.rs`.

#[path = "../support/mod.rs"]
mod support;

mod capture;
mod checking;
mod documented;
mod examining;
mod failing;
mod identities;
mod reading;
mod traffic;
mod world;
