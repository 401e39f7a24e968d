//! What every command that asks an engine is given.

use super::{
    Failure,
    endpoint::Call,
    engine::{Engine, Operator, Plugin},
    plugin::DockerOptions,
    text::Style,
};
use std::{future::Future, path::PathBuf};

/// How `docker dso` was called, beside the command's own arguments.
pub struct Session {
    pub call: Call,
    /// The plugin that was named.
    pub plugin: Option<String>,
    pub config_dir: PathBuf,
    pub style: Style,
}

// === impl Session ===

impl Session {
    pub fn new(options: DockerOptions, env: fn(&str) -> Option<String>) -> Self {
        let style = Style::of_stdout(env);
        Self { call: Call { options, env }, plugin: None, config_dir: PathBuf::new(), style }
    }

    /// Runs what a command does with an engine, on this thread.
    pub fn block_on(&self, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        runtime.block_on(work)
    }

    pub async fn engine(&self) -> Result<Engine, Failure> {
        Engine::connect(&self.call).await
    }

    /// The socket of the plugin that is meant where no volume tells.
    pub async fn operator(&self) -> Result<(Operator, Plugin), Failure> {
        let mut engine = self.engine().await?;
        let plugin = engine.plugin(self.plugin.as_deref()).await?;
        Ok((engine.operate(&plugin).await?, plugin))
    }
}
