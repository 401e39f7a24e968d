//! One volume's life, step by step, and what must hold after each step.

use crate::{
    edges::{Fault, Mounts, Plan, Secrets, Switch},
    world::{World, names},
};
use dso::{
    docker::{ContainerRuntime, Engine},
    driver::{Driver, Event, Parts, Refreshed, State, Wanted},
    projection::Tmpfs,
    provider::{Cache, ErrorKind, Provider, Registry},
    reconcile::{self, Sources, policy::Policy, rollout::Rollouts, table::Table},
    volume::{MountId, Store, VolumeName},
};
use rustix::mount::{self, MountPropagationFlags as Propagation, UnmountFlags};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    ops::Range,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Create,
    Mount(&'static str),
    /// The secrets change at their provider.
    Change,
    /// The checks that are due, and what follows from them.
    Check,
    Unmount(&'static str),
    Remove,
}

pub const LIFE: [Step; 10] = [
    Step::Create,
    Step::Mount("a"),
    Step::Mount("b"),
    Step::Change,
    Step::Check,
    Step::Unmount("a"),
    Step::Unmount("b"),
    Step::Mount("c"),
    Step::Unmount("c"),
    Step::Remove,
];

const VOLUME: &str = "v";
const ENGINE: &str = "7:1";
/// So much that two generations do not fit into the volume's size, and it has to be grown.
const FILLING: usize = 12 << 10;
const SIZE: &str = "80k";

/// A plugin, its host and its provider.
pub struct Life<'a> {
    world: &'a World,
    pub switch: Arc<Switch>,
    provider: Arc<Secrets>,
    process: Process,
    /// The binds of the containers, by mount ID.
    containers: BTreeMap<&'static str, PathBuf>,
    binds: Binds,
    /// What the provider has.
    newest: u32,
    generation: u64,
}

type Binds = Arc<Mutex<Vec<PathBuf>>>;

/// What goes when the plugin's process dies.
struct Process {
    driver: Arc<Driver>,
    tasks: TaskTracker,
    told: Option<mpsc::UnboundedReceiver<Event>>,
}

// === impl Life ===

impl<'a> Life<'a> {
    pub async fn begin(world: &'a World, kind: ErrorKind, batched: bool) -> Self {
        let binds = Binds::default();
        let seen = binds.clone();
        let look = move || seen.lock().unwrap().iter().find_map(|dir| generation(dir).err());
        let switch = Switch::new(look);
        let provider = Secrets::new(switch.clone(), kind, batched);
        let process = Process::start(world, world.tmpfs(), &switch, &provider).await.unwrap();
        let containers = BTreeMap::new();
        let mut life = Self { world, switch, provider, process, containers, binds, newest: 0, generation: 0 };
        life.change();
        life
    }

    /// The whole life, with `plan`'s fault in it and restarts after the steps of these numbers. Tells whether the fault came.
    pub async fn live(&mut self, plan: Option<Plan>, restarts: &[usize]) -> bool {
        if let Some(plan) = plan {
            self.switch.arm(plan);
        }
        let came = self.go_on(0..LIFE.len(), plan, restarts).await;
        self.switch.disarm();
        came
    }

    /// The steps of these numbers.
    pub async fn go_on(&mut self, steps: Range<usize>, plan: Option<Plan>, restarts: &[usize]) -> bool {
        let mut came = false;
        for at in steps {
            let step = LIFE[at];
            let context = format!("{step:?} (step {at}) with {plan:?}, restarts {restarts:?}");
            let mut result = self.perform(step).await;
            let tripped = self.switch.tripped();
            came |= tripped;
            if plan.is_some_and(|plan| tripped && plan.fault == Fault::Death) {
                self.restart().await;
            }
            self.assert_whole(&context);
            if tripped && result.is_err() {
                let aftermath = format!("{context}, after {:?}", result.unwrap_err());
                self.assert_nothing_served_after_a_failed(step, &aftermath);
                tokio::time::advance(Duration::from_secs(5)).await;
                result = self.perform(step).await;
            }
            result.unwrap_or_else(|error| panic!("{context}: {error}; calls {:?}", self.switch.drain()));
            if restarts.contains(&at) {
                self.restart().await;
            }
            self.assert_orderly(step, tripped, &context);
            tokio::time::advance(Duration::from_secs(5)).await;
        }
        came
    }

    /// The process is gone, and another begins over the same folders; if its start fails, the engine starts one more.
    /// Tells whether a fault came meanwhile.
    pub async fn restart(&mut self) -> bool {
        let mut came = false;
        loop {
            self.process.end().await;
            let tmpfs = self.world.restart_plugin();
            let started = Process::start(self.world, tmpfs, &self.switch, &self.provider).await;
            let tripped = self.switch.tripped();
            came |= tripped;
            match started {
                Ok(process) => self.process = process,
                Err(_) if tripped => continue,
                Err(error) => panic!("the plugin does not start: {error}"),
            }
            return came;
        }
    }

    /// The queue of `reconcile` over this process, until it is told to stop. The engine does not answer all that time.
    pub fn keep_current(&mut self) -> CancellationToken {
        let (cancel, (_, pushes)) = (CancellationToken::new(), mpsc::unbounded_channel());
        let sources = Sources { driver: self.process.told.take().unwrap(), pushes };
        let (driver, table) = (self.process.driver.clone(), Arc::new(Table::default()));
        let engine = Arc::new(Engine::at(self.world.base.join("no-engine.sock")));
        let runtime: Arc<dyn ContainerRuntime> = engine.clone();
        let journal = self.world.base.join("plugin/data/journal");
        let rollouts = Rollouts::new(driver.clone(), runtime.clone(), Policy::default(), table.clone(), journal);
        let rollouts = Arc::new(rollouts.unwrap());
        let parts = reconcile::Parts { driver, runtime, swarm: engine, rollouts, table };
        self.process.tasks.spawn(reconcile::run(parts, sources, cancel.clone()));
        cancel
    }

    /// Whether every container reads what the provider has.
    pub fn is_current(&self) -> bool {
        let newest = (self.newest, self.newest);
        self.containers.values().all(|bind| generation(bind).is_ok_and(|shown| shown == newest))
    }

    pub async fn perform(&mut self, step: Step) -> Result<(), String> {
        let driver = self.process.driver.clone();
        let text = |error: dso::driver::DriverError| error.to_string();
        match step {
            Step::Create => driver.create(VOLUME, options()).await.map_err(text),
            Step::Mount(id) => {
                let at = driver.mount(VOLUME, MountId::new(id), ENGINE).await.map_err(text)?;
                assert!(at.ends_with(VOLUME));
                self.contain(id);
                Ok(())
            }
            Step::Change => {
                self.change();
                Ok(())
            }
            Step::Check => self.check().await,
            Step::Unmount(id) => {
                // The engine takes the container's bind away first.
                if let Some(bind) = self.containers.remove(id) {
                    self.binds.lock().unwrap().retain(|other| *other != bind);
                    mount::unmount(&bind, UnmountFlags::DETACH).unwrap();
                    fs::remove_dir(bind).unwrap();
                }
                driver.unmount(VOLUME, &MountId::new(id)).await.map_err(text)
            }
            Step::Remove => driver.remove(VOLUME, ENGINE).await.map_err(text),
        }
    }

    /// What is left of a life that has ended: nothing.
    pub fn assert_nothing_left(&self, context: &str) {
        assert_eq!(self.volume_mounts(), Vec::<PathBuf>::new(), "{context}");
        for place in ["plugin/data/volumes", "plugin/data/state", "plugin/run/dso/rw", "plugin/run/dso/ro"] {
            assert_eq!(names(&self.world.base.join(place)), Vec::<String>::new(), "{place}: {context}");
        }
        assert_eq!(self.process.driver.list(), [], "{context}");
        assert_eq!(self.switch.complaints(), Vec::<String>::new(), "{context}");
    }

    async fn check(&self) -> Result<(), String> {
        let (driver, name) = (&self.process.driver, VOLUME.parse::<VolumeName>().unwrap());
        for (key, _) in driver.checks(&name, Wanted::Now) {
            let driver = driver.clone();
            // In a task of its own, as the queue does: it may panic.
            let _ = tokio::spawn(async move { driver.check(&key).await }).await;
        }
        let driver = driver.clone();
        match tokio::spawn(async move { driver.refresh(&name).await }).await {
            Ok(Ok(Refreshed::Current | Refreshed::Rotated { .. })) => {}
            other => return Err(format!("{other:?}")),
        };
        for bind in self.containers.values() {
            let shown = generation(bind).unwrap();
            if shown != (self.newest, self.newest) {
                return Err(format!("{} shows {shown:?}, and the newest is {}", bind.display(), self.newest));
            }
        }
        Ok(())
    }

    fn change(&mut self) {
        self.newest += 1;
        let (label, filling) = (self.newest.to_string(), "x".repeat(FILLING));
        let fields = format!(r#"{{"a":"{label} {filling}","b":"{label} {filling}"}}"#);
        self.provider.put("app", &label, fields.into());
        self.provider.put("two", &label, label.clone().into());
    }

    fn contain(&mut self, id: &'static str) {
        if self.containers.contains_key(id) {
            return;
        }
        let inside = self.world.base.join(format!("container-{id}"));
        fs::create_dir(&inside).unwrap();
        mount::mount_bind(self.world.on_host(VOLUME), &inside).unwrap();
        mount::mount_change(&inside, Propagation::PRIVATE).unwrap();
        self.binds.lock().unwrap().push(inside.clone());
        self.containers.insert(id, inside);
    }

    fn volume_mounts(&self) -> Vec<PathBuf> {
        let mut mounts = self.world.volume_mounts();
        mounts.retain(|point| !self.containers.values().any(|bind| bind == point));
        mounts
    }

    /// Every container reads one whole generation, the old or the new, whatever has failed.
    fn assert_whole(&self, context: &str) {
        assert_eq!(self.switch.complaints(), Vec::<String>::new(), "{context}");
        for bind in self.containers.values() {
            let (app, two) = generation(bind).unwrap_or_else(|fault| panic!("{context}: {fault}"));
            let known = self.newest - 1..=self.newest;
            assert!(known.contains(&app) && known.contains(&two), "{context}: {app} and {two}");
        }
    }

    fn assert_nothing_served_after_a_failed(&self, step: Step, context: &str) {
        if matches!(step, Step::Create | Step::Mount(_)) && self.containers.is_empty() {
            let host = self.world.on_host(VOLUME);
            assert!(!host.exists(), "{context}: {} is there: {:?}", host.display(), self.volume_mounts());
        }
    }

    /// What must hold after a step that succeeded, at once or when it was repeated.
    fn assert_orderly(&mut self, step: Step, tripped: bool, context: &str) {
        self.assert_whole(context);
        let (mounts, driver) = (self.containers.len() as u32, &self.process.driver);
        if mounts == 0 {
            assert_eq!(self.volume_mounts(), Vec::<PathBuf>::new(), "{context}");
            assert_eq!(names(&self.world.shared()), Vec::<String>::new(), "{context}");
        }
        assert_eq!(counted(&self.world.base.join("plugin/data/state/v.json")), u64::from(mounts), "{context}");
        if step == Step::Remove {
            assert_eq!(driver.list(), [], "{context}");
            return;
        }
        let listed = driver.list();
        assert!(listed.len() == 1 && listed[0].1.is_some() == (mounts > 0), "{context}: {listed:?}");
        let status = driver.inspect(VOLUME).unwrap().status;
        assert_eq!(status.mounts, mounts, "{context}");
        let expected = if mounts > 0 { State::Current } else { State::Idle };
        assert!(status.state == expected || tripped, "{context}: {status:?}");
        assert!(status.generation >= self.generation, "{context}: {status:?} after {}", self.generation);
        self.generation = status.generation;
    }
}

// === impl Process ===

impl Process {
    async fn start(
        world: &World,
        tmpfs: Arc<Tmpfs>,
        switch: &Arc<Switch>,
        provider: &Arc<Secrets>,
    ) -> io::Result<Self> {
        let (events, told) = mpsc::unbounded_channel();
        let (instance, tasks): (Arc<dyn Provider>, _) = (provider.clone(), TaskTracker::new());
        let driver = Driver::new(Parts {
            store: Store::open(world.base.join("plugin/data/state"))?.intercept(switch.before_write()),
            cache: Arc::new(Cache::new(Registry::of([("p".to_owned(), instance)]))),
            mounter: Arc::new(Mounts { tmpfs, switch: switch.clone() }),
            refresh: Duration::from_secs(30),
            boot: "boot".into(),
            events,
            tasks: tasks.clone(),
        });
        driver.start().await?;
        Ok(Self { driver, tasks, told: Some(told) })
    }

    /// Detached work of the old process must not go on beside the new one.
    async fn end(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn options() -> BTreeMap<String, String> {
    let template = "{{ secret('p://app#a') }}|{{ secret('p://two') }}";
    [("from", "p://app"), ("template.t", template), ("size", SIZE)]
        .map(|(key, value)| (key.into(), value.into()))
        .into()
}

/// The labels of both secrets, if all files that one resolution of `..data` leads to are there and agree.
fn generation(dir: &Path) -> Result<(u32, u32), String> {
    let entered = fs::File::open(dir.join("..data")).map_err(|error| format!("{}: {error}", dir.display()))?;
    let read = |name: &str| {
        let (mut text, path) = (String::new(), format!("/proc/self/fd/{}/{name}", entered.as_raw_fd()));
        let file = fs::File::open(&path).and_then(|mut file| file.read_to_string(&mut text));
        file.map_err(|error| format!("{}: {name}: {error}", dir.display()))?;
        Ok::<_, String>(text)
    };
    let (a, b, t) = (read("a")?, read("b")?, read("t")?);
    let (from_app, two) = t.split_once('|').ok_or("the template is cut off")?;
    if a.len() < FILLING || a != b || a != from_app {
        return Err(format!("{}: the files are not of one generation", dir.display()));
    }
    let label = a.split(' ').next().and_then(|label| label.parse().ok());
    Ok((label.ok_or("no label")?, two.parse().map_err(|_| "no label")?))
}

/// How often the volume is mounted by the record on disk; none, if there is no record.
fn counted(record: &Path) -> u64 {
    let Ok(text) = fs::read(record) else { return 0 };
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let mounts = record["ledger"]["mounts"].as_object().into_iter().flatten();
    mounts.map(|(_, mounts)| mounts["count"].as_u64().unwrap()).sum()
}
