//! An engine for a test, twice: as `docker` sees it, and as dso does.

use crate::support::{BUSYBOX, cleanup::Scope, engine::Engine};
use dso::docker::{self, Container, ContainerRuntime};
use std::{env, path::PathBuf};

/// What is made here is named after it, and goes with it.
pub struct World {
    pub cli: Engine,
    pub edge: docker::Engine,
    pub scope: Scope,
}

// === impl World ===

impl World {
    /// On the engine that the environment gives.
    pub fn system() -> Self {
        Self { cli: Engine::system(), edge: docker::Engine::at(socket()), scope: Scope::new() }
    }

    pub fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.scope.name)
    }

    /// `docker run --detach` with the busybox image; returns the full ID.
    #[track_caller]
    pub fn run(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        self.make("run", name, &[&["--detach"], options].concat(), command)
    }

    #[track_caller]
    pub fn create(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        self.make("create", name, options, command)
    }

    #[track_caller]
    fn make(&self, verb: &str, name: &str, options: &[&str], command: &[&str]) -> String {
        let name = self.named(name);
        self.cli.docker(&[&[verb, "--name", &name], options, &[BUSYBOX], command].concat())
    }

    pub async fn see(&self, container: &str) -> Container {
        self.edge.inspect(container).await.expect("the engine answers").expect("it is there")
    }
}

/// The socket of the engine that the environment gives.
pub fn socket() -> PathBuf {
    let host = env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/run/docker.sock").into()
}
