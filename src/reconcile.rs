//! The loop that keeps what volumes show equal to what providers have.
//!
//! Everything that happens is told as a volume's name or as a check that is due; what to do is found by
//! comparing. One queue owns time. There are never two runs for one key, and a key that comes
//! while it runs is run again.
//!
//! Docker events join here as one more source of names.

pub mod queue;

use crate::{
    driver::{CheckKey, Driver, Event, Wanted},
    volume::VolumeName,
};
use queue::Queue;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// What the queue holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Ask a provider whether something changed.
    Check(CheckKey),
    /// Make a volume equal to what the checks have told of.
    Volume(VolumeName),
    /// Drop values that nobody needs any more.
    Evict,
}

/// When to run a key again.
struct Done {
    key: Key,
    again: Option<Duration>,
    /// What else to run, and how soon.
    then: Vec<(Key, Duration)>,
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

/// Runs until `cancel`; then lets what has begun end.
pub async fn run(driver: Arc<Driver>, mut sources: Sources, cancel: CancellationToken) {
    let mut queue = Queue::default();
    let (mut running, mut keys) = (JoinSet::new(), HashMap::new());
    queue.push(Key::Evict, Instant::now() + EVICT_EVERY);
    loop {
        while running.len() < PARALLEL {
            let Some((key, failures)) = queue.pop(Instant::now()) else { break };
            let task = running.spawn(run_key(driver.clone(), key.clone(), failures));
            keys.insert(task.id(), key);
        }
        let next = queue.next().filter(|_| running.len() < PARALLEL);
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            Some(ended) = running.join_next_with_id() => {
                let key = keys.remove(&ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id));
                match (ended, key) {
                    (Ok((_, done)), _) => finish(&mut queue, done),
                    // The panic hook has logged it. The key must not stay marked as running: it would never run again.
                    (Err(_), Some(key)) => finish(&mut queue, Done { key, again: Some(AFTER_PANIC), then: Vec::new() }),
                    (Err(_), None) => {}
                }
            }
            Some(event) = sources.driver.recv() => accept(&driver, &mut queue, event),
            Some(provider) = sources.pushes.recv() => push_checks(&driver, &mut queue, &provider),
            () = sleep_until(next.unwrap_or_else(far)), if next.is_some() => {}
        }
    }
    while running.join_next().await.is_some() {}
}

fn accept(driver: &Driver, queue: &mut Queue<Key>, event: Event) {
    let (name, wanted) = match event {
        Event::Projected(name) => (name, Wanted::AsPlanned),
        Event::Joined(name) => (name, Wanted::Soon),
    };
    schedule(driver, queue, &name, wanted);
}

fn push_checks(driver: &Driver, queue: &mut Queue<Key>, provider: &str) {
    for name in driver.checks_of_provider(provider) {
        schedule(driver, queue, &name, Wanted::Now);
    }
}

fn schedule(driver: &Driver, queue: &mut Queue<Key>, name: &VolumeName, wanted: Wanted) {
    for (key, delay) in driver.checks(name, wanted) {
        queue.push(Key::Check(key), Instant::now() + delay);
    }
}

async fn run_key(driver: Arc<Driver>, key: Key, failures: u32) -> Done {
    let (again, then) = match &key {
        Key::Check(check) => {
            let checked = driver.check(check).await;
            let volumes = checked.volumes.into_iter().map(|name| (Key::Volume(name), Duration::ZERO));
            let checks = checked.next.into_iter().map(|(key, delay)| (Key::Check(key), delay));
            (None, volumes.chain(checks).collect())
        }
        Key::Volume(name) => match driver.refresh(name).await {
            Err(error) if error.is_transient() => (Some(RETRY * (1 << failures.min(RETRY_MAX))), Vec::new()),
            // A fault that lasts is looked at again after the next check, and costs nothing until then.
            _ => (None, Vec::new()),
        },
        Key::Evict => {
            driver.evict();
            (Some(EVICT_EVERY), Vec::new())
        }
    };
    Done { key, again, then }
}

fn finish(queue: &mut Queue<Key>, done: Done) {
    let Done { key, again, then } = done;
    let retried = matches!(key, Key::Volume(_)) && again.is_some();
    queue.done(&key, again.map(|delay| Instant::now() + delay), retried);
    for (key, delay) in then {
        queue.push(key, Instant::now() + delay);
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[cfg(test)]
mod tests;
