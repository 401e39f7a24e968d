//! What happens, told to whoever looks: a bounded memory of the last events, and live ones to any number of listeners.
//!
//! # Guarantees
//! - Who tells never waits: a listener that is slow loses its oldest events, and is told how many (`lost`).
//! - The end of what a listener asked for is never among the lost: nothing of it comes after that.
//!
//! # Caveats
//! - Events are for people and their tools. Nothing in dso acts on them, and they do not outlive the process.

use serde::Serialize;
use serde_json::json;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use tokio::sync::Notify;

/// How many events are remembered, and how many wait for one listener.
pub const REMEMBERED: usize = 1024;
/// Listeners at a time.
pub const LISTENERS: usize = 64;

/// Every kind of event; docs/operations.md says when each is told.
pub const KINDS: [&str; 12] = [
    "mounted",
    "unmounted",
    "mount_failed",
    "rollout_started",
    "container",
    "decided",
    "stale",
    "current",
    "refreshed",
    "label_fault",
    "settings",
    "lost",
];

/// All events of this process.
#[derive(Default)]
pub struct Events {
    state: Mutex<State>,
    lost: AtomicU64,
    requests: AtomicU64,
}

/// One event, as a line of JSON.
#[derive(Debug)]
pub struct Event {
    pub id: u64,
    pub kind: &'static str,
    pub volume: Option<String>,
    /// The request that ends with this event.
    request: Option<u64>,
    pub line: String,
}

/// What a listener wants to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Everything,
    /// What happens to the volume until this request has ended.
    Request {
        volume: String,
        request: u64,
    },
}

/// Somebody who listens, until dropped.
pub struct Listener(Arc<Queue>);

/// As many listen as may.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Default)]
struct State {
    last: u64,
    remembered: VecDeque<Arc<Event>>,
    listeners: Vec<Weak<Queue>>,
}

struct Queue {
    wish: Wish,
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Arc<Event>>,
    /// How many were lost since the last was taken, and the last of them.
    lost: u64,
    last_lost: u64,
    is_over: bool,
}

#[derive(Serialize)]
struct Line<'a, T> {
    id: u64,
    time: String,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<&'a str>,
    #[serde(flatten)]
    fields: T,
}

// === impl Events ===

impl Events {
    /// Tells that `kind` happened, with flat `fields`: an object.
    pub fn tell(&self, kind: &'static str, volume: Option<&str>, fields: impl Serialize) {
        self.add(kind, volume, None, fields);
    }

    /// Tells that a request has ended.
    pub fn answer(&self, kind: &'static str, volume: &str, request: u64, fields: impl Serialize) {
        self.add(kind, Some(volume), Some(request), fields);
    }

    /// A number by which a request is known.
    pub fn request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The last events, oldest first.
    pub fn remembered(&self) -> Vec<Arc<Event>> {
        self.lock().remembered.iter().cloned().collect()
    }

    /// Hears of everything that is remembered, and of what comes. With a request, only of what comes.
    pub fn listen(&self, wish: Wish) -> Result<Listener, Full> {
        let mut state = self.lock();
        state.listeners.retain(|listener| listener.strong_count() > 0);
        if state.listeners.len() >= LISTENERS {
            return Err(Full);
        }
        let mut waiting = Waiting::default();
        if wish == Wish::Everything {
            waiting.events = state.remembered.clone();
        }
        let queue = Arc::new(Queue { wish, waiting: Mutex::new(waiting), more: Notify::new() });
        state.listeners.push(Arc::downgrade(&queue));
        Ok(Listener(queue))
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.lock().listeners.iter().filter(|listener| listener.strong_count() > 0).count()
    }

    /// How many events slow listeners have lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn add(&self, kind: &'static str, volume: Option<&str>, request: Option<u64>, fields: impl Serialize) {
        debug_assert!(KINDS.contains(&kind), "an undocumented event");
        let mut state = self.lock();
        state.last += 1;
        let id = state.last;
        let event =
            Event { id, kind, volume: volume.map(str::to_owned), request, line: line(id, kind, volume, fields) };
        let event = Arc::new(event);
        if state.remembered.len() == REMEMBERED {
            state.remembered.pop_front();
        }
        state.remembered.push_back(event.clone());
        state.listeners.retain(|listener| match listener.upgrade() {
            Some(queue) => {
                self.lost.fetch_add(queue.push(&event), Ordering::Relaxed);
                true
            }
            None => false,
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

// === impl Listener ===

impl Listener {
    /// The next line; `None` when the request that was listened for has ended.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            let more = self.0.more.notified();
            if let Some(next) = self.0.take() {
                return next;
            }
            more.await;
        }
    }
}

// === impl Queue ===

impl Queue {
    /// Takes the event in if it is wanted; returns how many others had to go for it.
    fn push(&self, event: &Arc<Event>) -> u64 {
        let mut waiting = lock(&self.waiting);
        if waiting.is_over || !self.wish.wants(event) {
            return 0;
        }
        waiting.is_over = self.wish.ends_with(event);
        let mut gone = 0;
        if waiting.events.len() >= REMEMBERED
            && let Some(old) = waiting.events.pop_front()
        {
            (waiting.lost, waiting.last_lost, gone) = (waiting.lost + 1, old.id, 1);
        }
        waiting.events.push_back(event.clone());
        drop(waiting);
        self.more.notify_one();
        gone
    }

    /// The next line; the outer `None` where there is none yet, the inner one where there will be none.
    fn take(&self) -> Option<Option<String>> {
        let mut waiting = lock(&self.waiting);
        if waiting.lost > 0 {
            let count = std::mem::take(&mut waiting.lost);
            return Some(Some(line(waiting.last_lost, "lost", None, json!({ "count": count }))));
        }
        match waiting.events.pop_front() {
            Some(event) => Some(Some(event.line.clone())),
            None if waiting.is_over => Some(None),
            None => None,
        }
    }
}

// === impl Wish ===

impl Wish {
    fn wants(&self, event: &Event) -> bool {
        match self {
            Self::Everything => true,
            // The end of another's request is not this one's.
            Self::Request { volume, request } => {
                event.volume.as_ref() == Some(volume) && event.request.is_none_or(|ended| ended == *request)
            }
        }
    }

    fn ends_with(&self, event: &Event) -> bool {
        matches!(self, Self::Request { request, .. } if event.request == Some(*request))
    }
}

fn line(id: u64, event: &str, volume: Option<&str>, fields: impl Serialize) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    serde_json::to_string(&Line { id, time, event, volume, fields }).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole events are added and taken: a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(10);

    fn count(listener: &Listener) -> usize {
        lock(&listener.0.waiting).events.len()
    }

    async fn next(listener: &mut Listener) -> Value {
        let line = timeout(SOON, listener.next()).await.expect("an event");
        serde_json::from_str(&line.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_listener_hears_what_is_remembered_and_then_what_comes() {
        let events = Events::default();
        events.tell("settings", None, json!({"fault": null}));
        let mut listener = events.listen(Wish::Everything).unwrap();
        events.tell("mounted", Some("v"), json!({"generation": 1}));
        let first = next(&mut listener).await;
        assert_eq!((&first["id"], &first["event"], &first["fault"]), (&json!(1), &json!("settings"), &Value::Null));
        assert!(first.get("volume").is_none() && humantime::parse_rfc3339(first["time"].as_str().unwrap()).is_ok());
        let second = next(&mut listener).await;
        assert_eq!((&second["id"], &second["volume"], &second["generation"]), (&json!(2), &json!("v"), &json!(1)));
        let pending = timeout(Duration::from_millis(10), listener.next()).await;
        assert!(pending.is_err(), "it waits for more");
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_many_it_lost_and_keeps_the_newest() {
        let events = Events::default();
        let mut listener = events.listen(Wish::Everything).unwrap();
        for n in 0..REMEMBERED + 10 {
            events.tell("mounted", None, json!({"n": n}));
        }
        assert_eq!((events.remembered().len(), count(&listener), events.lost()), (REMEMBERED, REMEMBERED, 10));
        let lost = next(&mut listener).await;
        assert_eq!((&lost["event"], &lost["count"], &lost["id"]), (&json!("lost"), &json!(10), &json!(10)));
        assert_eq!(next(&mut listener).await["id"], 11);
        drop(listener);
        assert_eq!(events.listeners(), 0);
    }

    #[tokio::test]
    async fn a_request_hears_its_volume_alone_until_its_own_end_however_slow_it_is() {
        let events = Events::default();
        let (mine, other) = (events.request(), events.request());
        let mut listener = events.listen(Wish::Request { volume: "v".into(), request: mine }).unwrap();
        events.tell("mounted", Some("w"), json!({}));
        events.answer("refreshed", "v", other, json!({"ok": true}));
        for _ in 0..2 * REMEMBERED {
            events.tell("mounted", Some("v"), json!({}));
        }
        events.answer("refreshed", "v", mine, json!({"ok": true}));
        for _ in 0..2 * REMEMBERED {
            events.tell("mounted", Some("v"), json!({}));
        }
        let mut heard = Vec::new();
        while let Some(line) = timeout(SOON, listener.next()).await.expect("an end") {
            heard.push(serde_json::from_str::<Value>(&line).unwrap());
        }
        assert_eq!(heard.len(), 1 + REMEMBERED, "what was lost, and the newest");
        let kinds = |kind: &str| heard.iter().filter(|event| event["event"] == kind).count();
        assert_eq!((kinds("lost"), kinds("refreshed"), &heard.last().unwrap()["event"]), (1, 1, &json!("refreshed")));
    }

    #[test]
    fn listeners_are_bounded_and_those_that_left_do_not_count() {
        let events = Events::default();
        let held: Vec<_> = (0..LISTENERS).map(|_| events.listen(Wish::Everything).unwrap()).collect();
        assert!(events.listen(Wish::Everything).is_err());
        drop(held);
        assert!(events.listen(Wish::Everything).is_ok());
    }
}
