//! The containers that mount volumes, as they were last looked at.

use crate::docker::{Container, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Shared by those who observe and those who decide.
#[derive(Debug, Default)]
pub struct Table(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    containers: BTreeMap<String, Container>,
    /// Volume → IDs: a volume's refresh must not look at every container.
    of: BTreeMap<String, BTreeSet<String>>,
    complete: bool,
}

// === impl Table ===

impl Table {
    /// These are all that there are.
    pub fn set(&self, containers: Vec<Container>) {
        let mut inner = Inner { complete: true, ..Inner::default() };
        for container in containers {
            inner.put(container);
        }
        *self.lock() = inner;
    }

    /// One that was looked at.
    pub fn put(&self, container: Container) {
        self.lock().put(container);
    }

    /// One that is gone.
    pub fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// From now on something may have happened that nobody told of. What was seen is kept: most of it will still be so.
    pub fn forget(&self) {
        self.lock().complete = false;
    }

    pub fn get(&self, id: &str) -> Option<Container> {
        self.lock().containers.get(id).cloned()
    }

    /// The containers that mount the volume, by ID.
    pub fn of(&self, volume: &str) -> Vec<Container> {
        let inner = self.lock();
        let ids = inner.of.get(volume).into_iter().flatten();
        ids.filter_map(|id| inner.containers.get(id).cloned()).collect()
    }

    /// Whether some container that mounts the volume is one of `wanted`. Copies nothing.
    pub fn any(&self, volume: &str, wanted: impl Fn(&Container) -> bool) -> bool {
        let inner = self.lock();
        let mut ids = inner.of.get(volume).into_iter().flatten();
        ids.any(|id| inner.containers.get(id).is_some_and(&wanted))
    }

    /// How often containers that run have the volume mounted.
    pub fn mounts(&self, volume: &str) -> usize {
        let inner = self.lock();
        let containers = inner.of.get(volume).into_iter().flatten().filter_map(|id| inner.containers.get(id));
        let running = containers.filter(|container| matches!(container.state, State::Running | State::Paused));
        running.flat_map(|container| &container.mounts).filter(|mount| mount.volume == volume).count()
    }

    /// False until the engine has listed its containers, and while its events are not heard.
    pub fn is_complete(&self) -> bool {
        self.lock().complete
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole before the lock is let go, also in a panic: nothing in them can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn put(&mut self, container: Container) {
        self.remove(&container.id);
        for mount in &container.mounts {
            self.of.entry(mount.volume.clone()).or_default().insert(container.id.clone());
        }
        self.containers.insert(container.id.clone(), container);
    }

    fn remove(&mut self, id: &str) {
        for mount in self.containers.remove(id).into_iter().flat_map(|container| container.mounts) {
            if let Some(ids) = self.of.get_mut(&mount.volume) {
                ids.remove(id);
                if ids.is_empty() {
                    self.of.remove(&mount.volume);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::scripted::{Engine, Script, VOLUME};

    #[test]
    fn a_container_is_found_by_its_volumes_as_it_was_last_looked_at() {
        let (table, engine) = (Table::default(), Engine::new(String::new));
        engine.run("a", "none", Script::default());
        engine.run("b", "none", Script::default());
        assert!(!table.is_complete());
        let [a, b] = &engine.list()[..] else { panic!("there are two") };
        table.put(a.clone());
        assert!(!table.is_complete(), "one that was looked at is not all");
        table.set(vec![a.clone(), b.clone()]);
        assert!(table.is_complete());
        assert_eq!(table.of(VOLUME), [a.clone(), b.clone()]);
        let mut moved = a.clone();
        moved.mounts[0].volume = "other".into();
        table.put(moved.clone());
        assert_eq!((table.of(VOLUME), table.of("other")), (vec![b.clone()], vec![moved]));
        table.remove(&b.id);
        assert!(!table.any(VOLUME, |_| true) && table.any("other", |_| true));
        table.set(Vec::new());
        assert!(!table.any("other", |_| true));
    }
}
