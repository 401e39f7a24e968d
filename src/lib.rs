//! dso, the Docker Secret Operator: an engine plugin that gives containers their secrets as files in RAM.
//!
//! | module | its one job |
//! |---|---|
//! | [`app`] | the one composition root: parse, build, run, drain |
//! | [`api`] | the plugin's Unix socket: Docker's calls, from the wire to a use case and back |
//! | [`driver`] | the use cases: create, mount, unmount, remove, check, refresh |
//! | [`docker`] | the engine: its containers, its events, what may be done to them |
//! | [`reconcile`] | the queue that owns time, and the loop that makes what is shown equal to what providers have |
//! | [`provider`] | where secrets come from; one file each, behind one cache |
//! | [`projection`] | what a container sees: generations of files in a tmpfs |
//! | [`volume`] | names, options, templates, and the state that outlives a process |
//! | [`secret`] | references, versions, and values that wipe themselves |
//! | [`cli`] | `docker dso` |
//! | [`config`], [`logging`], [`shutdown`] | settings, the log, the end of the process |
//! | [`audit`], [`events`], [`metrics`] | what was given to whom, what happens, what can be measured |
//! | [`faults`], [`findings`], [`host`], [`memory`], [`paths`], [`settings`], [`units`], [`watch`] | leaves that any module may use |
//!
//! How data flows and why it is so is in `docs/architecture.md`; `tests/house.rs` holds who may import whom.

pub mod api;
pub mod app;
pub mod audit;
pub mod cli;
pub mod config;
pub mod docker;
pub mod driver;
pub mod events;
pub mod faults;
pub mod findings;
pub mod host;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod paths;
pub mod projection;
pub mod provider;
pub mod reconcile;
pub mod secret;
pub mod settings;
pub mod shutdown;
pub mod units;
pub mod volume;
pub mod watch;
