//! `docker dso secret set|get|ls|rm|rotate-key`: the embedded store, on the host that has it.

use super::{Failure, input, output_failed, print, prompt, say};
use crate::{
    host::HostFiles,
    provider::local::{Listed, LocalStore, StoreError, Target, VALUE_LIMIT},
};
use clap::{Args, Subcommand, ValueEnum};
use rustix::{fd::AsFd, io::Errno};
use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal},
    path::Path,
};
use zeroize::Zeroizing;

#[derive(Args)]
pub struct Arguments {
    /// Instance of dso.toml, if there are several stores
    #[arg(long, global = true, value_name = "NAME", default_value = "local")]
    provider: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set a secret, or one field of a secret that is a JSON object
    ///
    /// The value is read from stdin, byte for byte, or asked for twice if stdin is a terminal.
    /// It is never an argument: `ps` and the shell's history would show it.
    #[command(after_help = "Examples:\n  docker dso secret set app/db < password.txt\n  \
        printf %s \"$PW\" | docker dso secret set app/db#password\n  docker dso secret set app/db#password")]
    Set(Set),
    /// Write a secret's value to stdout, byte for byte
    ///
    /// A terminal gets a line end after it.
    Get {
        /// NAME, NAME#FIELD or NAME#/JSON/POINTER
        #[arg(value_name = "NAME[#FIELD]")]
        name: String,
    },
    /// List secrets, without their values
    Ls {
        /// How to write them: a table, or one JSON object a line
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// Names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove secrets
    ///
    /// Containers keep what they have mounted; their volumes are marked stale.
    Rm {
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Encrypt the store anew, with a new key in the identity file
    ///
    /// Secrets and their versions stay as they are, and no container is told. Copies of the store that were made before are
    /// opened by the old identity alone.
    RotateKey,
}

#[derive(Args)]
struct Set {
    /// NAME or NAME#FIELD, as in the reference local://NAME#FIELD
    #[arg(value_name = "NAME[#FIELD]")]
    name: String,
    /// Drop one line end from the end of the value, as `echo` adds it
    #[arg(short = 'n', long)]
    trim: bool,
    /// Take a value of no bytes, which is most often an accident
    #[arg(long)]
    allow_empty: bool,
    /// Caught, so that it can be refused with its reason.
    #[arg(hide = true)]
    extra: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub fn run(arguments: Arguments, config_dir: &Path) -> Result<(), Failure> {
    match arguments.command {
        Command::Set(options) => {
            refuse_value(&options)?;
            set(&open(&arguments.provider, config_dir)?, &arguments.provider, &options)
        }
        Command::Get { name } => get(&open(&arguments.provider, config_dir)?, &name),
        Command::Ls { format, quiet } => list(&open(&arguments.provider, config_dir)?, format, quiet),
        Command::Rm { names } => remove(&open(&arguments.provider, config_dir)?, &names),
        Command::RotateKey => rotate_key(&arguments.provider, config_dir),
    }
}

/// dso.toml as it is; empty where there is none.
fn settings(file: &Path) -> Result<toml::Table, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => parse(&text).map_err(|fault| Failure::Failed(format!("{}: {fault}", file.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(toml::Table::new()),
        Err(error) => Err(Failure::Failed(format!("cannot read `{}`: {error}", file.display()))),
    }
}

/// The store of an instance: as dso.toml says, or the default where it says nothing of it.
pub(super) fn open(instance: &str, config_dir: &Path) -> Result<LocalStore, Failure> {
    let config_dir = std::path::absolute(config_dir).map_err(Failure::failed)?;
    let file = config_dir.join("dso.toml");
    let mut config = settings(&file)?;
    let named = config.get_mut("provider").and_then(toml::Value::as_table_mut).and_then(|all| all.remove(instance));
    let table = match named {
        Some(toml::Value::Table(mut table)) => match table.remove("type") {
            Some(toml::Value::String(kind)) if kind == "local" => table,
            _ => {
                let fault = format!("{}: [provider.{instance}] is not of type \"local\"", file.display());
                return Err(Failure::Failed(fault));
            }
        },
        None if instance == "local" => toml::Table::new(),
        _ => return Err(Failure::Failed(format!("{}: there is no [provider.{instance}]", file.display()))),
    };
    LocalStore::open(instance, table, &HostFiles::on_host(config_dir))
        .map_err(|faults| Failure::Failed(format!("{}: {faults}", file.display())))
}

/// The parser's own text quotes the line that it stopped at, which is not for a message.
fn parse(text: &str) -> Result<toml::Table, String> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        format!("line {line}: {}", error.message())
    })
}

fn target(store: &LocalStore, name: &str) -> Result<Target, Failure> {
    store.target(name).map_err(|fault| Failure::Usage(format!("`{name}`: {fault}")))
}

/// A value among the arguments is refused, and not repeated.
fn refuse_value(options: &Set) -> Result<(), Failure> {
    let given = match (&options.extra[..], options.name.contains('=')) {
        ([], false) => return Ok(()),
        ([], true) => "a secret's name cannot have a `=` here, and a value is never an argument",
        _ => "a value is never an argument",
    };
    let name = options.name.split('=').next().unwrap_or_default();
    Err(Failure::Usage(format!(
        "{given}: `ps` and the shell's history would show it. If it was a real one, change it. \
         Run `docker dso secret set {name}` and type the value, or give it on stdin"
    )))
}

fn set(store: &LocalStore, instance: &str, options: &Set) -> Result<(), Failure> {
    let target = target(store, &options.name)?;
    let reference = match &target.field {
        Some(field) => format!("{instance}://{}#{field}", target.name),
        None => format!("{instance}://{}", target.name),
    };
    let piped = !io::stdin().is_terminal();
    let mut value = if piped { input::from_stdin(VALUE_LIMIT)? } else { prompt::twice(&reference)? };
    if options.trim {
        trim(&mut value);
    }
    if value.is_empty() && !options.allow_empty {
        return Err(Failure::Failed("the value is empty; nothing was changed (`--allow-empty` if it is meant)".into()));
    }
    let ends_in_newline = value.ends_with(b"\n");
    let done = store.set(&target, Target::value(value)).map_err(Failure::failed)?;
    if let Some(path) = done.new_identity {
        say(&format!("Made the store `{}` and its identity `{path}`: keep a copy of both.", store.path()));
    }
    if ends_in_newline {
        say("Note: the value ends with a line end, which is now part of it (`--trim` drops it).");
    }
    print(&format!("{reference} version {}", done.result))
}

fn trim(value: &mut Zeroizing<Vec<u8>>) {
    if value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
}

fn get(store: &LocalStore, name: &str) -> Result<(), Failure> {
    let value = store.get(&target(store, name)?).map_err(Failure::failed)?;
    let stdout = rustix::stdio::stdout();
    // Past the standard library's buffer, which is not wiped.
    write_all(stdout, value.expose())?;
    if io::stdout().is_terminal() && !value.expose().ends_with(b"\n") {
        write_all(stdout, b"\n")?;
    }
    Ok(())
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(output_failed(error.into())),
        }
    }
    Ok(())
}

fn list(store: &LocalStore, format: Format, quiet: bool) -> Result<(), Failure> {
    let listed = match store.list() {
        Ok(listed) => listed,
        Err(error @ StoreError::NoStore(_)) => {
            say(&format!("Note: {error}"));
            Vec::new()
        }
        Err(error) => return Err(Failure::failed(error)),
    };
    let lines: Vec<String> = match (quiet, format) {
        (true, _) => listed.into_iter().map(|entry| entry.name).collect(),
        (false, Format::Json) => listed.iter().map(json).collect(),
        (false, Format::Table) => table(&listed),
    };
    if lines.is_empty() { Ok(()) } else { print(&lines.join("\n")) }
}

fn json(entry: &Listed) -> String {
    let Listed { name, version, updated, size } = entry;
    serde_json::json!({ "Name": name, "Version": version, "Updated": updated, "Size": size }).to_string()
}

fn table(listed: &[Listed]) -> Vec<String> {
    let width = listed.iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0).max("NAME".len());
    let row = |name: &str, version: &str, updated: &str, size: &str| {
        format!("{name:width$}   {version:>7}   {updated:20}   {size:>8}")
    };
    let mut rows = vec![row("NAME", "VERSION", "UPDATED", "SIZE")];
    for Listed { name, version, updated, size } in listed {
        // Whole seconds are enough for a person.
        let seconds = updated.split('.').next().unwrap_or_default().trim_end_matches('Z');
        rows.push(row(name, version, &format!("{seconds}Z"), &size.to_string()));
    }
    rows
}

fn remove(store: &LocalStore, names: &[String]) -> Result<(), Failure> {
    let mut targets = Vec::new();
    for name in names {
        let target = target(store, name)?;
        if target.field.is_some() {
            return Err(Failure::Usage(format!("`{name}`: rm removes whole secrets, not fields")));
        }
        targets.push(target.name);
    }
    let results = store.remove(&targets.iter().map(String::as_str).collect::<Vec<_>>()).map_err(Failure::failed)?;
    let mut faults = Vec::new();
    for (name, result) in targets.iter().zip(results) {
        match result {
            Ok(()) => print(name)?,
            Err(error) => faults.push(error.to_string()),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Failed(faults.join("; "))) }
}

fn rotate_key(instance: &str, config_dir: &Path) -> Result<(), Failure> {
    let store = open(instance, config_dir)?;
    if let Some(other) = sharer(&store, instance, config_dir)? {
        return Err(Failure::Failed(format!(
            "[provider.{other}] has the same identity file, and its store would not open any more: give it one of its own first \
             (`identity_file`)"
        )));
    }
    let path = store.rotate_key().map_err(Failure::failed)?;
    say(&format!(
        "Keep a copy of `{path}` in place of the one that you have: that opens copies of the store from before alone. Values that \
         somebody may have read are changed at their source."
    ));
    print(&format!("{} has a new key", store.path()))
}

/// Another store that is opened by the same identity.
fn sharer(store: &LocalStore, instance: &str, config_dir: &Path) -> Result<Option<String>, Failure> {
    let settings = settings(&config_dir.join("dso.toml"))?;
    let named = settings.get("provider").and_then(toml::Value::as_table).into_iter().flatten();
    let of_type = |table: &toml::Value| table.get("type").and_then(toml::Value::as_str) == Some("local");
    let others = named.filter(|(name, table)| *name != instance && of_type(table)).map(|(name, _)| name.clone());
    for other in others.chain((instance != "local").then(|| "local".to_owned())) {
        let shares = open(&other, config_dir).is_ok_and(|other| {
            other.identity_path() == store.identity_path()
                && Path::new(other.path()).exists()
                && other.path() != store.path()
        });
        if shares {
            return Ok(Some(other));
        }
    }
    Ok(None)
}
