//! AWS through the real plugin: moto behind the gate, identities of a container and of an instance.

pub mod world;

mod load;
mod serving;
