//! What the tests stand on: real engines, plugins, Compose and a registry, each removed when its value goes out of scope.
//!
//! Everything made is named `dso-test-<process id>-<number>…`: by that name `sweep.sh` finds it, also after a test that
//! was killed, and leaves alone what belongs to a test that still runs.

#![allow(dead_code, reason = "each test binary uses its part of this")]

pub mod aws;
pub mod azure;
pub mod bao;
pub mod capture;
pub mod cleanup;
pub mod compose;
pub mod door;
pub mod engine;
pub mod etc;
pub mod instance;
pub mod local;
pub mod own_engine;
pub mod plugin;
pub mod proxy;
pub mod reader;
pub mod registry;
pub mod scan;
pub mod server;
pub mod swarm;
pub mod terminal;
pub mod vault;

use std::{
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// How long a test waits for what should come soon, on a busy machine with two cores.
pub const SOON: Duration = Duration::from_secs(20);

/// How long a test waits for what takes many steps of many containers.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The image with a shell and busybox's applets, and the user 1000. It has no directory /run.
pub const BUSYBOX: &str = "dso-test-busybox:latest";

/// The image `FROM scratch` with one static program: see probe.rs.
pub const SCRATCH: &str = "dso-test-scratch:latest";

/// Debian's nginx, and its PostgreSQL with psql, with a shell and busybox's applets: see [`engine::Engine::import`].
pub const NGINX: &str = "dso-test-nginx:latest";
pub const POSTGRES: &str = "dso-test-postgres:latest";

/// The environment variable by which the sweep knows the servers that a test has started.
pub const MARK: &str = "DSO_TEST";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the tests' world, which world.sh makes.
pub fn world(file: &str) -> PathBuf {
    let path = root().join("target/world").join(file);
    assert!(path.exists(), "{} is not there: run `make test-world` first", path.display());
    path
}

/// A name that nothing else has.
pub fn unique() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("dso-test-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asks again and again until there is an answer; `what` completes "waited in vain for …".
pub fn until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    #[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the one place where tests wait")]
    {
        let start = std::time::Instant::now();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(start.elapsed() < within, "waited in vain for {what} ({within:?})");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// [`until`] for a condition.
pub fn wait_for(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    until(what, within, || condition().then_some(()));
}
