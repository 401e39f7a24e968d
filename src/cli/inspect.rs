//! `docker dso inspect`: all that is known of a volume, for a person or a program.

use super::{
    Failure,
    format::{Format, aligned, object},
    print, say,
    session::Session,
    text::{self, Colour, Style, counted, plain},
    volume::{FIELDS, Rotation, Row, Status, Volume, result_colour},
};
use clap::Args;
use serde_json::Value;
use std::time::SystemTime;

#[derive(Args)]
pub struct Arguments {
    /// How to write them: `json`, `pretty`, or a template such as '{{.State}}'
    ///
    /// Without it, a terminal is given `pretty`, and anything else `json`: an array, as of `docker volume inspect`.
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<(), Failure> {
    let default = if session.style.terminal { "pretty" } else { "json" };
    let wanted = arguments.format.as_deref().unwrap_or(default);
    let format = match wanted {
        "pretty" | "json" => None,
        _ => Some(Format::parse(wanted, FIELDS, super::volume::COLUMNS)?),
    };
    session.block_on(async {
        let mut engine = session.engine().await?;
        let plugins = engine.plugins(session.plugin.as_deref()).await?;
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        for name in &arguments.volumes {
            match engine.volume(name, &plugins).await {
                Ok((volume, _)) => rows.push(Row { volume, now: SystemTime::now() }),
                Err(Failure::Failed(fault)) => faults.push(fault),
                Err(other) => return Err(other),
            }
        }
        match format {
            Some(format) if !rows.is_empty() => print(&format.lines(&rows, session.style).join("\n"))?,
            None if wanted == "json" => {
                let all: Value = rows.iter().map(|row| object(FIELDS, row)).collect();
                print(&serde_json::to_string_pretty(&all).unwrap_or_default())?;
            }
            None if !rows.is_empty() => {
                let views: Vec<_> = rows.iter().map(|row| view(row, session.style).join("\n")).collect();
                print(&views.join("\n\n"))?;
            }
            _ => {}
        }
        match faults.pop() {
            None => Ok(()),
            Some(last) => {
                faults.iter().for_each(|fault| say(&format!("Error: {fault}")));
                Err(Failure::Failed(last))
            }
        }
    })
}

/// Headings at the left, what they head indented.
fn view(row: &Row, style: Style) -> Vec<String> {
    let Row { volume, now } = row;
    let status = &volume.status;
    let ago = |time: &Option<String>| time.as_deref().and_then(text::time).map(|at| text::ago(*now, at));
    let mut lines = vec![style.paint(Colour::Bold, &volume.name)];
    let mut line = |name: &str, said: String| lines.push(format!("  {name:<13}{said}"));
    line("State", format!("{}: {}", style.paint(status.colour(), status.state()), meaning(status)));
    line("Driver", volume.driver.clone());
    let written = ago(&status.rotated).map(|ago| format!(", written {ago}")).unwrap_or_default();
    match status.generation {
        0 => line("Generation", "none yet".into()),
        number => line("Generation", format!("{number}{written}")),
    }
    let next = status.next_check.as_deref().and_then(text::time).map(|at| text::ahead(*now, at));
    let next = next.map(|next| format!("next check {next}"));
    let checks: Vec<_> = ago(&status.checked).into_iter().chain(next).collect();
    if !checks.is_empty() {
        line("Checked", checks.join(", "));
    }
    section(&mut lines, "Files", files(volume), style);
    section(&mut lines, "Containers", users(status), style);
    if let Some(last) = &status.last_rotation {
        lines.push("  Last rotation".into());
        lines.extend(rotation(last, *now, style).into_iter().map(|said| format!("    {said}")));
    }
    if let Some(error) = &status.error {
        lines.push("  Error".into());
        lines.push(format!("    {}", style.paint(Colour::Red, &plain(error))));
    }
    if let Some(advice) = advice(volume) {
        lines.push("  What to do".into());
        lines.push(format!("    {advice}"));
    }
    lines
}

fn section(lines: &mut Vec<String>, heading: &str, rows: Vec<Vec<String>>, style: Style) {
    if rows.is_empty() {
        return;
    }
    lines.push(format!("  {heading}"));
    let cells = |row: Vec<String>| row.into_iter().map(|text| (plain(&text), Colour::None)).collect();
    let rows: Vec<Vec<_>> = rows.into_iter().map(cells).collect();
    lines.extend(aligned(&rows, style).into_iter().map(|row| format!("    {row}")));
}

fn meaning(status: &Status) -> &'static str {
    match status.state() {
        "idle" => "no container has it",
        "current" => "containers have what the provider has",
        "stale" => "containers have the last files that were known to be good",
        "failed" => "the last container that wanted it could not start",
        "orphaned" => "containers have files that are not refreshed any more",
        _ => "the plugin says nothing of it that this command understands",
    }
}

/// A file, its version, and what the options say of it.
fn files(volume: &Volume) -> Vec<Vec<String>> {
    let status = &volume.status;
    let source = |path: &str| {
        let options = &volume.options;
        let own = options.get(&format!("file.{path}")).cloned();
        let template = options.contains_key(&format!("template.{path}")).then(|| "a template".to_owned());
        own.or(template).or_else(|| options.get("from").cloned()).unwrap_or_default()
    };
    let file = |(path, version): (&String, &String)| vec![path.clone(), format!("version {version}"), source(path)];
    if !status.versions.is_empty() {
        return status.versions.iter().map(file).collect();
    }
    // Not mounted: what it would be made of.
    let asked = volume.options.iter().filter_map(|(option, value)| match option.split_once('.') {
        Some(("file", path)) => Some(vec![path.to_owned(), value.clone()]),
        Some(("template", path)) => Some(vec![path.to_owned(), "a template".into()]),
        None if option == "from" => Some(vec!["every field".into(), value.clone()]),
        _ => None,
    });
    asked.collect()
}

fn users(status: &Status) -> Vec<Vec<String>> {
    let row = |user: &super::volume::User| {
        let fault = user.fault.as_ref().map(|fault| format!("label: {fault}"));
        let mut row = vec![user.name.clone(), user.state.clone(), format!("at {}", user.destination)];
        row.push(format!("on change: {}", user.on_rotate));
        row.extend(fault);
        row
    };
    status.containers.iter().map(row).collect()
}

fn rotation(last: &Rotation, now: SystemTime, style: Style) -> Vec<String> {
    let when = text::time(&last.at).map(|at| format!(" {}", text::ago(now, at))).unwrap_or_default();
    let result = style.paint(result_colour(&last.result), &plain(&last.result));
    let mut lines = vec![format!("{result}{when}: generation {} → {} ({})", last.from, last.to, plain(&last.cause))];
    lines.extend(last.reason.as_deref().map(plain));
    lines
}

/// In place of what a person would have to look up.
fn advice(volume: &Volume) -> Option<String> {
    let name = &volume.name;
    let taken_back = volume.status.last_rotation.as_ref().is_some_and(|last| last.result == "rolled back");
    let containers = volume.status.containers.len();
    match volume.status.state() {
        "failed" => Some("mend what the error names, and start the container again".into()),
        "stale" if taken_back => {
            Some(format!("write a value that works, or mend the container and run `docker dso refresh --force {name}`"))
        }
        "stale" => Some(format!("mend what the error names; `docker dso refresh {name}` then checks at once")),
        "orphaned" => Some(format!(
            "restart {}",
            if containers == 0 { "its containers".into() } else { counted(containers, "container") }
        )),
        "unknown" => Some("install `docker dso` and the plugin of one version".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAIN: Style = Style { terminal: true, colour: false };

    fn shown(status: Value) -> String {
        let volume = json!({
            "Name": "app-secrets", "Driver": "dso:latest", "Options": {"from": "vault://secret/app", "file.tls/key": "local://tls#key",
            "template.env": "U={{ secret('local://a#u') }}"}, "Status": status,
        });
        let now = text::time("2026-11-27T13:00:00Z").unwrap();
        view(&Row { volume: Volume::of(&volume), now }, PLAIN).join("\n")
    }

    #[test]
    fn a_rotation_that_was_taken_back_is_told_with_what_to_do() {
        let text = shown(json!({
            "state": "stale", "generation": 3, "versions": {"password": "4", "tls/key": "1", "env": "local://a=2"},
            "checked": "2026-11-27T12:59:55Z", "rotated": "2026-11-27T12:57:30Z", "next_check": "2026-11-27T13:00:25Z",
            "error": "the last change was taken back: container web was unhealthy\u{1b}[2J", "mounts": 1,
            "containers": [{"name": "web", "id": "1", "state": "healthy", "destination": "/run/secrets", "on_rotate": "signal:SIGHUP"}],
            "last_rotation": {"result": "rolled back", "cause": "poll", "from": 3, "to": 4, "at": "2026-11-27T12:58:00Z",
                "reason": "container web was unhealthy"},
        }));
        assert_eq!(
            text,
            "app-secrets
  State        stale: containers have the last files that were known to be good
  Driver       dso:latest
  Generation   3, written 2 minutes ago
  Checked      5 seconds ago, next check in 25 seconds
  Files
    env        version local://a=2   a template
    password   version 4             vault://secret/app
    tls/key    version 1             local://tls#key
  Containers
    web   healthy   at /run/secrets   on change: signal:SIGHUP
  Last rotation
    rolled back 2 minutes ago: generation 3 → 4 (poll)
    container web was unhealthy
  Error
    the last change was taken back: container web was unhealthy\\u{1b}[2J
  What to do
    write a value that works, or mend the container and run `docker dso refresh --force app-secrets`"
        );
    }

    #[test]
    fn a_volume_that_nobody_has_tells_what_it_would_be_made_of() {
        let text = shown(json!({"state": "idle", "generation": 0}));
        assert_eq!(
            text,
            "app-secrets
  State        idle: no container has it
  Driver       dso:latest
  Generation   none yet
  Files
    tls/key       local://tls#key
    every field   vault://secret/app
    env           a template"
        );
    }

    #[test]
    fn a_status_of_another_version_is_no_panic() {
        let text = shown(json!({"state": 7}));
        assert!(text.contains("unknown") && text.contains("different versions"), "{text}");
        assert!(shown(Value::Null).contains("install `docker dso` and the plugin of one version"));
    }
}
