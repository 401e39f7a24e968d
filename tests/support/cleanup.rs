//! Removal of what a test has made, also when it panics.

use super::{root, unique};
use std::{fs, path::PathBuf, process::Command, thread};

/// A name of its own, a folder of that name, and the promise that everything so named goes at the end.
pub struct Scope {
    pub name: String,
    pub folder: PathBuf,
}

// === impl Scope ===

impl Scope {
    pub fn new() -> Self {
        let name = unique();
        let folder = root().join("target/world/run").join(&name);
        fs::create_dir_all(&folder).expect("target/world/run: run `make test-world` first");
        Self { name, folder }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let sweep = Command::new(root().join("tests/support/sweep.sh")).arg(&self.name).output().expect("sweep.sh");
        let said = String::from_utf8_lossy(&sweep.stderr);
        if !sweep.status.success() && !thread::panicking() {
            panic!("the test left something that cannot be removed: {said}");
        }
        eprint!("{said}");
    }
}
