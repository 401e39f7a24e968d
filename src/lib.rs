//! dso, the Docker Secret Operator: an engine plugin that gives containers their secrets as files in RAM.

pub mod api;
pub mod app;
pub mod config;
pub mod driver;
pub mod faults;
pub mod host;
pub mod logging;
pub mod memory;
pub mod paths;
pub mod projection;
pub mod provider;
pub mod reconcile;
pub mod secret;
pub mod settings;
pub mod shutdown;
pub mod units;
pub mod volume;
