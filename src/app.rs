//! The one composition root: parse, build, run, drain.

use crate::{
    api,
    config::{self, Config},
    driver::{Driver, Parts},
    host::HostFiles,
    projection::Tmpfs,
    provider::{Cache, Registry},
    reconcile, shutdown,
    volume::Store,
};
use std::{io, path::PathBuf, sync::Arc};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where things are; the defaults are those of the plugin's root file system.
#[derive(Clone, Debug)]
pub struct Places {
    /// The socket that the engine calls.
    pub socket: PathBuf,
    /// The propagated mount: state and the volumes' mountpoints.
    pub data: PathBuf,
    /// Private mounts, not shared with the host.
    pub private: PathBuf,
    pub host: HostFiles,
}

/// Runs the plugin until a signal ends it.
pub async fn run(places: Places) -> io::Result<()> {
    let cancel = shutdown::listen()?;
    // Before anything else: the engine gives a plugin that does not listen little time.
    let listener = api::bind(&places.socket)?;
    let tasks = TaskTracker::new();
    let (ready, driver) = tokio::sync::watch::channel(None);
    let context = api::Context { driver, tasks: tasks.clone() };
    let server = tasks.spawn(api::serve(listener, context, cancel.clone()));

    let started = start(&places, &tasks, &cancel).await?;
    ready.send_replace(Some(started));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");

    cancel.cancelled().await;
    tracing::info!("draining: mounted volumes stay as they are");
    let _ = server.await;
    tasks.close();
    if timeout(shutdown::GRACE, tasks.wait()).await.is_err() {
        tracing::error!(seconds = shutdown::GRACE.as_secs(), "work did not end in time");
    }
    Ok(())
}

async fn start(places: &Places, tasks: &TaskTracker, cancel: &CancellationToken) -> io::Result<Arc<Driver>> {
    let (config, faults) = Config::load(&config::environment, &places.host);
    if !faults.is_empty() {
        tracing::error!(%faults, "settings are left out");
    }
    let registry = registry(&config, &places.host);
    let (pushes, pushed) = mpsc::unbounded_channel();
    for (_, provider) in registry.iter() {
        let (provider, pushes, cancel) = (provider.clone(), pushes.clone(), cancel.clone());
        tasks.spawn(async move { provider.run(pushes, cancel).await });
    }
    let (events, told) = mpsc::unbounded_channel();
    let mounter = Tmpfs::new(&places.private, places.data.join("volumes"))?;
    let driver = Driver::new(Parts {
        store: Store::open(places.data.join("state"))?,
        cache: Arc::new(Cache::new(registry)),
        mounter: Arc::new(mounter),
        refresh: config.refresh,
        boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
        events,
        tasks: tasks.clone(),
    });
    driver.start().await?;
    let sources = reconcile::Sources { driver: told, pushes: pushed };
    tasks.spawn(reconcile::run(driver.clone(), sources, cancel.clone()));
    Ok(driver)
}

/// The instances whose settings are in order; references to the others are refused with what is wrong.
fn registry(config: &Config, host: &HostFiles) -> Registry {
    if let Some(fault) = &config.unread {
        return Registry::unknown(fault.clone());
    }
    let registry = Registry::build(config.providers.clone(), host);
    for (name, faults) in registry.broken() {
        tracing::error!(provider = name, %faults, "this provider is left out");
    }
    registry
}
