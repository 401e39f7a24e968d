//! `docker dso events`

use super::{
    Failure,
    engine::{Operator, Plugin},
    event::{Event, FIELDS},
    format::Format,
    print, say,
    session::Session,
};
use crate::faults::nearest;
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
        let (operator, plugin) = operator(session, &arguments.volumes).await?;
        let path = if arguments.follow { "/dso/v1/events?follow" } else { "/dso/v1/events" };
        let failure = |error| super::engine::explain(&plugin.name, error);
        let mut lines = operator.client.lines("GET", path).await.map_err(failure)?;
        while let Some(line) = lines.next().await.map_err(failure)? {
            let Some(event) = Event::parse(&line) else { continue };
            if !is_wanted(&event, &arguments.volumes) {
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

/// The socket of the plugin whose the volumes are.
async fn operator(session: &Session, volumes: &[String]) -> Result<(Operator, Plugin), Failure> {
    if volumes.is_empty() {
        return session.operator().await;
    }
    let mut engine = session.engine().await?;
    let plugins = engine.enabled(session.plugin.as_deref()).await?;
    let mut chosen: Option<(&str, Plugin)> = None;
    for name in volumes {
        if engine.look(name).await?.is_none() {
            let (names, _) = engine.names(&plugins).await?;
            say(&missing(name, &names)?);
            continue;
        }
        let (_, plugin) = engine.volume(name, &plugins).await?;
        chosen = match chosen {
            Some((first, of)) if of != plugin => {
                return Err(Failure::Usage(format!(
                    "volume `{first}` is of plugin `{}`, and `{name}` of `{}`: ask for one at a time",
                    of.name, plugin.name
                )));
            }
            _ => Some((name, plugin)),
        };
    }
    let plugin = match chosen {
        Some((_, plugin)) => plugin,
        None => engine.plugin(session.plugin.as_deref()).await?,
    };
    Ok((engine.operate(&plugin).await?, plugin))
}

/// A volume that is gone has events yet; a name that is nearly another's is a mistake.
fn missing(name: &str, names: &[String]) -> Result<String, Failure> {
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => Err(Failure::Failed(format!("there is no volume `{name}`: did you mean `{near}`?"))),
        None => Ok(format!("Note: there is no volume `{name}` now.")),
    }
}

/// That events were lost concerns every volume.
fn is_wanted(event: &Event, volumes: &[String]) -> bool {
    volumes.is_empty() || event.kind() == "lost" || volumes.iter().any(|name| name == event.volume())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_named_volumes_and_that_some_were_lost() {
        let is_wanted = |line: &str, volumes: &[&str]| {
            let volumes: Vec<_> = volumes.iter().map(ToString::to_string).collect();
            is_wanted(&Event::parse(line).unwrap(), &volumes)
        };
        let (of_app, lost) = (r#"{"event":"mounted","volume":"app"}"#, r#"{"event":"lost","count":3}"#);
        assert!(is_wanted(of_app, &[]) && is_wanted(of_app, &["db", "app"]) && is_wanted(lost, &["db"]));
        assert!(!is_wanted(of_app, &["db"]) && !is_wanted(r#"{"event":"settings"}"#, &["db"]));
    }

    #[test]
    fn a_mistyped_name_is_refused_and_one_that_is_gone_is_not() {
        let names = ["app-secrets".to_owned(), "db".to_owned()];
        let Err(Failure::Failed(said)) = missing("app-secret", &names) else { panic!("it is taken") };
        assert_eq!(said, "there is no volume `app-secret`: did you mean `app-secrets`?");
        assert_eq!(
            missing("removed-yesterday", &names).ok().unwrap(),
            "Note: there is no volume `removed-yesterday` now."
        );
    }
}
