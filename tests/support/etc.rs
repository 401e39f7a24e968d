//! The host's `/etc/dso` of a test, and the texts that must be seen nowhere.

use super::bao::unique;
use dso::host::HostFiles;
use std::{fs, path::Path, sync::Mutex};
use tempfile::TempDir;

pub struct Etc {
    dir: TempDir,
    /// What must be in no log line and in no error.
    secrets: Mutex<Vec<String>>,
}

// === impl Etc ===

impl Etc {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), secrets: Mutex::default() }
    }

    /// The folder that stands for `/etc/dso`.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn host(&self) -> HostFiles {
        HostFiles::on_host(self.path())
    }

    /// A text that must not be seen anywhere but in the value it is part of.
    pub fn canary(&self) -> String {
        self.guard(&format!("canary-{}", unique()))
    }

    pub fn guard(&self, secret: &str) -> String {
        self.secrets.lock().unwrap().push(secret.to_owned());
        secret.to_owned()
    }

    pub fn guarded(&self) -> Vec<String> {
        self.secrets.lock().unwrap().clone()
    }

    /// Writes a file as provisioning does: whole or not at all.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path().join(".new"), content).unwrap();
        fs::rename(self.path().join(".new"), self.path().join(name)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).unwrap();
    }
}
