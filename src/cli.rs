//! `docker dso`: arguments, errors and exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 not understood. Errors are one line on stderr that starts with `Error: `.
//!
//! A command is a file here and a line in [`Command`]. What it needs of an engine is in its [`session`].

mod check;
mod completion;
mod compose;
mod confirm;
mod doctor;
mod endpoint;
mod engine;
mod event;
mod events;
mod format;
mod import;
mod init;
mod input;
mod inspect;
mod ls;
mod plugin;
mod prompt;
mod refresh;
pub mod secret;
mod session;
mod text;
mod version;
mod volume;

use crate::config;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use session::Session;
use std::{
    ffi::OsString,
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

#[derive(Parser)]
#[command(
    name = "docker dso",
    bin_name = "docker dso",
    version,
    about = "Secrets for containers, in RAM only",
    after_help = "Exit codes: 0 done, 1 failed, 2 not understood.",
    disable_help_subcommand = true
)]
struct Arguments {
    /// Folder of dso.toml, the store and its identity
    #[arg(long, global = true, value_name = "DIR", default_value = "/etc/dso")]
    config_dir: PathBuf,
    /// The plugin that is meant, where the engine has several of dso
    #[arg(long, global = true, value_name = "PLUGIN")]
    plugin: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List volumes, their state, and what became of their last rotation
    Ls(ls::Arguments),
    /// Show all that is known of volumes
    Inspect(inspect::Arguments),
    /// Check the secrets of volumes now
    Refresh(refresh::Arguments),
    /// Say what a volume, or those of a Compose file, would have in them, without mounting
    Check(check::Arguments),
    /// Show what the plugin did and decided
    Events(events::Arguments),
    /// Secrets of the embedded store (provider `local`)
    Secret(secret::Arguments),
    /// Make /etc/dso: settings to uncomment, and the identity of the embedded store
    Init(init::Arguments),
    /// Take the secrets out of a Compose or .env file, and serve them by dso
    Import(import::Arguments),
    /// Look for what is wrong, and say what to do
    Doctor(doctor::Arguments),
    /// Show the versions of this command and of the plugin
    Version(version::Arguments),
    /// Write a shell's completion script for `docker-dso`
    ///
    /// `docker dso` itself is completed by Docker's own script: `docker completion --help`.
    Completion(completion::Arguments),
    /// Write the manual's pages into a folder
    #[command(hide = true)]
    Man(completion::Pages),
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub enum Failure {
    /// It was tried and failed.
    Failed(String),
    /// What was asked for makes no sense.
    Usage(String),
    /// Whoever read the output has gone.
    ReaderGone,
}

/// Runs `docker dso` with the arguments after the program's name, as a person or as Docker gives them.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (options, args) = plugin::own_arguments(args.into_iter().collect());
    if args.first().is_some_and(|arg| arg == plugin::METADATA_COMMAND) {
        return finish(print(&plugin::metadata()));
    }
    finish(dispatch(options, &plugin::help_as_option(args)))
}

fn dispatch(options: plugin::DockerOptions, args: &[OsString]) -> Result<(), Failure> {
    let mut session = Session::new(options, config::environment);
    if args.first().is_some_and(|arg| completion::REQUESTS.iter().any(|request| arg == request)) {
        return completion::complete(args, &mut command(), &session);
    }
    let named = [OsString::from("docker-dso")];
    let parsed = match Arguments::try_parse_from(named.iter().chain(args)) {
        Ok(parsed) => parsed,
        Err(error) => return explain(error, args),
    };
    session.plugin = parsed.plugin;
    session.config_dir = parsed.config_dir;
    match parsed.command {
        Command::Ls(arguments) => ls::run(&arguments, &session),
        Command::Inspect(arguments) => inspect::run(&arguments, &session),
        Command::Refresh(arguments) => refresh::run(&arguments, &session),
        Command::Check(arguments) => check::run(&arguments, &session),
        Command::Events(arguments) => events::run(&arguments, &session),
        Command::Secret(arguments) => secret::run(arguments, &session.config_dir),
        Command::Init(arguments) => init::run(&arguments, &session),
        Command::Import(arguments) => import::run(&arguments, &session.config_dir),
        Command::Doctor(arguments) => doctor::run(&arguments, &session),
        Command::Version(arguments) => version::run(&arguments, &session),
        Command::Completion(arguments) => completion::run(&arguments, command()),
        Command::Man(arguments) => completion::pages(&arguments, command()),
    }
}

/// What `docker dso` understands.
fn command() -> clap::Command {
    Arguments::command()
}

/// Help and version are answers; the rest are faults, told without what was typed where that may be a value.
fn explain(error: clap::Error, args: &[OsString]) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(&error.to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(Failure::Usage(error.to_string())),
        _ if args.iter().any(|arg| arg == "set") => Err(Failure::Usage(format!(
            "the arguments of `secret set` are not understood (they are not repeated here, in case one is a value); \
             a value is given on stdin or typed when asked for\n\n{}",
            usage(&["secret", "set"])
        ))),
        _ => {
            let text = error.to_string();
            Err(Failure::Usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end().into()))
        }
    }
}

fn usage(path: &[&str]) -> String {
    let mut command = command();
    command.build();
    let found = path.iter().try_fold(&mut command, |command, name| command.find_subcommand_mut(name));
    found.map(|command| command.render_usage().to_string()).unwrap_or_default()
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => {
            say(&format!("Error: {message}"));
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            say(&format!("Error: {message}"));
            ExitCode::from(2)
        }
    }
}

/// Writes to stdout.
fn print(text: &str) -> Result<(), Failure> {
    let text = text.trim_end_matches('\n');
    match writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(()),
        Err(error) => Err(output_failed(error)),
    }
}

/// Writes to stderr; where nobody reads it, there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn output_failed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Failed(format!("cannot write the output: {error}")),
    }
}

// === impl Failure ===

impl Failure {
    fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../docs/cli.md");

    /// Every command, option and field has its place in the documentation.
    #[test]
    fn the_page_tells_of_all_that_there_is() {
        let command = command();
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let heading = format!("### `docker dso {name}");
            let section = PAGE.split_once(&heading).unwrap_or_else(|| panic!("no section `{heading}`")).1;
            let section = section.split("\n### ").next().unwrap_or_default();
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(section.contains(&format!("`--{option}")), "{name} --{option}");
            }
        }
        let fields = volume::FIELDS.iter().map(|field| field.name).chain(event::FIELDS.iter().map(|field| field.name));
        for field in fields {
            assert!(
                PAGE.lines().any(|line| line.starts_with("| `") && line.contains(&format!("`{field}`"))),
                "{field}"
            );
        }
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(PAGE.contains(&format!("`--{option}")), "--{option}");
        }
    }
}
