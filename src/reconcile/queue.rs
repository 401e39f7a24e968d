//! A keyed, deduplicated queue of things that are due at some time. Pure: time comes from outside.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};
use tokio::time::Instant;

/// Keys and when each is due. A key is in it once: the sooner time counts.
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeMap<(Instant, u64), K>,
    keys: HashMap<K, Slot>,
    sequence: u64,
}

#[derive(Debug, Default)]
struct Slot {
    due: Option<(Instant, u64)>,
    running: bool,
    failures: u32,
}

// === impl Queue ===

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), keys: HashMap::new(), sequence: 0 }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Makes `key` due at `at`, unless it is due sooner already. A key that runs is run again after that.
    pub fn push(&mut self, key: K, at: Instant) {
        let slot = self.keys.entry(key.clone()).or_default();
        if let Some(old) = slot.due {
            if old.0 <= at {
                return;
            }
            self.due.remove(&old);
        }
        self.sequence += 1;
        slot.due = Some((at, self.sequence));
        if !slot.running {
            self.due.insert((at, self.sequence), key);
        }
    }

    /// Takes the key that has been due the longest, with the number of its failures in a row. It is not handed
    /// out again before [`Queue::done`].
    pub fn pop(&mut self, now: Instant) -> Option<(K, u32)> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let key = entry.remove();
        let slot = self.keys.get_mut(&key)?;
        slot.due = None;
        slot.running = true;
        Some((key, slot.failures))
    }

    /// A run has ended; `again` is when it wants to run next, `failed` whether it is a repetition of what failed.
    pub fn done(&mut self, key: &K, again: Option<Instant>, failed: bool) {
        let Some(slot) = self.keys.get_mut(key) else { return };
        slot.running = false;
        slot.failures = if failed { slot.failures.saturating_add(1) } else { 0 };
        if let Some(due) = slot.due {
            self.due.insert(due, key.clone());
        }
        match again {
            Some(at) => self.push(key.clone(), at),
            None if slot.due.is_none() => drop(self.keys.remove(key)),
            None => {}
        }
    }

    /// How many keys do not run, and are due at some time.
    pub fn planned(&self) -> usize {
        self.due.len()
    }

    /// When the next key is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_key_is_handed_out_once_at_its_sooner_time() {
        let (start, mut queue) = (Instant::now(), Queue::default());
        queue.push("a", after(start, 10));
        queue.push("a", after(start, 5));
        queue.push("a", after(start, 7));
        assert_eq!(queue.next(), Some(after(start, 5)));
        assert_eq!(queue.pop(after(start, 4)), None);
        assert_eq!(queue.pop(after(start, 5)), Some(("a", 0)));
        assert_eq!(queue.pop(after(start, 60)), None);
    }

    #[test]
    fn keys_come_in_the_order_in_which_they_are_due() {
        let (start, mut queue) = (Instant::now(), Queue::default());
        for (key, at) in [("c", 3), ("a", 1), ("b", 2), ("also a", 1)] {
            queue.push(key, after(start, at));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(after(start, 9))).map(|(key, _)| key).collect();
        assert_eq!(order, ["a", "also a", "b", "c"]);
    }

    #[test]
    fn a_key_that_comes_while_it_runs_is_run_again_and_never_twice_at_once() {
        let (start, mut queue) = (Instant::now(), Queue::default());
        queue.push("a", start);
        queue.pop(start).unwrap();
        queue.push("a", start);
        assert_eq!(queue.pop(start), None, "it still runs");
        queue.done(&"a", Some(after(start, 60)), false);
        assert_eq!(queue.pop(start), Some(("a", 0)), "what came meanwhile is sooner than what the run asked for");
        queue.done(&"a", None, false);
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn failures_in_a_row_are_counted_and_a_success_forgets_them() {
        let (start, mut queue) = (Instant::now(), Queue::default());
        queue.push("a", start);
        for failures in 0..3 {
            assert_eq!(queue.pop(start), Some(("a", failures)));
            queue.done(&"a", Some(start), true);
        }
        queue.pop(start).unwrap();
        queue.done(&"a", Some(start), false);
        assert_eq!(queue.pop(start), Some(("a", 0)));
    }
}
