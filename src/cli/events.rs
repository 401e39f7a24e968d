//! `docker dso events`

use super::{
    Failure,
    event::{Event, FIELDS},
    format::Format,
    print,
    session::Session,
};
use clap::Args;

#[derive(Args)]
pub struct Arguments {
    /// Go on with what happens from now on, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// How to write them: `json` (as the plugin tells them), or a template such as '{{.Time}} {{.Text}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Of these volumes only
    #[arg(value_name = "VOLUME")]
    volumes: Vec<String>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<(), Failure> {
    let wanted = arguments.format.as_deref();
    let template =
        wanted.filter(|text| *text != "json").map(|text| Format::parse(text, FIELDS, "{{.Text}}")).transpose()?;
    if matches!(template, Some(Format::Table(_))) {
        return Err(Failure::Usage(
            "--format: events are no table, since they come one by one: leave out `table`".into(),
        ));
    }
    session.block_on(async {
        let (operator, plugin) = session.operator().await?;
        let path = if arguments.follow { "/dso/v1/events?follow" } else { "/dso/v1/events" };
        let failure = |error| super::engine::explain(&plugin.name, error);
        let mut lines = operator.client.lines("GET", path).await.map_err(failure)?;
        while let Some(line) = lines.next().await.map_err(failure)? {
            let Some(event) = Event::parse(&line) else { continue };
            if !arguments.volumes.is_empty() && !arguments.volumes.iter().any(|name| name == event.volume()) {
                continue;
            }
            match (&template, wanted) {
                (Some(template), _) => print(&template.lines(&[event], session.style).join("\n"))?,
                (None, Some(_)) => print(&event.whole().to_string())?,
                (None, None) => print(&event.line(session.style))?,
            }
        }
        match arguments.follow {
            // It was asked for events until this command ends.
            true => Err(Failure::Failed(format!(
                "the plugin `{}` has ended: run this again to follow the next one",
                plugin.name
            ))),
            false => Ok(()),
        }
    })
}
