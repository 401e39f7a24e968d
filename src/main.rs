//! The plugin's process. Arguments, logging and the exit code; the rest is in [`dso::app`].

use clap::Parser;
use dso::{
    app::{self, Places},
    config::{self, LogConfig},
    host::HostFiles,
    logging, memory,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{path::PathBuf, process::ExitCode};

/// The Docker Secret Operator's plugin process. The engine starts it; by hand it is of use for tests only.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The Unix socket to listen on.
    #[arg(long, default_value = "/run/docker/plugins/dso.sock")]
    socket: PathBuf,
    /// The folder of state and mountpoints; shared mounts below it reach the host.
    #[arg(long, default_value = "/data")]
    data: PathBuf,
    /// The folder of private mounts.
    #[arg(long, default_value = "/run/dso")]
    private: PathBuf,
    /// The engine's socket.
    #[arg(long, default_value = "/host/run/docker.sock")]
    engine: PathBuf,
    /// A folder in place of the plugin's view of the host's /etc/dso.
    #[arg(long)]
    config_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = LogConfig::load(&config::environment);
    let fault = log.as_ref().err().cloned();
    let fault = fault.or(logging::start(&log.unwrap_or_default()).err());
    if let Some(fault) = fault {
        tracing::error!(%fault, "logging as by default");
    }
    for fault in memory::protect() {
        tracing::warn!(%fault, "memory is less protected than it should be");
    }
    raise_file_limit();
    let host = arguments.config_dir.map_or_else(HostFiles::in_plugin, HostFiles::on_host);
    let places = Places {
        socket: arguments.socket,
        data: arguments.data,
        private: arguments.private,
        engine: arguments.engine,
        host,
    };
    match run(places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the plugin cannot run");
            ExitCode::FAILURE
        }
    }
}

/// Each connection takes a descriptor, and the engine may have set the soft limit low.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn run(places: Places) -> std::io::Result<()> {
    // Two threads answer; what blocks in the kernel has threads of its own, few, since each has a stack.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .thread_keep_alive(std::time::Duration::from_secs(60))
        .enable_all()
        .build()?;
    let result = runtime.block_on(app::run(places));
    runtime.shutdown_background();
    result
}
