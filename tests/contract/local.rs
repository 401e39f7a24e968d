//! The embedded store: a file, with no wire and no identity but the file's own.

use crate::{
    capture,
    support::etc::Etc,
    world::{Fault, PATIENT, World},
};
use dso::{
    provider::{ErrorKind, Provider, ProviderError, local, local::LocalStore},
    secret::SecretValue,
};
use rustix::fs::FlockOperation;
use serde_json::Value;
use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

pub struct Local {
    etc: Etc,
}

// === impl Local ===

impl Local {
    fn store(&self) -> LocalStore {
        LocalStore::open("local", toml::Table::new(), &self.etc.host()).unwrap()
    }

    fn set(&self, name: &str, value: &[u8]) {
        let store = self.store();
        store.set(&store.target(name).unwrap(), SecretValue::new(value.to_vec())).unwrap();
    }

    fn file(&self, ending: &str) -> PathBuf {
        let files = fs::read_dir(self.etc.path()).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.to_str().unwrap().ends_with(ending)).expect(ending)
    }
}

impl World for Local {
    const NAMES: &[&str] = &["größe/ключ", "a b/c%2Fd", "deep/er/and/deeper"];
    const UNICODE: bool = true;

    async fn start() -> Self {
        capture::start();
        Self { etc: Etc::new() }
    }

    /// A file is read in the time that it takes.
    fn instance(&self, _timeout: Duration) -> Arc<dyn Provider> {
        local::Local::build("local", toml::Table::new(), &self.etc.host()).unwrap()
    }

    fn reference(&self, name: &str) -> String {
        format!("local://{name}")
    }

    async fn put(&self, name: &str, fields: &Value) {
        self.set(name, fields.to_string().as_bytes());
    }

    async fn put_binary(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        self.set(name, bytes);
        bytes.into()
    }

    async fn put_empty(&self, name: &str) -> Result<Vec<u8>, ErrorKind> {
        self.set(name, b"");
        Ok(Vec::new())
    }

    /// Of its versions the store keeps the newest alone: after many it is as large as after one.
    async fn put_versions(&self, name: &str, count: usize, fields: &Value) {
        let size = || fs::metadata(self.file(".age")).unwrap().len();
        self.put(name, fields).await;
        let first = size();
        for _ in 0..count / 100 {
            self.put(name, fields).await;
        }
        // age pads its header by a random part of some hundred bytes; a hundred old values would be more.
        assert!(size() < first + 1000, "{first} bytes, and then {}", size());
    }

    async fn remove(&self, name: &str) {
        self.store().remove(&[name]).unwrap().remove(0).unwrap();
    }

    /// There is no policy for a part of a store: its identity must not be open to others, and is then refused.
    async fn forbid(&self, _name: &str) -> ErrorKind {
        fs::set_permissions(self.file("identity"), Permissions::from_mode(0o644)).unwrap();
        ErrorKind::Misconfigured
    }

    /// It is a file: whoever looks at the versions has read it.
    fn reads(&self) -> usize {
        0
    }

    fn fail(&self, _fault: Fault) -> bool {
        false
    }

    fn release(&self) {}

    fn instance_at(&self, _address: &str, timeout: Duration) -> Arc<dyn Provider> {
        self.instance(timeout)
    }

    async fn without_wire(&self, fault: Fault, name: &str) {
        let provider = self.instance(PATIENT);
        match fault {
            // No number of reads is too many.
            Fault::Throttled => {
                for _ in 0..1000 {
                    self.read(&*provider, name).await;
                }
            }
            // A writer that takes for ever keeps no reader waiting.
            Fault::Held | Fault::Hang => {
                let lock = File::open(self.file(".lock")).unwrap();
                rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
                timeout(PATIENT, self.read(&*provider, name)).await.expect("an answer beside the writer");
            }
            // A store that is cut short is refused as a whole, and read again when it is whole.
            Fault::Cut | Fault::HalfClosed => {
                let store = self.file(".age");
                let whole = fs::read(&store).unwrap();
                let before = self.read(&*provider, name).await;
                fs::write(&store, &whole[..whole.len() / 2]).unwrap();
                let error = self.refused(&*provider, name).await;
                assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
                fs::write(&store, whole).unwrap();
                assert_eq!(self.read(&*provider, name).await.version, before.version);
            }
        }
    }

    fn canary(&self) -> String {
        self.etc.canary()
    }

    fn is_silent(&self, error: &ProviderError) -> bool {
        let told = format!("{error} {error:?}");
        !self.etc.guarded().iter().any(|canary| told.contains(canary))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!self.etc.guarded().iter().any(|canary| capture::contains(canary)), "a secret is in the log");
        }
    }
}
