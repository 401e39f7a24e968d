//! The loop that keeps what volumes show equal to what providers have, and their containers in step with it.
//!
//! Everything that happens is told as a volume's or a container's name, or as a check that is due; what to do is found by
//! comparing. One queue owns time. There are never two runs for one key, and a key that comes while it runs is run again:
//! changes that arrive during a rollout wait for its end, and are then one.

mod apply;
mod asked;
mod budget;
mod journal;
mod observe;
mod plan;
pub mod policy;
pub mod queue;
mod recipients;
mod report;
mod rolling;
pub mod rollout;
mod run;
mod services;
pub mod table;
mod trial;
mod verify;

use crate::{
    docker::{ContainerRuntime, Observed, Swarm},
    driver::{CheckKey, Driver, Event, Wanted},
    volume::VolumeName,
};
use asked::Asked;
use observe::{Observer, RESYNC, Then};
use queue::Queue;
use report::answer;
use rollout::{Action, Rollouts};
use services::Services;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use table::Table;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// What the queue holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Ask a provider whether something changed.
    Check(CheckKey),
    /// Make a volume equal to what the checks have told of, and its containers to it.
    Volume(VolumeName),
    /// Look at all containers.
    Engine,
    /// Look at the container with this ID.
    Container(String),
    /// Look at a volume's containers.
    Users(VolumeName),
    /// Start the container with this ID as soon as its volumes can be mounted.
    Start(String),
    /// Compare what volumes show with what they should, byte by byte.
    Mend,
    /// Drop values that nobody needs any more.
    Evict,
    /// Make the services of the Swarm equal to their secrets, if this node leads it.
    Services,
}

/// Why a volume is looked at. For the record alone: what is done depends on what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Checked,
    Forced,
    Resumed,
}

/// When to run a key again.
struct Done {
    key: Key,
    again: Option<Duration>,
    /// Whether it is run again because something was in the way.
    failed: bool,
    /// What else to run, and how soon.
    then: Then,
}

/// What the loop works with.
pub struct Parts {
    pub driver: Arc<Driver>,
    pub runtime: Arc<dyn ContainerRuntime>,
    pub swarm: Arc<dyn Swarm>,
    pub rollouts: Arc<Rollouts>,
    pub table: Arc<Table>,
}

/// Where names come from.
pub struct Sources {
    pub driver: mpsc::UnboundedReceiver<Event>,
    /// Providers that learn of changes by themselves; the item is the instance's name.
    pub pushes: mpsc::UnboundedReceiver<String>,
}

const EVICT_EVERY: Duration = Duration::from_secs(10);
/// Pause before a refresh that failed for a passing reason is tried again; doubles up to a minute.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: u32 = 6;
/// Pause before what ended in a panic is tried again.
const AFTER_PANIC: Duration = Duration::from_secs(30);
/// Runs at the same time. More would not be faster: a run waits for a provider or for the kernel.
const PARALLEL: usize = 32;
/// Volumes that are looked at at the same time. These may wait for containers, for minutes.
const ROLLOUTS: usize = 256;
/// How long the end waits for what has begun. A rollout goes on where it was when the next process begins.
const DRAIN: Duration = Duration::from_secs(5);

/// What a run works with.
struct Context {
    driver: Arc<Driver>,
    observer: Observer,
    rollouts: Arc<Rollouts>,
    services: Services,
    slots: Semaphore,
    rollout_slots: Semaphore,
    /// An engine that hangs must not keep secrets from being checked, nor containers that wait for a provider.
    engine_slots: Semaphore,
    start_slots: Semaphore,
    causes: Mutex<HashMap<VolumeName, Cause>>,
    asked: Mutex<Asked>,
}

/// Runs until `cancel`; then lets what has begun end.
pub async fn run(parts: Parts, sources: Sources, cancel: CancellationToken) {
    let Parts { driver, runtime, swarm, rollouts, table } = parts;
    let (tell, observed) = mpsc::channel(1024);
    let watching = runtime.clone();
    let mut watcher = JoinSet::new();
    watcher.spawn(async move { watching.watch(tell).await });
    let observer = Observer::new(driver.clone(), runtime, table, rollouts.clone());
    let settings = rollouts.clone();
    let services = Services::new(driver.clone(), swarm, move || settings.policy());
    let context = Arc::new(Context::new(driver, observer, rollouts, services));
    turn(&context, sources, observed, cancel).await;
}

async fn turn(
    context: &Arc<Context>,
    mut sources: Sources,
    mut observed: mpsc::Receiver<Observed>,
    cancel: CancellationToken,
) {
    let mut queue = Queue::default();
    let (mut running, mut keys) = (JoinSet::new(), HashMap::new());
    queue.push(Key::Evict, Instant::now() + EVICT_EVERY);
    queue.push(Key::Mend, Instant::now() + RESYNC);
    queue.push(Key::Services, Instant::now());
    loop {
        context.driver.note_turn();
        let mut due = queue.next();
        while let Some((key, failures)) = queue.pop(Instant::now()) {
            context.asked().began(&key);
            let since = due.unwrap_or_else(Instant::now);
            let task = running.spawn(run_key(context.clone(), key.clone(), failures, since));
            keys.insert(task.id(), key);
            due = queue.next();
        }
        context.driver.metrics().planned(queue.planned());
        let next = queue.next();
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            Some(ended) = running.join_next_with_id() => {
                let key = keys.remove(&ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id));
                match (ended, key) {
                    (Ok((_, done)), _) => finish(context, &mut queue, done),
                    // The panic hook has logged it. The key must not stay marked as running: it would never run again.
                    (Err(_), Some(key)) => {
                        finish(context, &mut queue, Done { key, again: Some(AFTER_PANIC), failed: true, then: Vec::new() });
                    }
                    (Err(_), None) => {}
                }
            }
            Some(event) = sources.driver.recv() => accept(context, &mut queue, event),
            Some(provider) = sources.pushes.recv() => push_checks(context, &mut queue, &provider),
            Some(seen) = observed.recv() => see(context, &mut queue, seen),
            () = sleep_until(next.unwrap_or_else(far)), if next.is_some() => {}
        }
    }
    let ended = async { while running.join_next().await.is_some() {} };
    if timeout(DRAIN, ended).await.is_err() {
        tracing::info!("work is broken off: its journal tells the next process where to go on");
    }
}

fn accept(context: &Context, queue: &mut Queue<Key>, event: Event) {
    let (name, wanted) = match event {
        Event::Projected(name) => (name, Wanted::AsPlanned),
        Event::Joined(name) => (name, Wanted::Soon),
        Event::Served if context.services.is_leading() => return,
        Event::Served | Event::Interval => return queue.push(Key::Services, Instant::now()),
        Event::Removed(name) => {
            context.rollouts.note_gone(&name);
            let asks = context.asked().gone(&name);
            asks.iter().for_each(|ask| answer::gone(&context.driver, &name, ask.request));
            return queue.push(Key::Volume(name), Instant::now());
        }
        Event::Forced(name, request) => return ask(context, queue, &name, request),
    };
    drop(schedule(&context.driver, queue, &name, wanted));
}

fn ask(context: &Context, queue: &mut Queue<Key>, name: &VolumeName, request: u64) {
    if !context.driver.has(name) {
        return answer::gone(&context.driver, name, request);
    }
    context.note_cause(name, Cause::Forced);
    queue.push(Key::Volume(name.clone()), Instant::now());
    let checks = schedule(&context.driver, queue, name, Wanted::Now);
    context.asked().add(name, request, context.driver.decisions(name), checks);
}

fn push_checks(context: &Context, queue: &mut Queue<Key>, provider: &str) {
    for name in context.driver.checks_of_provider(provider) {
        drop(schedule(&context.driver, queue, &name, Wanted::Now));
    }
    context.services.hurry(provider);
    queue.push(Key::Services, Instant::now());
}

fn see(context: &Context, queue: &mut Queue<Key>, seen: Observed) {
    let key = match seen {
        Observed::Lost => return context.observer.lost(),
        Observed::Connected => Key::Engine,
        Observed::Container(id) => Key::Container(id),
        Observed::Volume(name) => match name.parse() {
            Ok(name) if context.driver.has(&name) => Key::Users(name),
            _ => return,
        },
    };
    queue.push(key, Instant::now());
}

fn schedule(driver: &Driver, queue: &mut Queue<Key>, name: &VolumeName, wanted: Wanted) -> Vec<CheckKey> {
    let checks = driver.checks(name, wanted);
    for (key, delay) in &checks {
        queue.push(Key::Check(key.clone()), Instant::now() + *delay);
    }
    checks.into_iter().map(|(key, _)| key).collect()
}

async fn run_key(context: Arc<Context>, key: Key, failures: u32, due: Instant) -> Done {
    let slots = match key {
        Key::Volume(_) => &context.rollout_slots,
        Key::Engine | Key::Container(_) | Key::Users(_) | Key::Services => &context.engine_slots,
        Key::Start(_) => &context.start_slots,
        Key::Check(_) | Key::Mend | Key::Evict => &context.slots,
    };
    let (driver, observer) = (&context.driver, &context.observer);
    let waits = driver.metrics().in_queue("waiting");
    // They are never closed.
    let _slot = slots.acquire().await;
    driver.metrics().waited(due.elapsed());
    drop(waits);
    let _runs = driver.metrics().in_queue("running");
    let mut failed = false;
    let (again, then) = match &key {
        Key::Check(check) => {
            let checked = driver.check(check).await;
            let volumes = checked.volumes.into_iter().map(|name| (Key::Volume(name), Duration::ZERO));
            let checks = checked.next.into_iter().map(|(key, delay)| (Key::Check(key), delay));
            (None, volumes.chain(checks).collect())
        }
        Key::Volume(name) => {
            let action = context.rollouts.reconcile(name, context.take_cause(name).as_str()).await;
            failed = action == Action::Retry;
            let again = match action {
                Action::Done => None,
                Action::Retry => Some(RETRY * (1 << failures.min(RETRY_MAX))),
                Action::After(delay) => Some(delay),
            };
            (again, Vec::new())
        }
        Key::Engine => observer.survey().await,
        Key::Container(id) => observer.look(id).await,
        Key::Users(name) => observer.users(name).await,
        Key::Start(id) => observer.start(id).await,
        Key::Mend => {
            mend(driver).await;
            (Some(RESYNC), Vec::new())
        }
        Key::Evict => {
            driver.evict();
            driver.audit().expire();
            (Some(EVICT_EVERY), Vec::new())
        }
        Key::Services => (context.services.reconcile().await, Vec::new()),
    };
    Done { key, again, failed, then }
}

async fn mend(driver: &Driver) {
    for name in driver.names() {
        if let Err(error) = driver.mend(&name).await {
            tracing::error!(volume = %name, %error, "cannot compare its files with what they should be");
        }
        tokio::task::yield_now().await;
    }
}

fn finish(context: &Context, queue: &mut Queue<Key>, done: Done) {
    let Done { key, again, failed, then } = done;
    queue.done(&key, again.map(|delay| Instant::now() + delay), failed);
    end_asks(context, queue, &key, &then, failed, again.is_some());
    for (key, delay) in then {
        if let Key::Volume(name) = &key {
            context.note_cause(name, Cause::Checked);
        }
        queue.push(key, Instant::now() + delay);
    }
}

/// Tells of looks that people asked for, and that have ended with this.
fn end_asks(context: &Context, queue: &mut Queue<Key>, key: &Key, then: &Then, failed: bool, again: bool) {
    match key {
        Key::Check(check) => {
            // What is due at once is what the check stands for no more.
            let handed_on = then.iter().filter_map(|(key, delay)| match key {
                Key::Check(other) if delay.is_zero() && other != check => Some(other),
                _ => None,
            });
            let ready = context.asked().checked(check, handed_on);
            for name in ready {
                context.note_cause(&name, Cause::Forced);
                queue.push(Key::Volume(name), Instant::now());
            }
        }
        Key::Volume(name) => {
            context.driver.tell_state(name);
            let waits = failed && context.rollouts.is_unfinished(name);
            let ended = context.asked().ran(name, waits);
            ended.iter().for_each(|ask| answer::ended(&context.driver, name, ask, failed, again && !failed));
        }
        _ => {}
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

// === impl Cause ===

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Checked => "a version check",
            Self::Forced => "a person asked",
            Self::Resumed => "taken up again",
        }
    }
}

// === impl Context ===

impl Context {
    fn new(driver: Arc<Driver>, observer: Observer, rollouts: Arc<Rollouts>, services: Services) -> Self {
        Self {
            driver,
            observer,
            rollouts,
            services,
            slots: Semaphore::new(PARALLEL),
            rollout_slots: Semaphore::new(ROLLOUTS),
            engine_slots: Semaphore::new(PARALLEL),
            start_slots: Semaphore::new(PARALLEL),
            causes: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came first is the cause; a person's wish goes before all others.
    fn note_cause(&self, name: &VolumeName, cause: Cause) {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = causes.entry(name.clone()).or_insert(cause);
        if cause == Cause::Forced {
            *noted = cause;
        }
    }

    fn take_cause(&self, name: &VolumeName) -> Cause {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        causes.remove(name).unwrap_or(Cause::Resumed)
    }
}

#[cfg(test)]
mod tests;
