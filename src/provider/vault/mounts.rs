//! Which engine serves a path: asked of the server once for each mount, and forgotten when it seems to have changed.

use serde::Deserialize;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What kind of engine a mount has, as far as it matters for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Kv1,
    Kv2,
    /// Anything else: read as the API has it.
    Logical,
}

/// A path, split where its mount ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub engine: Engine,
    /// With the `/` at its end.
    pub mount: String,
    pub rest: String,
}

/// The mounts that are known.
#[derive(Default)]
pub struct Mounts {
    known: Mutex<BTreeMap<String, Engine>>,
    /// One question at a time about what begins alike: fifty volumes of one mount ask once.
    asking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

// === impl Place ===

impl Place {
    /// The folder of the secret inside its mount, with the `/` at its end unless it is the mount's root, and its name.
    pub fn folder(&self) -> (&str, &str) {
        match self.rest.rfind('/') {
            Some(at) => self.rest.split_at(at + 1),
            None => ("", &self.rest),
        }
    }
}

// === impl Mounts ===

impl Mounts {
    pub fn find(&self, path: &str) -> Option<Place> {
        let known = self.known();
        // The server lets no mount lie inside another, so the first that fits is the only one.
        let ends = path.match_indices('/').map(|(at, _)| at + 1);
        ends.into_iter().find_map(|end| {
            let (mount, rest) = path.split_at(end);
            let engine = *known.get(mount)?;
            Some(Place { engine, mount: mount.into(), rest: rest.into() })
        })
    }

    /// What a server's answer says about the mount of `path`; `None` if it is not what Vault answers.
    pub fn learn(&self, path: &str, body: &[u8]) -> Option<Place> {
        let mount = serde_json::from_slice::<Envelope<'_>>(body).ok()?.data;
        let version = mount.options.as_ref().and_then(|options| options.version.as_deref());
        let engine = match (&*mount.kind, version) {
            ("kv", Some("2")) => Engine::Kv2,
            ("kv" | "generic", _) => Engine::Kv1,
            _ => Engine::Logical,
        };
        match path.strip_prefix(&*mount.path) {
            Some(rest) if mount.path.ends_with('/') => {
                self.known().insert(mount.path.clone().into_owned(), engine);
                Some(Place { engine, mount: mount.path.into_owned(), rest: rest.into() })
            }
            // The name of the mount itself: a path without the `/` that ends it.
            _ if mount.path.strip_suffix('/') == Some(path) => {
                Some(Place { engine, mount: mount.path.into_owned(), rest: String::new() })
            }
            // `auth/…` is answered without its `auth/`: read as it was asked for, and not remembered.
            _ => Some(Place { engine: Engine::Logical, mount: String::new(), rest: path.into() }),
        }
    }

    pub fn forget(&self, place: &Place) {
        self.known().remove(&place.mount);
    }

    /// Whose turn it is to ask about paths that begin like `path`.
    pub fn asking(&self, path: &str) -> Arc<tokio::sync::Mutex<()>> {
        let first = path.split('/').next().unwrap_or_default();
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(asking.entry(first.into()).or_default())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Engine>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Mount<'a>,
}

#[derive(Deserialize)]
struct Mount<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    options: Option<Options>,
}

#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    version: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(path: &str, kind: &str, version: &str) -> Vec<u8> {
        let answer = serde_json::json!({"data": {"path": path, "type": kind, "options": {"version": version}}});
        serde_json::to_vec(&answer).unwrap()
    }

    #[test]
    fn a_mount_may_have_slashes_in_its_name_and_serves_every_path_under_it() {
        let mounts = Mounts::default();
        assert_eq!(mounts.find("team/eu/kv/a/b"), None);
        let place = mounts.learn("team/eu/kv/a/b", &answer("team/eu/kv/", "kv", "2")).unwrap();
        assert_eq!(place, Place { engine: Engine::Kv2, mount: "team/eu/kv/".into(), rest: "a/b".into() });
        assert_eq!(place.folder(), ("a/", "b"));
        assert_eq!(mounts.find("team/eu/kv/x").unwrap().folder(), ("", "x"));
        assert_eq!(mounts.find("team/eu/kv2/x"), None);
        mounts.forget(&place);
        assert_eq!(mounts.find("team/eu/kv/x"), None);
    }

    #[test]
    fn engines_are_told_by_type_and_version() {
        let mounts = Mounts::default();
        for (kind, version, engine) in [
            ("kv", "1", Engine::Kv1),
            ("kv", "", Engine::Kv1),
            ("database", "2", Engine::Logical),
            ("kv", "2", Engine::Kv2),
        ] {
            assert_eq!(mounts.learn("m/a", &answer("m/", kind, version)).unwrap().engine, engine, "{kind} {version}");
        }
        let without = br#"{"data":{"path":"m/","type":"cubbyhole","options":null}}"#;
        assert_eq!(mounts.learn("m/a", without).unwrap().engine, Engine::Logical);
        assert_eq!(mounts.learn("m/a", b"<html>"), None);
    }

    #[test]
    fn what_is_answered_for_another_path_is_read_as_asked_and_not_remembered() {
        let mounts = Mounts::default();
        let place = mounts.learn("auth/token/lookup-self", &answer("token/", "token", "")).unwrap();
        assert_eq!(place.rest, "auth/token/lookup-self");
        assert_eq!(mounts.find("auth/token/lookup-self"), None);
        assert_eq!(mounts.find("token/x"), None);
        assert_eq!(mounts.learn("secret", &answer("secret/", "kv", "2")).unwrap().rest, "");
    }
}
