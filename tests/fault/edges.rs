//! The three edges, provider, mounter and store, with a switch in each call that can make it fail.

use async_trait::async_trait;
use dso::{
    projection::{Mounter, Orphan, Tmpfs},
    provider::{ErrorKind, Observed, Provider, ProviderError, Pushes},
    secret::{Secret, SecretId, SecretValue, SecretVersion},
};
use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Where a call goes out of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Provider,
    Mounter,
    Store,
}

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and the next one works.
    Once,
    /// It fails, and so does every call until the step ends: a disk that is full stays full.
    Lasting,
    /// The process dies: from here on no call of any edge has an effect, and the step is the last of this process.
    Death,
    /// It panics.
    Panic,
}

/// Counts the calls and fails those that it is told to; also looks at the volume at each of them.
pub struct Switch {
    state: Mutex<State>,
    /// What a reader sees that it must not.
    pub look: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    tripped: bool,
    /// Every call of this edge fails, or of all edges.
    lasting: Option<Option<Edge>>,
    /// Every call since the last [`Switch::drain`], by edge and name.
    calls: Vec<String>,
    seen: Vec<String>,
}

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// `None` counts the calls of all edges.
    pub edge: Option<Edge>,
    pub nth: usize,
    pub fault: Fault,
    pub kind: ErrorKind,
}

// === impl Switch ===

impl Switch {
    pub fn new(look: impl Fn() -> Option<String> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), look: Box::new(look) })
    }

    pub fn arm(&self, plan: Plan) {
        *self.state() = State { plan: Some(plan), ..State::default() };
    }

    /// Nothing fails any more.
    pub fn disarm(&self) {
        let mut state = self.state();
        (state.plan, state.lasting) = (None, None);
    }

    /// Whether the fault has come since this was asked last. A lasting one is over now.
    pub fn tripped(&self) -> bool {
        let mut state = self.state();
        state.lasting = None;
        std::mem::take(&mut state.tripped)
    }

    /// The calls since this was asked last.
    pub fn drain(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    /// What readers saw that they must not have.
    pub fn complaints(&self) -> Vec<String> {
        self.state().seen.clone()
    }

    /// One call; true if it has to fail.
    fn call(&self, edge: Edge, name: &str) -> bool {
        let seen = (self.look)();
        let mut state = self.state();
        state.seen.extend(seen.map(|seen| format!("at {edge:?} {name}: {seen}")));
        state.calls.push(format!("{edge:?} {name}"));
        let concerns = |only: Option<Edge>| only.is_none_or(|only| only == edge);
        if state.lasting.is_some_and(concerns) {
            return true;
        }
        let Some(plan) = &mut state.plan else { return false };
        if !concerns(plan.edge) {
            return false;
        }
        plan.nth -= 1;
        if plan.nth > 0 {
            return false;
        }
        let (fault, only) = (plan.fault, plan.edge);
        state.plan = None;
        state.tripped = true;
        state.lasting = match fault {
            Fault::Once | Fault::Panic => None,
            Fault::Lasting => Some(only),
            Fault::Death => Some(None),
        };
        drop(state);
        assert!(fault != Fault::Panic, "panics on purpose");
        true
    }

    fn io<T>(&self, edge: Edge, name: &str, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.call(edge, name) { Err(io::Error::other("failed on purpose")) } else { call() }
    }

    /// For `Store::intercept`.
    pub fn before_write(self: &Arc<Self>) -> impl Fn() -> io::Result<()> + Send + Sync + 'static {
        let switch = self.clone();
        move || switch.io(Edge::Store, "write", || Ok(()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The real mounter behind the switch.
pub struct Mounts {
    pub tmpfs: Arc<Tmpfs>,
    pub switch: Arc<Switch>,
}

impl Mounter for Mounts {
    fn create(&self, volume: &str, size: u64) -> io::Result<PathBuf> {
        self.switch.io(Edge::Mounter, "create", || self.tmpfs.create(volume, size))
    }
    fn share(&self, volume: &str) -> io::Result<()> {
        self.switch.io(Edge::Mounter, "share", || self.tmpfs.share(volume))
    }
    fn resize(&self, volume: &str, size: u64) -> io::Result<()> {
        self.switch.io(Edge::Mounter, "resize", || self.tmpfs.resize(volume, size))
    }
    fn destroy(&self, volume: &str) -> io::Result<()> {
        self.switch.io(Edge::Mounter, "destroy", || self.tmpfs.destroy(volume))
    }
    fn shared(&self) -> io::Result<Vec<String>> {
        self.switch.io(Edge::Mounter, "shared", || self.tmpfs.shared())
    }
    fn adopt(&self, volume: &str) -> io::Result<PathBuf> {
        self.switch.io(Edge::Mounter, "adopt", || self.tmpfs.adopt(volume))
    }
    fn orphans(&self) -> io::Result<Vec<Orphan>> {
        self.switch.io(Edge::Mounter, "orphans", || self.tmpfs.orphans())
    }
    fn take_back(&self, orphan: &Orphan) -> io::Result<()> {
        self.switch.io(Edge::Mounter, "take_back", || self.tmpfs.take_back(orphan))
    }
    fn mountpoint(&self, volume: &str) -> PathBuf {
        self.tmpfs.mountpoint(volume)
    }
    fn owner(&self) -> &str {
        self.tmpfs.owner()
    }
}

/// Secrets that the test sets, behind the switch. It has versions.
pub struct Secrets {
    pub switch: Arc<Switch>,
    pub batched: bool,
    pub kind: ErrorKind,
    secrets: Mutex<HashMap<String, (String, Vec<u8>)>>,
}

// === impl Secrets ===

impl Secrets {
    pub fn new(switch: Arc<Switch>, kind: ErrorKind, batched: bool) -> Arc<Self> {
        Arc::new(Self { switch, batched, kind, secrets: Mutex::default() })
    }

    pub fn put(&self, path: &str, version: &str, value: Vec<u8>) {
        self.secrets.lock().unwrap().insert(path.into(), (version.into(), value));
    }

    fn error(&self) -> ProviderError {
        let pause = (self.kind == ErrorKind::Throttled).then_some(Duration::from_secs(3));
        ProviderError::new(self.kind, "failed on purpose").retry_after(pause)
    }

    fn find(&self, id: &SecretId) -> (SecretVersion, Vec<u8>) {
        let (version, value) = self.secrets.lock().unwrap()[id.path()].clone();
        (SecretVersion::new(version, ""), value)
    }
}

#[async_trait]
impl Provider for Secrets {
    fn identity(&self) -> String {
        "a test".into()
    }

    fn validate(&self, _: &SecretId) -> Result<(), String> {
        Ok(())
    }

    async fn read(&self, id: &SecretId) -> Result<Secret, ProviderError> {
        if self.switch.call(Edge::Provider, "read") {
            return Err(self.error());
        }
        let (version, value) = self.find(id);
        Ok(Secret { version, value: SecretValue::new(value) })
    }

    fn batch(&self, _: &SecretId) -> Option<String> {
        self.batched.then(|| "all".into())
    }

    async fn versions(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        let failed = self.switch.call(Edge::Provider, "versions");
        let answer =
            |id: &Arc<SecretId>| if failed { Err(self.error()) } else { Ok(Observed::Version(self.find(id).0)) };
        ids.iter().map(answer).collect()
    }

    async fn run(&self, _: Pushes, cancel: CancellationToken) {
        cancel.cancelled().await;
    }
}
