//! The real Compose v2, as `docker compose`.

use super::{
    cleanup::Scope,
    engine::{Engine, outcome},
};
use std::{fs, path::Path, process::Command};

/// A project; its containers, networks and volumes go at the end.
pub struct Compose {
    engine: Engine,
    scope: Scope,
}

// === impl Compose ===

impl Compose {
    pub fn new(engine: &Engine, file: &str) -> Self {
        let compose = Self { engine: engine.clone(), scope: Scope::new() };
        compose.rewrite(file);
        compose
    }

    /// A copy of the project in `folder`, whose volumes are this `driver`'s, and with `changes` over it.
    pub fn copy(engine: &Engine, folder: &Path, driver: &str, changes: &str) -> Self {
        let compose = Self { engine: engine.clone(), scope: Scope::new() };
        let copied = Command::new("cp").arg("-rT").args([folder, &compose.scope.folder]).status().expect("cp");
        assert!(copied.success(), "cp of {}", folder.display());
        let file = fs::read_to_string(folder.join("compose.yaml")).expect("compose.yaml");
        assert!(file.contains("driver: dso\n"), "{} has no volume of dso's", folder.display());
        compose.rewrite(&file.replace("driver: dso\n", &format!("driver: {driver}\n")));
        // Compose takes it by its name.
        fs::write(compose.scope.folder.join("compose.override.yaml"), changes).expect("compose.override.yaml");
        compose
    }

    /// Another compose file for the same project.
    pub fn rewrite(&self, file: &str) {
        fs::write(self.scope.folder.join("compose.yaml"), file).expect("compose.yaml");
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.scope.folder
    }

    /// The project's name; a container is `<project>-<service>-1`, a volume `<project>_<volume>`.
    pub fn project(&self) -> &str {
        &self.scope.name
    }

    /// What `docker compose …` prints; it must succeed.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        self.try_run(words).unwrap_or_else(|said| panic!("`docker compose {}` failed: {said}", words.join(" ")))
    }

    pub fn try_run(&self, words: &[&str]) -> Result<String, String> {
        let mut command = self.engine.command();
        command.args(["compose", "--project-name", self.project(), "--progress", "plain"]).args(words);
        outcome(command.current_dir(&self.scope.folder).output().expect("docker compose"))
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        // The sweep does the same by the names; this also does it on an engine of the test's own.
        let _ = self.try_run(&["down", "--volumes", "--remove-orphans", "--timeout", "0"]);
    }
}
