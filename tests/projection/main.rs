//! Volumes on real mounts. Each test has a mount namespace of its own, which goes away with its mounts when the test
//! ends; it needs root.

mod adopt;
mod faults;
mod mounts;
mod orphans;
mod property;
mod readers;
mod rotation;
mod size;
mod world;
