//! `docker dso refresh`: a check now, and what comes of it.

use super::{Failure, engine::Operator, event::Event, print, say, session::Session, text::Style};
use crate::docker::client::Lines;
use clap::Args;
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::io::{self, Write};

#[derive(Args)]
pub struct Arguments {
    /// Try again what was taken back after it had failed
    #[arg(long)]
    force: bool,
    /// Wait until the check and the rollout after it have ended, and show them
    ///
    /// Exits with 1 if a provider could not be asked, or a change was taken back.
    #[arg(short, long)]
    wait: bool,
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<(), Failure> {
    session.block_on(async {
        let mut engine = session.engine().await?;
        let plugins = engine.plugins(session.plugin.as_deref()).await?;
        // All names are looked at before the first is acted on.
        let mut targets = Vec::new();
        for name in &arguments.volumes {
            let (volume, plugin) = engine.volume(name, &plugins).await?;
            targets.push((volume.name, engine.operate(&plugin).await?));
        }
        let query = match (arguments.wait, arguments.force) {
            (true, true) => "?wait&force",
            (true, false) => "?wait",
            (false, true) => "?force",
            (false, false) => "",
        };
        let path = |name: &str| format!("/dso/v1/volumes/{name}/refresh{query}");
        if !arguments.wait {
            for (name, mut operator) in targets {
                let noted = operator.client.post(&path(&name), &serde_json::json!({})).await;
                noted.map_err(|error| operator.failure(error))?;
                print(&name)?;
            }
            return Ok(());
        }
        let waiting: FuturesUnordered<_> =
            targets.into_iter().map(|(name, operator)| begin(path(&name), name, operator)).collect();
        let begun: Vec<_> = waiting.collect().await;
        follow(begun.into_iter().collect::<Result<_, _>>()?, session.style).await
    })
}

/// A volume that is refreshed, and what is heard of it.
struct Refresh {
    volume: String,
    plugin: String,
    lines: Lines,
}

async fn begin(path: String, volume: String, operator: Operator) -> Result<Refresh, Failure> {
    let Operator { client, plugin } = operator;
    match client.lines("POST", &path).await {
        Ok(lines) => Ok(Refresh { volume, plugin, lines }),
        Err(error) => Err(super::engine::explain(&plugin, error)),
    }
}

/// Until every one of them has ended.
async fn follow(refreshes: Vec<Refresh>, style: Style) -> Result<(), Failure> {
    let mut progress = Progress { style, left: refreshes.len(), shown: false };
    let mut coming: FuturesUnordered<_> = refreshes.into_iter().map(next).collect();
    let mut faults = Vec::new();
    progress.show()?;
    while let Some((refresh, line)) = coming.next().await {
        let ended = match line {
            Ok(Some(line)) => match Event::parse(&line) {
                Some(event) => {
                    progress.line(&event.line(style))?;
                    event.refreshed()
                }
                None => None,
            },
            Ok(None) => Some(Err("the plugin ended before it was done; its next process goes on with it".into())),
            Err(error) => Some(Err(format!("the plugin `{}` did not answer to the end: {error}", refresh.plugin))),
        };
        match ended {
            None => coming.push(next(refresh)),
            Some(result) => {
                progress.left -= 1;
                faults.extend(result.err().map(|fault| format!("volume `{}`: {fault}", refresh.volume)));
            }
        }
        progress.show()?;
    }
    progress.clear()?;
    match faults.pop() {
        None => Ok(()),
        Some(last) => {
            faults.iter().for_each(|fault| say(&format!("Error: {fault}")));
            Err(Failure::Failed(last))
        }
    }
}

async fn next(mut refresh: Refresh) -> (Refresh, Result<Option<String>, crate::docker::client::ClientError>) {
    let line = refresh.lines.next().await;
    (refresh, line)
}

/// Lines that stay, and on a terminal one below them that says what is still waited for.
struct Progress {
    style: Style,
    left: usize,
    shown: bool,
}

// === impl Progress ===

impl Progress {
    fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.clear()?;
        print(text)
    }

    fn show(&mut self) -> Result<(), Failure> {
        if !self.style.terminal || self.left == 0 || self.shown {
            return Ok(());
        }
        self.shown = true;
        let what = super::text::counted(self.left, "volume");
        self.write(&format!("… waiting for {what}"))
    }

    fn clear(&mut self) -> Result<(), Failure> {
        match std::mem::take(&mut self.shown) {
            true => self.write("\r\x1b[K"),
            false => Ok(()),
        }
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout();
        write!(out, "{text}").and_then(|()| out.flush()).map_err(super::output_failed)
    }
}
