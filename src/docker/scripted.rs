//! An engine for unit tests: containers in memory, whose processes read a file when they start or are told to, and whose
//! health says what they make of it. A gate before and after each call lets calls fail, or the process that makes them die.

mod runtime;
pub mod swarm;

use super::*;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::{sync::Notify, time::Instant};

/// What a container's process has read last, and when.
#[derive(Clone, Debug, PartialEq)]
struct Read {
    at: SystemTime,
    value: String,
}

#[derive(Clone, Debug)]
struct Scripted {
    seen: Container,
    aliases: bool,
    reads: Vec<Read>,
    on: Script,
}

/// How a container behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// It has a health check, which passes while what it has read is good.
    pub checked: bool,
    /// Its process ends when it reads what is not good.
    pub crashes: bool,
    /// Its health check fails whatever it has read.
    pub sick: bool,
    /// The engine starts it again, and it is removed when it stops.
    pub restarted: bool,
    pub auto_remove: bool,
    pub exclusive: bool,
}

/// The engine. It lives on when the process that speaks to it dies.
pub struct Engine {
    inner: Mutex<Inner>,
    file: Box<dyn Fn() -> String + Send + Sync>,
    origin: Instant,
}

#[derive(Default)]
struct Inner {
    containers: BTreeMap<String, Scripted>,
    made: usize,
    down: bool,
    /// Refuses the calls whose name begins with this.
    refuses: Option<String>,
    acting: usize,
    most_acting: usize,
}

/// One process's way to the engine.
pub struct Runtime {
    pub engine: Arc<Engine>,
    pub gate: Arc<Gate>,
}

/// What a process passes whenever it does something that lasts; it may die there.
#[derive(Default)]
pub struct Gate {
    passed: Mutex<Vec<String>>,
    die_at: Option<usize>,
    died: Notify,
}

pub const VOLUME: &str = "v";
const CHECKED_EVERY: Duration = Duration::from_secs(2);

// === impl Gate ===

impl Gate {
    /// The process dies when it passes for the nth time, counted from 0.
    pub fn deadly(die_at: usize) -> Arc<Self> {
        Arc::new(Self { die_at: Some(die_at), ..Self::default() })
    }

    pub async fn pass(&self, place: &str) {
        let dead = {
            let mut passed = self.passed.lock().unwrap();
            passed.push(place.to_owned());
            self.die_at.is_some_and(|die_at| passed.len() > die_at)
        };
        if dead {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
    }

    pub async fn died(&self) {
        self.died.notified().await;
    }

    pub fn passed(&self) -> Vec<String> {
        self.passed.lock().unwrap().clone()
    }
}

// === impl Engine ===

impl Engine {
    /// `file` reads what the volume shows. What begins with `bad` is not good.
    pub fn new(file: impl Fn() -> String + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), file: Box::new(file), origin: Instant::now() })
    }

    /// The machine's clock: it goes on with the test's paused one.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + self.origin.elapsed()
    }

    /// A container that runs, and has read what the volume shows.
    pub fn run(&self, name: &str, on_rotate: &str, on: Script) -> String {
        let labels = [("dso.on-rotate".to_owned(), on_rotate.to_owned())].into();
        let mut inner = self.inner.lock().unwrap();
        let id = inner.make(name, labels, on, true);
        self.start_now(&mut inner, &id);
        id
    }

    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Container)) {
        let mut inner = self.inner.lock().unwrap();
        let found = inner.containers.values_mut().find(|container| container.seen.name == name).unwrap();
        change(&mut found.seen);
    }

    /// It stops all, and starts those whose restart policy is `always`, whatever stopped them; those that share a port, as it happens.
    pub fn restart(&self) {
        let mut inner = self.inner.lock().unwrap();
        let mut ports = Vec::new();
        for id in inner.containers.keys().cloned().collect::<Vec<_>>() {
            let container = inner.containers.get_mut(&id).unwrap();
            if container.seen.is_up() {
                (container.seen.state, container.seen.exit_code) = (State::Exited, 137);
            }
            let port = port_of(&container.seen).filter(|_| container.on.exclusive);
            let starts = container.on.restarted
                && container.seen.started.is_some()
                && (port.is_none() || !ports.contains(&port));
            if starts {
                self.start_now(&mut inner, &id);
                ports.push(port);
            }
        }
    }

    pub fn kill_off(&self, name: &str) {
        self.inner.lock().unwrap().containers.retain(|_, container| container.seen.name != name);
    }

    pub fn set_down(&self, down: bool) {
        self.inner.lock().unwrap().down = down;
    }

    pub fn refuse(&self, call: Option<&str>) {
        self.inner.lock().unwrap().refuses = call.map(str::to_owned);
    }

    /// The most containers that were acted on at a time.
    pub fn most_acting(&self) -> usize {
        self.inner.lock().unwrap().most_acting
    }

    /// All containers: name, state, what the process has read, and whether it answers to its aliases.
    pub fn state(&self) -> Vec<(String, State, String, bool)> {
        let inner = self.inner.lock().unwrap();
        let read = |container: &Scripted| container.reads.last().map(|read| read.value.clone()).unwrap_or_default();
        let state = |container: &Scripted| {
            (container.seen.name.clone(), container.seen.state, read(container), container.aliases)
        };
        let mut all: Vec<_> = inner.containers.values().map(state).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    pub fn look(&self, container: &str) -> Option<Container> {
        let inner = self.inner.lock().unwrap();
        let found = inner.find(container)?;
        Some(found.look(self.now()))
    }

    pub fn list(&self) -> Vec<Container> {
        let inner = self.inner.lock().unwrap();
        inner.containers.values().map(|container| container.look(self.now())).collect()
    }

    fn start_now(&self, inner: &mut Inner, id: &str) {
        let now = self.now();
        let Some(container) = inner.containers.get_mut(id) else { return };
        container.seen.state = State::Running;
        container.seen.started = Some(now);
        container.seen.restarts = 0;
        container.reads.clear();
        self.read_now(container);
    }

    fn read_now(&self, container: &mut Scripted) {
        let value = (self.file)();
        if container.on.crashes && value.starts_with("bad") {
            container.seen.exit_code = 7;
            if container.on.restarted {
                container.seen.restarts += 1;
                container.seen.state = State::Restarting;
            } else {
                container.seen.state = State::Exited;
            }
        }
        container.reads.push(Read { at: self.now(), value });
    }

    fn stop_now(inner: &mut Inner, id: &str) {
        let Some(container) = inner.containers.get_mut(id) else { return };
        if container.seen.is_up() {
            container.seen.state = State::Exited;
            container.seen.exit_code = 0;
            if container.on.auto_remove {
                inner.containers.remove(id);
            }
        }
    }
}

// === impl Inner ===

impl Inner {
    fn make(&mut self, name: &str, labels: BTreeMap<String, String>, on: Script, aliases: bool) -> String {
        self.made += 1;
        let id = format!("id{}", self.made);
        let seen = Container {
            id: id.clone(),
            name: name.into(),
            image: "sha256:scripted".into(),
            labels,
            state: State::Created,
            health: None,
            started: None,
            restarts: 0,
            exit_code: 0,
            error: String::new(),
            restarted_by_engine: on.restarted,
            auto_remove: on.auto_remove,
            pid: 0,
            mounts: vec![VolumeMount { volume: VOLUME.into(), destination: "/s".into() }],
            exclusive: on.exclusive.then(|| "it publishes port 80".into()),
            dependents: Vec::new(),
        };
        self.containers.insert(id.clone(), Scripted { seen, aliases, reads: Vec::new(), on });
        id
    }

    fn find(&self, container: &str) -> Option<&Scripted> {
        let by_name = || self.containers.values().find(|found| found.seen.name == container);
        self.containers.get(container).or_else(by_name)
    }

    fn name_is_taken(&self, name: &str) -> bool {
        self.containers.values().any(|container| container.seen.name == name)
    }
}

// === impl Scripted ===

impl Scripted {
    /// With the health checks that have ended by now: one every two seconds since the start.
    fn look(&self, now: SystemTime) -> Container {
        let mut seen = self.seen.clone();
        let Some(started) = self.seen.started.filter(|_| self.on.checked) else { return seen };
        let passes = |at: SystemTime| {
            let read = self.reads.iter().rfind(|read| read.at <= at);
            read.is_some_and(|read| !self.on.sick && !read.value.starts_with("bad"))
        };
        let ran = now.duration_since(started).unwrap_or_default();
        let count = u32::try_from(ran.as_secs() / CHECKED_EVERY.as_secs()).unwrap();
        let begun = (count.saturating_sub(4).max(1)..=count).map(|n| started + CHECKED_EVERY * n);
        let checks: Vec<_> = begun.map(|began| HealthCheck { began, passed: passes(began) }).collect();
        let status = match checks.last() {
            None => HealthStatus::Starting,
            Some(HealthCheck { passed: true, .. }) => HealthStatus::Healthy,
            Some(_) => HealthStatus::Unhealthy,
        };
        seen.health = Some(Health { status, checks });
        seen
    }
}

// === impl Runtime ===

impl Runtime {
    /// Passes the gate, does it unless the engine is out of reach or refuses, and passes the gate again.
    async fn call<T>(
        &self,
        what: String,
        effect: impl FnOnce(&Engine, &mut Inner) -> Result<T, RuntimeError> + Send,
    ) -> Result<T, RuntimeError> {
        self.gate.pass(&what).await;
        let done = {
            let mut inner = self.engine.inner.lock().unwrap();
            if inner.down {
                return Err(RuntimeError::Unreachable("connection refused".into()));
            }
            if inner.refuses.as_ref().is_some_and(|refused| what.starts_with(refused)) {
                return Err(RuntimeError::Refused { doing: what, answer: "no".into() });
            }
            effect(&self.engine, &mut inner)
        };
        self.gate.pass(&format!("{what}, done")).await;
        done
    }

    /// What takes the engine a moment.
    async fn work(&self) {
        let change = |by: fn(usize) -> usize| {
            let mut inner = self.engine.inner.lock().unwrap();
            inner.acting = by(inner.acting);
            inner.most_acting = inner.most_acting.max(inner.acting);
        };
        change(|acting| acting + 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        change(|acting| acting - 1);
    }
}

fn known<'a>(inner: &'a mut Inner, id: &str) -> Result<&'a mut Scripted, RuntimeError> {
    inner.containers.get_mut(id).ok_or_else(|| RuntimeError::Gone(id.into()))
}

/// Those that replace one another publish the same.
fn port_of(container: &Container) -> Option<String> {
    container.name.split("-dso").next().map(str::to_owned)
}

fn refused(doing: &str, answer: &str) -> RuntimeError {
    RuntimeError::Refused { doing: doing.into(), answer: answer.into() }
}
