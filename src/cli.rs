//! `docker dso`: arguments, errors and exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 not understood. Errors are one line on stderr that starts with `Error: `.

mod input;
mod plugin;
mod prompt;
pub mod secret;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
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
    disable_help_subcommand = true
)]
struct Arguments {
    /// Folder of dso.toml, the store and its identity
    #[arg(long, global = true, value_name = "DIR", default_value = "/etc/dso")]
    config_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Secrets of the embedded store (provider `local`)
    Secret(secret::Arguments),
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
    let args = plugin::own_arguments(args.into_iter().collect());
    if args.first().is_some_and(|arg| arg == plugin::METADATA_COMMAND) {
        return finish(print(&plugin::metadata()));
    }
    finish(dispatch(&args))
}

fn dispatch(args: &[OsString]) -> Result<(), Failure> {
    let named = [OsString::from("docker-dso")];
    let parsed = match Arguments::try_parse_from(named.iter().chain(args)) {
        Ok(parsed) => parsed,
        Err(error) => return explain(error, args),
    };
    match parsed.command {
        Command::Secret(arguments) => secret::run(arguments, &parsed.config_dir),
    }
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
    let mut command = Arguments::command();
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
