//! `docker dso version`

use super::{Failure, print, session::Session};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

#[derive(Args)]
pub struct Arguments {
    /// How to write it
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<(), Failure> {
    session.block_on(async {
        let client = json!({"Version": env!("CARGO_PKG_VERSION")});
        let (plugins, failure) = match look(session).await {
            Ok(plugins) => (plugins, None),
            Err(failure) => (Value::Array(Vec::new()), Some(failure)),
        };
        let all = json!({"Client": client, "Plugins": plugins});
        print(&if arguments.format == Format::Json { all.to_string() } else { text(&all) })?;
        failure.map_or(Ok(()), Err)
    })
}

/// Every plugin that is dso. What only its socket tells is `null` where that is out of reach.
async fn look(session: &Session) -> Result<Value, Failure> {
    let mut engine = session.engine().await?;
    let plugins = engine.plugins(session.plugin.as_deref()).await?;
    let version = engine.get("/version").await?;
    let mut all = Vec::new();
    for plugin in plugins {
        let mut told = Value::Null;
        if plugin.enabled
            && let Ok(mut operator) = engine.operate(&plugin).await
        {
            told = operator.client.get("/dso/v1/version").await.unwrap_or_default();
        }
        all.push(json!({
            "Name": plugin.name,
            "ID": plugin.id,
            "Enabled": plugin.enabled,
            "Version": told["version"],
            "APIVersion": told["api"],
            "Engine": version["Version"],
        }));
    }
    Ok(all.into())
}

fn text(all: &Value) -> String {
    let row = |name: &str, said: &str| format!(" {name:<10}{said}");
    let mut lines = vec!["Client:".into(), row("Version:", all["Client"]["Version"].as_str().unwrap_or_default())];
    for plugin in all["Plugins"].as_array().into_iter().flatten() {
        let said = |name: &str| {
            plugin[name].as_str().unwrap_or("unknown: only root on the engine's host can ask it").to_owned()
        };
        lines.extend(["".into(), "Plugin:".into(), row("Name:", &said("Name")), row("ID:", &said("ID"))]);
        let version = match (plugin["Enabled"] == true, plugin["APIVersion"].as_str()) {
            (false, _) => "unknown: it is disabled".into(),
            (true, Some(api)) => format!("{} (API {api})", said("Version")),
            (true, None) => said("Version"),
        };
        lines.extend([
            row("Version:", &version),
            row("Enabled:", &plugin["Enabled"].to_string()),
            row("Engine:", &said("Engine")),
        ]);
    }
    lines.join("\n")
}
