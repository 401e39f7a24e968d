//! The whole way from a Vault API to a container, through the plugin: logins, rotation, traffic, outages, names, trust.

pub mod world;

mod reaching;
mod reloading;
mod serving;
mod traffic;
