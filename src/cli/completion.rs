//! What shells complete, and the manual's pages.
//!
//! `docker dso <TAB>` is completed by Docker's own script (`docker completion bash`), which asks a plugin by `__complete`;
//! [`Arguments`] is for the program's own name, `docker-dso`.

use super::{Failure, print, session::Session};
use clap::{Arg, Args, Command, ValueEnum};
use clap_complete::{Generator, Shell};
use std::{cell::RefCell, ffi::OsString, fs, path::PathBuf};

/// How Docker's script asks; the second is for shells that show no descriptions.
pub const REQUESTS: [&str; 2] = ["__complete", "__completeNoDesc"];

/// Of Cobra's directives, which Docker's script understands: offer files, or nothing else.
const FILES: &str = ":0";
const NOTHING_ELSE: &str = ":4";

#[derive(Args)]
pub struct Arguments {
    #[arg(value_enum)]
    shell: Choice,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args)]
pub struct Pages {
    /// The folder for the pages, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// The script for a shell.
pub fn run(arguments: &Arguments, command: Command) -> Result<(), Failure> {
    let shell = match arguments.shell {
        Choice::Bash => Shell::Bash,
        Choice::Zsh => Shell::Zsh,
        Choice::Fish => Shell::Fish,
    };
    let mut command = command.name("docker-dso").bin_name("docker-dso");
    command.build();
    let mut script = Vec::new();
    shell.try_generate(&command, &mut script).map_err(Failure::failed)?;
    print(&String::from_utf8_lossy(&script))
}

/// A page for the program and for each of its commands.
pub fn pages(arguments: &Pages, command: Command) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::Failed(format!("cannot write `{}`: {error}", arguments.folder.display()));
    fs::create_dir_all(&arguments.folder).map_err(failed)?;
    clap_mangen::generate_to(command.name("docker-dso").bin_name("docker dso"), &arguments.folder).map_err(failed)
}

/// Answers Docker's script: `docker-dso __complete dso ls --<TAB>`.
pub fn complete(words: &[OsString], command: &mut Command, session: &Session) -> Result<(), Failure> {
    let described = words.first().is_some_and(|word| word == REQUESTS[0]);
    let words: Vec<_> = words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words = words.strip_prefix(&["dso".to_owned()]).unwrap_or(&words);
    let Some((begun, before)) = words.split_last() else { return print(NOTHING_ELSE) };
    command.build();
    let asked = RefCell::new(session);
    let (found, files) = candidates(begun, before, command, &|what| names(what, &asked.borrow()));
    let mut lines: Vec<_> = found
        .into_iter()
        .filter(|(word, _)| word.starts_with(begun.as_str()))
        .map(|(word, about)| if described && !about.is_empty() { format!("{word}\t{about}") } else { word })
        .collect();
    lines.push(if files { FILES } else { NOTHING_ELSE }.into());
    print(&lines.join("\n"))
}

type Candidate = (String, String);

/// What may stand at the place of `begun`, and whether files may.
fn candidates(
    begun: &str,
    before: &[String],
    root: &Command,
    names: &dyn Fn(&str) -> Vec<String>,
) -> (Vec<Candidate>, bool) {
    let (mut command, mut open) = (root, None);
    for word in before {
        if open.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            open = option(command, word).filter(|option| option.get_action().takes_values() && !word.contains('='));
        } else if let Some(found) = command.find_subcommand(word) {
            command = found;
        }
    }
    let about = |text: Option<String>| text.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
    if let Some(option) = open {
        return values(option, names);
    }
    if begun.starts_with('-') {
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let options = options
            .filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help().map(ToString::to_string)))));
        return (options.collect(), false);
    }
    if command.has_subcommands() {
        let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
        let commands = commands
            .map(|command| (command.get_name().to_owned(), about(command.get_about().map(ToString::to_string))));
        return (commands.collect(), false);
    }
    command.get_positionals().find(|arg| !arg.is_hide_set()).map_or((Vec::new(), false), |arg| values(arg, names))
}

fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or_default();
    command.get_arguments().find(|arg| {
        arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long))
            || arg.get_short().is_some_and(|short| name == format!("-{short}"))
    })
}

fn values(arg: &Arg, names: &dyn Fn(&str) -> Vec<String>) -> (Vec<Candidate>, bool) {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let about =
            |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string).unwrap_or_default();
        return (possible.iter().map(|value| (value.get_name().to_owned(), about(value))).collect(), false);
    }
    let kind = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let found = names(kind).into_iter().map(|name| (name, String::new())).collect();
    (found, matches!(kind, "FILE" | "COMPOSE-FILE" | "DIR"))
}

/// The engine's volumes and plugins; none where it is out of reach, since nobody reads an error while they type.
fn names(kind: &str, session: &Session) -> Vec<String> {
    let mut found = Vec::new();
    let _ = session.block_on(async {
        match kind {
            "VOLUME" => {
                let mut engine = session.engine().await?;
                let plugins = engine.enabled(session.plugin.as_deref()).await?;
                found = engine.names(&plugins).await?.0;
            }
            "PLUGIN" => {
                found = session.engine().await?.plugins(None).await?.into_iter().map(|plugin| plugin.name).collect()
            }
            _ => {}
        }
        Ok(())
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> (Vec<String>, bool) {
        let mut command = crate::cli::command();
        command.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (begun, before) = words.split_last().unwrap();
        let names = |kind: &str| if kind == "VOLUME" { vec!["app-secrets".into()] } else { Vec::new() };
        let (found, files) = candidates(begun, before, &command, &names);
        (found.into_iter().map(|(word, _)| word).filter(|word| word.starts_with(begun.as_str())).collect(), files)
    }

    #[test]
    fn commands_options_values_and_volumes_are_offered() {
        for (line, words, files) in [
            ("ins", &["inspect"][..], false),
            ("secret s", &["set"], false),
            ("ls --for", &["--format"], false),
            ("--config-dir", &["--config-dir"], false),
            ("refresh --wait ", &["app-secrets"], false),
            ("inspect app", &["app-secrets"], false),
            ("version --format ", &["text", "json"], false),
            ("completion f", &["fish"], false),
            ("check ", &[], true),
            ("check -o ", &[], false),
            ("ma", &[], false),
        ] {
            assert_eq!(offered(line), (words.iter().map(|word| (*word).to_owned()).collect(), files), "{line:?}");
        }
        assert!(offered("").0.contains(&"ls".into()) && !offered("").0.contains(&"man".into()));
    }
}
