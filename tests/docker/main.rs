//! The edge to the engine, on real engines.

#[path = "../support/mod.rs"]
mod support;

mod acting;
mod cut;
mod equal;
mod names;
mod watching;
mod world;
