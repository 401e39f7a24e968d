//! The plugin's mount `config`, which shows it the folder of settings.

use super::super::{
    Failure,
    engine::{Engine, Plugin},
    session::Session,
};
use serde_json::{Value, json};
use std::path::Path;

/// The default source, in which the plugin looks for `dso`.
const UNSET: &str = "/etc";
const USUAL: &str = "/etc/dso";

/// Another source for the mount of a plugin.
pub struct Change {
    plugin: Plugin,
    to: String,
}

/// What is to be changed, if anything; or why that cannot be told.
pub fn look(session: &Session, folder: &Path) -> Result<Option<Change>, String> {
    let mut found = Ok(None);
    let looked = session.block_on(async {
        let mut engine = session.engine().await?;
        if engine.socket().is_none() {
            return Err(Failure::Failed("the engine is on another host".into()));
        }
        let plugin = the_one(&mut engine, session).await?;
        let inspected = engine.get(&format!("/plugins/{}/json", plugin.name)).await?;
        let to = folder.display().to_string();
        let is_right = |source: &str| source == to || to == USUAL && source == UNSET;
        found = match source(&inspected) {
            Some(source) if !is_right(&source) => Ok(Some(Change { plugin, to })),
            _ => Ok(None),
        };
        Ok(())
    });
    match looked {
        Err(Failure::Failed(why) | Failure::Usage(why)) => Err(why),
        _ => found,
    }
}

/// Also one that is disabled, as a plugin must be while it is set.
async fn the_one(engine: &mut Engine, session: &Session) -> Result<Plugin, Failure> {
    let mut plugins = engine.plugins(session.plugin.as_deref()).await?;
    match plugins.len() {
        1 => Ok(plugins.remove(0)),
        _ => Err(Failure::Failed("there are several dso plugins: say which by --plugin".into())),
    }
}

fn source(inspected: &Value) -> Option<String> {
    let mounts = inspected["Settings"]["Mounts"].as_array()?;
    mounts.iter().find(|mount| mount["Name"] == "config")?["Source"].as_str().map(str::to_owned)
}

// === impl Change ===

impl Change {
    pub fn describe(&self) -> String {
        format!("let the plugin see {}: {}", self.to, self.commands())
    }

    fn commands(&self) -> String {
        let (name, set) =
            (self.plugin.short(), format!("docker plugin set {} config.source={}", self.plugin.short(), self.to));
        match self.plugin.enabled {
            true => format!("docker plugin disable {name} && {set} && docker plugin enable {name}"),
            false => set,
        }
    }

    /// A plugin that was enabled is enabled again, whatever becomes of the change.
    pub fn make(&self, session: &Session) -> Result<(), Failure> {
        session.block_on(async {
            let mut engine = session.engine().await?;
            let at = format!("/plugins/{}", self.plugin.name);
            if self.plugin.enabled {
                engine.post(&format!("{at}/disable"), &json!({})).await.map_err(|failure| self.in_use(failure))?;
            }
            let set = engine.post(&format!("{at}/set"), &json!([format!("config.source={}", self.to)])).await;
            if self.plugin.enabled {
                engine.post(&format!("{at}/enable?timeout=30"), &json!({})).await?;
            }
            set.map(drop)
        })
    }

    fn in_use(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Failed(why) => Failure::Failed(format!(
                "{why}; all else is done. Stop the containers that use its volumes, and then: {}",
                self.commands()
            )),
            other => other,
        }
    }
}
