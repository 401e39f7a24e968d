//! `docker dso doctor`: what is wrong, and what to do.
//!
//! [`engine`] looks at the engine and the plugin in it, [`host`] at `/etc/dso` and swap; the rest is what the plugin tells of
//! itself, its providers and its volumes.

mod engine;
mod host;

use super::{
    Failure,
    format::{Field, Format},
    print,
    session::Session,
    text::{Colour, Style, counted, plain},
};
use crate::findings::{Finding, Level};
use clap::Args;

#[derive(Args)]
#[command(after_help = "The exit code is 1 if anything does not work, and 0 where there are warnings alone.")]
pub struct Arguments {
    /// How to write it: `table`, `json` (one object a line), or a template such as '{{.Level}}\t{{.Message}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Warnings and errors only
    #[arg(short, long)]
    quiet: bool,
}

const COLUMNS: &str = "{{.Level}}\t{{.Check}}\t{{.Subject}}\t{{.Message}}\t{{.Advice}}";

const FIELDS: &[Field<Finding>] = &[
    Field {
        name: "Check",
        heading: "CHECK",
        text: |finding| finding.check.clone(),
        json: |finding| finding.check.as_str().into(),
        colour: |_| Colour::None,
    },
    Field {
        name: "Level",
        heading: "LEVEL",
        text: |finding| finding.level.as_str().into(),
        json: |finding| finding.level.as_str().into(),
        colour: |finding| colour(finding.level),
    },
    Field {
        name: "Subject",
        heading: "SUBJECT",
        text: |finding| finding.subject.clone(),
        json: |finding| finding.subject.as_str().into(),
        colour: |_| Colour::None,
    },
    Field {
        name: "Message",
        heading: "MESSAGE",
        text: |finding| finding.message.clone(),
        json: |finding| finding.message.as_str().into(),
        colour: |_| Colour::None,
    },
    Field {
        name: "Advice",
        heading: "ADVICE",
        text: |finding| finding.advice.clone(),
        json: |finding| finding.advice.as_str().into(),
        colour: |_| Colour::None,
    },
];

pub fn run(arguments: &Arguments, session: &Session) -> Result<(), Failure> {
    let format = Format::parse(&arguments.format, FIELDS, COLUMNS)?;
    session.block_on(async {
        let mut findings = host::examine(&session.config_dir);
        findings.extend(engine::examine(session).await);
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        let (errors, warnings) = (count(Level::Error), count(Level::Warning));
        if arguments.quiet {
            findings.retain(|finding| finding.level != Level::Ok);
        }
        let lines = match arguments.format.as_str() {
            "table" => text(&findings, session.style),
            _ => format.lines(&findings, session.style),
        };
        if !lines.is_empty() {
            print(&lines.join("\n"))?;
        }
        let told = format!("{} and {}", counted(errors, "error"), counted(warnings, "warning"));
        match errors {
            0 if arguments.format == "table" && !arguments.quiet => print(&told),
            0 => Ok(()),
            _ => Err(Failure::Failed(told)),
        }
    })
}

fn colour(level: Level) -> Colour {
    match level {
        Level::Ok => Colour::Green,
        Level::Warning => Colour::Yellow,
        Level::Error => Colour::Red,
    }
}

/// A line for each, and one below it that says what to do.
fn text(findings: &[Finding], style: Style) -> Vec<String> {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for Finding { check, level, subject, message, advice } in findings {
        let shown = style.paint(colour(*level), &format!("{:<7}", level.as_str()));
        lines.push(format!("{shown}   {check:width$}   {}: {}", plain(subject), plain(message)));
        if !advice.is_empty() {
            lines.push(format!("{}{}", " ".repeat(7 + 3 + width + 3), style.paint(Colour::Bold, &plain(advice))));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_advice_another() {
        let findings =
            [Finding::ok("engine", "28.5", "answers"), Finding::error("file", "x", "is open\x1b", "chmod 600 x")];
        let style = |colour| Style { terminal: colour, colour };
        assert_eq!(
            text(&findings, style(false)),
            [
                "ok        engine   28.5: answers",
                "error     file     x: is open\\u{1b}",
                "                   chmod 600 x"
            ]
        );
        assert!(text(&findings, style(true))[1].starts_with("\x1b[31merror  \x1b[0m"));
    }
}
