//! dso, the Docker Secret Operator: an engine plugin that gives containers their secrets as files in RAM.

pub mod faults;
pub mod host;
pub mod memory;
pub mod paths;
pub mod projection;
pub mod provider;
pub mod secret;
pub mod settings;
pub mod units;
pub mod volume;
