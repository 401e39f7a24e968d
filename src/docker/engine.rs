//! The real engine, at its socket.

use super::{
    Container, ContainerRuntime, Executed, Observed, RuntimeError,
    call::Call,
    events, exclusive, exec,
    inspected::{self, Inspected, Listed},
    membership,
    replica::{Replica, Surroundings},
    signal::{self, Sent},
    wire::Connection,
};
use crate::metrics::Metrics;
use async_trait::async_trait;
use bollard::{
    errors::Error,
    query_parameters::{
        KillContainerOptions, RemoveContainerOptions, RenameContainerOptions, RestartContainerOptions,
        StartContainerOptions, StopContainerOptions,
    },
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use url::form_urlencoded::byte_serialize;

/// What the engine answers from its memory.
const QUICK: Duration = Duration::from_secs(10);
/// A start mounts volumes, and a driver may take its time.
const START: Duration = Duration::from_secs(150);
/// Beyond what the container itself may take to stop.
const STOP: Duration = Duration::from_secs(30);
const REMOVE: Duration = Duration::from_secs(60);
const CREATE: Duration = Duration::from_secs(60);
/// Whoever is about to replace a container lists all of them anew.
const RECENT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// The engine behind a socket. Nothing is kept of a connection: an engine that was started again has another socket of the same path.
pub struct Engine {
    socket: PathBuf,
    /// Of the volumes that were asked for: what these drivers show is the same for all, and cannot be written to.
    drivers: Mutex<BTreeSet<String>>,
    /// The last list of all containers: one for each look at one of them would keep a busy engine busy.
    listed: Mutex<Option<(Instant, Arc<Vec<Listed>>)>>,
    metrics: Arc<Metrics>,
}

// === impl Engine ===

impl Engine {
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        let (drivers, listed, metrics) = (Mutex::default(), Mutex::default(), Arc::default());
        Self { socket: socket.into(), drivers, listed, metrics }
    }

    /// Measures its stream of events there.
    pub fn measured(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    async fn connect(&self) -> Result<Connection, RuntimeError> {
        Connection::to(&self.socket).await
    }

    /// Every container, by one request: whoever shares the namespaces of another may mount nothing.
    async fn list(&self, engine: &Connection) -> Result<Arc<Vec<Listed>>, RuntimeError> {
        let list = async {
            let body = engine.get("/containers/json?all=1").await?;
            serde_json::from_slice(&body).map_err(Error::from)
        };
        let all: Arc<Vec<Listed>> = Arc::new(Call::new("list containers", QUICK).run(list).await?);
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), all.clone()));
        Ok(all)
    }

    /// A list that is not older than [`RECENT`].
    async fn recent_list(&self, engine: &Connection) -> Result<Arc<Vec<Listed>>, RuntimeError> {
        let held = self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match held.filter(|(at, _)| at.elapsed() < RECENT) {
            Some((_, all)) => Ok(all),
            None => self.list(engine).await,
        }
    }

    fn container(&self, inspected: Inspected, all: &[Listed]) -> Container {
        let drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        let exclusive = exclusive::reason(&inspected, |mount| drivers.contains(&mount.driver));
        let guests = all.iter().filter(|listed| listed.depends_on(&inspected.id, inspected.name()));
        let dependents = guests.map(|listed| listed.id.clone()).collect();
        inspected.into_container(exclusive, dependents)
    }

    async fn image_has_name(&self, engine: &Connection, original: &Value) -> Result<bool, RuntimeError> {
        let [name, id] =
            [&original["Config"]["Image"], &original["Image"]].map(|value| value.as_str().unwrap_or_default());
        let path = format!("/images/{}/json", byte_serialize(name.as_bytes()).collect::<String>());
        match Call::new("look at an image", QUICK).run(engine.get(&path)).await {
            Ok(body) => {
                let image: Value = serde_json::from_slice(&body).unwrap_or_default();
                Ok(image["Id"] == id)
            }
            Err(RuntimeError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn surroundings(&self, engine: &Connection, original: &Value) -> Result<Surroundings, RuntimeError> {
        let mut sources = BTreeMap::new();
        let from = original["HostConfig"]["VolumesFrom"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for from in from {
            let name = from.split(':').next().unwrap_or_default();
            if let Some((_, source)) = inspect(engine, name).await? {
                let mounts = source["Mounts"].as_array().cloned().unwrap_or_default();
                sources.insert(from.to_owned(), mounts);
            }
        }
        Ok(Surroundings { image_has_name: self.image_has_name(engine, original).await?, sources })
    }
}

#[async_trait]
impl ContainerRuntime for Engine {
    async fn containers(&self, volumes: &BTreeSet<String>) -> Result<Vec<Container>, RuntimeError> {
        let engine = self.connect().await?;
        let all = self.list(&engine).await?;
        let is_wanted = |volume: &str| volumes.contains(volume);
        let drivers = all.iter().flat_map(|listed| listed.drivers(is_wanted)).filter(|driver| *driver != "local");
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).extend(drivers.map(str::to_owned));
        let mut found = Vec::new();
        for listed in all.iter().filter(|listed| listed.mounts_any(is_wanted)) {
            // It may have gone since.
            if let Some((inspected, _)) = inspect(&engine, &listed.id).await? {
                found.push(self.container(inspected, &all));
            }
        }
        Ok(found)
    }

    async fn inspect(&self, container: &str) -> Result<Option<Container>, RuntimeError> {
        let engine = self.connect().await?;
        let Some((inspected, _)) = inspect(&engine, container).await? else { return Ok(None) };
        // The engine also takes a name for the beginning of some ID.
        if inspected.id != container && inspected.name() != container {
            return Ok(None);
        }
        // Who has no volume is nobody that is acted on: the list, which is long on a busy engine, is not needed.
        let has_volumes = inspected.volumes().next().is_some();
        let all = if has_volumes { self.recent_list(&engine).await? } else { Arc::default() };
        Ok(Some(self.container(inspected, &all)))
    }

    async fn signal(&self, id: &str, signal: &str) -> Result<(), RuntimeError> {
        let engine = self.connect().await?;
        let found = self.inspect(id).await?.ok_or_else(|| RuntimeError::Gone(id.to_owned()))?;
        if found.is_up() {
            match signal::send(&found.id, found.pid, signal) {
                Sent::Yes => return Ok(()),
                Sent::Gone => return Err(RuntimeError::Gone(id.to_owned())),
                Sent::NotFrom(why) => {
                    tracing::warn!(
                        container = found.name,
                        why,
                        "the engine sends the signal, and may take it for a wish to end the container"
                    );
                }
            }
        }
        let options = KillContainerOptions { signal: signal.to_owned() };
        let doing = format!("send it {signal}");
        Call::of(id, &doing, QUICK).run(engine.docker.kill_container(id, Some(options))).await
    }

    async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<Executed, RuntimeError> {
        exec::exec(&self.connect().await?, id, command, limit).await
    }

    async fn restart(&self, id: &str) -> Result<(), RuntimeError> {
        let engine = self.connect().await?;
        let limit = stop_timeout(&engine, id).await? + STOP;
        let restart = engine.docker.restart_container(id, None::<RestartContainerOptions>);
        Call::of(id, "restart it", limit).run(restart).await
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        let engine = self.connect().await?;
        let start = engine.docker.start_container(id, None::<StartContainerOptions>);
        Call::of(id, "start it", START).run(start).await
    }

    async fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        let engine = self.connect().await?;
        let limit = stop_timeout(&engine, id).await? + STOP;
        let stop = engine.docker.stop_container(id, None::<StopContainerOptions>);
        Call::of(id, "stop it", limit).run(stop).await
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), RuntimeError> {
        let engine = self.connect().await?;
        let options = RenameContainerOptions { name: name.to_owned() };
        let doing = format!("rename it to `{name}`");
        Call::of(id, &doing, QUICK).run(engine.docker.rename_container(id, options)).await
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let engine = self.connect().await?;
        let options = RemoveContainerOptions { force: true, v: false, link: false };
        let call = Call::of(id, "remove it", REMOVE);
        match call.run(engine.docker.remove_container(id, Some(options))).await {
            Err(RuntimeError::Gone(_)) => Ok(()),
            // By somebody else, or by itself (`--rm`).
            Err(RuntimeError::Refused { answer, .. }) if answer.contains("already in progress") => {
                wait_until_gone(&engine, id, call).await
            }
            done => done,
        }
    }

    async fn replicate(
        &self,
        id: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
        aliased: bool,
    ) -> Result<String, RuntimeError> {
        let engine = self.connect().await?;
        let original = whole(&engine, id).await?;
        let replica = Replica::of(&original, &self.surroundings(&engine, &original).await?, labels, aliased);
        let made = create(&engine, name, &replica).await?;
        match Call::new("join the networks of the container", CREATE).run(join(&engine, &made, &replica)).await {
            Ok(()) => Ok(made),
            Err(error) => {
                // Made a moment ago, by this call, and never started.
                let _ = self.remove(&made).await;
                Err(error)
            }
        }
    }

    async fn take_aliases(&self, id: &str, from: &str, name: &str) -> Result<(), RuntimeError> {
        let engine = self.connect().await?;
        let (container, from) = (whole(&engine, id).await?, whole(&engine, from).await?);
        membership::take_aliases(&engine, &container, &from, name).await
    }

    async fn watch(&self, to: mpsc::Sender<Observed>) {
        events::watch(&self.socket, to, &self.metrics).await;
    }
}

async fn inspect(engine: &Connection, container: &str) -> Result<Option<(Inspected, Value)>, RuntimeError> {
    let look = async {
        let body = engine.get(&format!("/containers/{container}/json")).await?;
        inspected::read(&body).map_err(Error::from)
    };
    match Call::of(container, "inspect it", QUICK).run(look).await {
        Ok(found) => Ok(Some(found)),
        Err(RuntimeError::Gone(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn whole(engine: &Connection, id: &str) -> Result<Value, RuntimeError> {
    let found = inspect(engine, id).await?;
    found.map(|(_, whole)| whole).ok_or_else(|| RuntimeError::Gone(id.to_owned()))
}

async fn stop_timeout(engine: &Connection, id: &str) -> Result<Duration, RuntimeError> {
    let found = inspect(engine, id).await?;
    found.map(|(inspected, _)| inspected.stop_timeout()).ok_or_else(|| RuntimeError::Gone(id.to_owned()))
}

async fn wait_until_gone(engine: &Connection, id: &str, call: Call<'_>) -> Result<(), RuntimeError> {
    let gone = async {
        while inspect(engine, id).await?.is_some() {
            sleep(LOOK).await;
        }
        Ok(())
    };
    let late = || RuntimeError::TimedOut { doing: call.doing.to_owned(), seconds: call.limit.as_secs() };
    timeout(call.limit, gone).await.unwrap_or_else(|_| Err(late()))
}

async fn create(engine: &Connection, name: &str, replica: &Replica) -> Result<String, RuntimeError> {
    let mut path = format!("/containers/create?name={name}");
    if let Some(platform) = &replica.platform {
        path += &format!("&platform={}", byte_serialize(platform.as_bytes()).collect::<String>());
    }
    let made = async {
        let body = engine.post(&path, &replica.create).await?;
        let made: Value = serde_json::from_slice(&body)?;
        Ok(made["Id"].as_str().unwrap_or_default().to_owned())
    };
    Call::new("create a container equal to it", CREATE).run(made).await
}

async fn join(engine: &Connection, id: &str, replica: &Replica) -> Result<(), Error> {
    if let Some(network) = &replica.leave {
        membership::leave(engine, id, network).await?;
    }
    for (network, endpoint) in &replica.join {
        membership::join(engine, id, network, endpoint).await?;
    }
    Ok(())
}
