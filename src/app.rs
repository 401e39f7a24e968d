//! The one composition root: parse, build, run, drain.

mod instances;

use crate::{
    api,
    audit::Audit,
    config::{self, Config},
    docker::{ContainerRuntime, Engine, Swarm},
    driver::{Driver, Parts},
    host::HostFiles,
    projection::Tmpfs,
    provider::Cache,
    reconcile::{self, policy::Policy, rollout::Rollouts, table::Table},
    shutdown,
    volume::Store,
};
use instances::Instances;
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
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
    /// The engine's socket; its folder is what is mounted.
    pub engine: PathBuf,
    pub host: HostFiles,
}

/// Runs the plugin until a signal ends it.
pub async fn run(places: Places) -> io::Result<()> {
    let cancel = shutdown::listen()?;
    // Before anything else: the engine gives a plugin that does not listen little time.
    let listener = api::bind(&places.socket)?;
    let tasks = TaskTracker::new();
    let (ready, driver) = watch::channel(None);
    let context = api::Context { driver, tasks: tasks.clone() };
    let server = tasks.spawn(api::serve(listener, context, cancel.clone()));

    let started = start(&places, &tasks, &cancel).await?;
    ready.send_replace(Some(started.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");

    cancel.cancelled().await;
    tracing::info!("draining: mounted volumes stay as they are");
    let _ = server.await;
    drain(&tasks, started.audit()).await;
    Ok(())
}

/// Lets what has begun end.
async fn drain(tasks: &TaskTracker, audit: &Audit) {
    tasks.close();
    if timeout(shutdown::GRACE, tasks.wait()).await.is_err() {
        tracing::error!(seconds = shutdown::GRACE.as_secs(), "work did not end in time");
    }
    // A mount may have been the last to end.
    audit.end();
}

async fn start(places: &Places, tasks: &TaskTracker, cancel: &CancellationToken) -> io::Result<Arc<Driver>> {
    let (config, faults) = Config::load(&config::environment, &places.host);
    if !faults.is_empty() {
        tracing::error!(%faults, "settings are left out");
    }
    let cache = Arc::new(Cache::new(instances::first(&config, &places.host)));
    let (pushes, pushed) = mpsc::unbounded_channel();
    let (refresh, rotation) = (config.refresh, config.rotation.clone());
    let (metrics, audit) = (config.metrics, config.audit);
    let (events, told) = mpsc::unbounded_channel();
    let mounter = Tmpfs::new(&places.private, places.data.join("volumes"))?;
    let driver = Driver::new(Parts {
        store: Store::open(places.data.join("state"))?,
        cache: cache.clone(),
        mounter: Arc::new(mounter),
        refresh,
        boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
        events,
        tasks: tasks.clone(),
    });
    let happenings = driver.events().clone();
    let instances = Instances::new(config, faults, cache, happenings, pushes, tasks.clone(), cancel.clone());
    let settings = instances.settings();
    tasks.spawn(instances.follow(places.host.clone()));
    if let Some(to) = audit
        && let Err(error) = driver.audit().open(to, &places.data)
    {
        tracing::error!(%error, "deliveries are not recorded: is the disk of the engine's data root full?");
    }
    driver.start().await?;
    let engine = Arc::new(Engine::at(&places.engine).measured(driver.metrics().clone()));
    let (runtime, swarm): (Arc<dyn ContainerRuntime>, Arc<dyn Swarm>) = (engine.clone(), engine);
    let table = Arc::new(Table::default());
    let (policy, faults) = Policy::parse(rotation.clone());
    if !faults.is_empty() {
        tracing::error!(%faults, "settings are left out");
    }
    let journal = places.data.join("journal");
    let rollouts = Rollouts::new(driver.clone(), runtime.clone(), policy, table.clone(), journal)?;
    let rollouts = Arc::new(rollouts);
    let followed = rollouts.clone();
    let parts = reconcile::Parts { driver: driver.clone(), runtime, swarm, rollouts, table };
    let sources = reconcile::Sources { driver: told, pushes: pushed };
    tasks.spawn(reconcile::run(parts, sources, cancel.clone()));
    tasks.spawn(follow(settings, (refresh, rotation), driver.clone(), followed, cancel.clone()));
    if let Some(address) = metrics {
        tasks.spawn(api::measures::serve(address, driver.clone(), tasks.clone(), cancel.clone()));
    }
    Ok(driver)
}

/// Hands on what of the settings holds for more than providers, whenever it is another than what is in use.
async fn follow(
    mut settings: watch::Receiver<Config>,
    (mut refresh, mut rotation): (Duration, toml::Table),
    driver: Arc<Driver>,
    rollouts: Arc<Rollouts>,
    cancel: CancellationToken,
) {
    loop {
        let now = settings.borrow_and_update().clone();
        if now.refresh != refresh {
            driver.set_refresh(now.refresh);
        }
        if now.rotation != rotation {
            // Its faults are told by who read the file.
            rollouts.set_policy(Policy::parse(now.rotation.clone()).0);
        }
        (refresh, rotation) = (now.refresh, now.rotation);
        // They end with who reads the file.
        let Some(Ok(())) = cancel.run_until_cancelled(settings.changed()).await else { return };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Delivered, Delivery};
    use std::sync::Mutex;

    #[tokio::test(start_paused = true)]
    async fn a_mount_that_ends_while_the_process_does_is_recorded() {
        let (tasks, audit, lines) = (TaskTracker::new(), Arc::new(Audit::default()), Arc::new(Mutex::new(Vec::new())));
        let (kept, recording) = (lines.clone(), audit.clone());
        audit.record_to(Box::new(move |line| {
            kept.lock().unwrap().push(line.to_owned());
            Ok(())
        }));
        tasks.spawn(async move {
            tokio::time::sleep(shutdown::GRACE / 2).await;
            let secrets =
                vec![Delivered { secret: "p://app".into(), version: None, identity: None, files: Vec::new() }];
            let (volume, mount) = ("v".into(), Some("m".into()));
            recording.mounted(Delivery { volume, generation: 1, cause: "mount", mount, secrets, failure: None });
        });
        drain(&tasks, &audit).await;
        assert!(lines.lock().unwrap().concat().contains("the plugin ended first"));
    }
}
