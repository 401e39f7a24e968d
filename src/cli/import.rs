//! `docker dso import`: secrets out of `.env` and Compose files, into the embedded store.
//!
//! # Guarantees
//! - A value is never shown: names, places and lengths only.
//! - Of a Compose file nothing changes but the lines that the diff shows; comments stay.
//! - First the values are stored, then the file is replaced, by rename: after a crash in between, the old file still works.
//!
//! # Caveats
//! The old values stay where they were besides: in `.env`, in backups, in git's history. They are named, not deleted.

mod compose;
mod dotenv;
mod edits;
mod fragment;
mod names;
mod numeric;
mod rewrite;
mod store;
mod variables;
mod yaml;

use super::{Failure, confirm, print, say};
use crate::config;
use clap::Args;
use compose::{Found, Place, Project, shown};
use names::Choice;
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};
use store::Plan;
use yaml::Tree;
use zeroize::Zeroizing;

#[derive(Args)]
#[command(after_help = "Examples:\n  docker dso import compose.yaml\n  docker dso import compose.yaml --dry-run\n  \
    docker dso import .env --to local://app --only SMTP_LOGIN\n\n\
    A variable NAME becomes NAME_FILE, which names a file: many images read that. For one that does not, `--except NAME`\n\
    leaves it; a program that reads a file of variables can have one by a template, in the options of the volume:\n\
    template.env: 'NAME={{ secret(\"local://app#NAME\") }}'")]
pub struct Arguments {
    /// A Compose file (.yaml, .yml), or a file of variables
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the values go; local://PROJECT if not given
    #[arg(long, value_name = "REFERENCE")]
    to: Option<String>,
    /// Take this variable, and none that is not named so
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Leave this variable as it is
    #[arg(long, value_name = "NAME")]
    except: Vec<String>,
    /// Write the Compose file here instead of changing it; `-` is stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Variables for the Compose file; .env beside it if not given
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Replace other values that the store has
    #[arg(long)]
    overwrite: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it without asking
    #[arg(short, long)]
    yes: bool,
}

pub fn run(arguments: &Arguments, config_dir: &Path) -> Result<(), Failure> {
    let extension = arguments.file.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("yaml" | "yml") => compose(arguments, config_dir),
        _ => variables(arguments, config_dir),
    }
}

/// A file of variables: the values are stored, and what a Compose file needs is printed.
fn variables(arguments: &Arguments, config_dir: &Path) -> Result<(), Failure> {
    let file = &arguments.file;
    let text = read(file)?;
    let entries = dotenv::parse(&text, &environment).map_err(|fault| in_file(file, &fault))?;
    let choice = choice(arguments);
    let mut taken: BTreeMap<&str, (&[u8], usize)> = BTreeMap::new();
    for entry in &entries {
        if let Some(value) = entry.value.as_ref().filter(|value| choice.takes(&entry.name, value)) {
            taken.insert(&entry.name, (value.as_bytes(), entry.line));
        }
    }
    if taken.is_empty() {
        return nothing(file);
    }
    let project = project_name(file, None)?;
    let mut plan = Plan::new(arguments.to.as_deref(), &project)?;
    let secrets: Vec<_> = taken.iter().map(|(name, (value, _))| ("app", *name, *value)).collect();
    plan.assign(&secrets);
    let store = plan.open(config_dir)?;
    tell_values(&plan, &store, arguments)?;
    if arguments.dry_run {
        return Ok(());
    }
    confirm::go_on("Store them?", arguments.yes)?;
    unchanged(file, &text)?;
    tell_identity(&store, plan.write(&store)?);
    let lines: Vec<String> = taken.iter().map(|(name, (_, line))| format!("{name} (line {line})")).collect();
    let folder = Path::new("");
    say(&format!("{} still holds {}. {ROTATE}", shown(file, folder), lines.join(", ")));
    let names: Vec<&str> = taken.keys().copied().collect();
    print(&fragment::of_variables(&names, &plan, &project))
}

const ROTATE: &str =
    "Once all works without them: delete them there, and change them where they are valid, since they were in a file.";

fn compose(arguments: &Arguments, config_dir: &Path) -> Result<(), Failure> {
    let file = &arguments.file;
    let text = read(file)?;
    let folder = std::path::absolute(file).map_err(Failure::failed)?.parent().map(Path::to_owned).unwrap_or_default();
    let beside = Beside::read(arguments, &folder)?;
    let lookup = |name: &str| beside.get(name);
    let choice = choice(arguments);
    let project = |text| {
        let tree = Tree::parse(text).map_err(|fault| in_file(file, &fault))?;
        Ok::<_, Failure>(Project { text, tree, folder: folder.clone(), lookup: &lookup, choice: &choice })
    };
    let before = project(&text)?;
    let mut found = before.read().map_err(|fault| in_file(file, &fault))?;
    let mut plan = Plan::new(arguments.to.as_deref(), &project_name(file, Some(&before))?)?;
    let all = || found.services.iter().flat_map(|service| service.secrets.iter().map(move |secret| (service, secret)));
    let secrets: Vec<_> = all()
        .filter_map(|(service, secret)| {
            Some((service.name.as_str(), secret.name.as_str(), &secret.value.as_ref()?[..]))
        })
        .collect();
    if secrets.is_empty() {
        found.notes.iter().for_each(|note| say(&format!("Note: {note}.")));
        return nothing(file);
    }
    plan.assign(&secrets);
    let literal = all().any(|(_, secret)| matches!(secret.place, Place::Variable { .. } | Place::Item(_)));
    let (edits, notes) = rewrite::rewrite(&before, &found, &plan).map_err(|fault| in_file(file, &fault))?;
    let new = edits.apply(&text).map_err(|fault| in_file(file, &fault))?;
    let after = project(&new)?;
    verify(&after).map_err(|fault| in_file(file, &fault))?;
    found.notes.extend(notes);
    found.notes.extend(still_used(&found, &new));
    let store = plan.open(config_dir)?;
    tell_values(&plan, &store, arguments)?;
    say(&format!("In {}:", file.display()));
    say(edits.diff(&text).map_err(|fault| in_file(file, &fault))?.trim_end());
    found.notes.iter().for_each(|note| say(&format!("Note: {note}.")));
    say(
        "Note: a variable NAME becomes NAME_FILE, which the image has to know; see `docker dso import --help` for one that does not.",
    );
    if arguments.dry_run {
        return Ok(());
    }
    confirm::go_on("Store the values and write the file?", arguments.yes)?;
    unchanged(file, &text)?;
    tell_identity(&store, plan.write(&store)?);
    let written = write(arguments, &new)?;
    if literal && written.as_deref() != Some(file) {
        found.sources.entry(file.clone()).or_default();
    }
    beside.sources(&mut found);
    tell_sources(&found, &folder);
    match (&arguments.output, written) {
        (_, Some(path)) => {
            print(&format!("{} takes its secrets from dso now. Next: docker compose -f {0} up -d", path.display()))
        }
        _ => print(&new),
    }
}

/// The new file is read as the old one was: what was taken must not be there any more.
fn verify(after: &Project<'_>) -> Result<(), String> {
    let found = after.read()?;
    let left = found.services.iter().flat_map(|service| service.secrets.iter().map(move |secret| (service, secret)));
    match left.into_iter().find(|(_, secret)| !matches!(secret.place, Place::EnvFile)) {
        None => Ok(()),
        Some((service, secret)) => Err(format!(
            "`{}` of service {} cannot be taken out of how the file is written; nothing was changed (`--except {0}` leaves it)",
            secret.name, service.name
        )),
    }
}

/// Where variables whose values were taken are used besides.
fn still_used(found: &Found, new: &str) -> Vec<String> {
    let mut notes = Vec::new();
    for (number, line) in new.lines().enumerate() {
        for name in &found.variables {
            let forms = [format!("${name}"), format!("${{{name}")];
            let mut uses = forms.iter().flat_map(|form| line.match_indices(form).map(|(at, text)| at + text.len()));
            let ends = |at: usize| !line[at..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            if !line.trim_start().starts_with('#') && uses.any(ends) {
                notes.push(format!("{name} is used in line {} too, where dso cannot bring it", number + 1));
            }
        }
    }
    notes
}

/// `.env` beside the Compose file, under the caller's own environment.
struct Beside {
    path: PathBuf,
    entries: Vec<dotenv::Entry>,
}

// === impl Beside ===

impl Beside {
    fn read(arguments: &Arguments, folder: &Path) -> Result<Self, Failure> {
        let path = arguments.env_file.clone().unwrap_or_else(|| folder.join(".env"));
        if arguments.env_file.is_none() && !path.exists() {
            return Ok(Self { path, entries: Vec::new() });
        }
        let entries = dotenv::parse(&read(&path)?, &environment).map_err(|fault| in_file(&path, &fault))?;
        Ok(Self { path, entries })
    }

    fn get(&self, name: &str) -> Option<Zeroizing<String>> {
        let here = || self.entries.iter().rev().find(|entry| entry.name == name)?.value.clone();
        environment(name).or_else(here)
    }

    /// Notes the lines of the variables that were taken.
    fn sources(&self, found: &mut Found) {
        for entry in self.entries.iter().filter(|entry| found.variables.contains(&entry.name)) {
            found.sources.entry(self.path.clone()).or_default().insert(entry.line);
        }
    }
}

fn environment(name: &str) -> Option<Zeroizing<String>> {
    config::environment(name).map(Zeroizing::new)
}

fn choice(arguments: &Arguments) -> Choice {
    Choice { only: arguments.only.clone(), except: arguments.except.clone() }
}

/// As Compose finds it: the file's `name`, or the folder's.
fn project_name(file: &Path, project: Option<&Project<'_>>) -> Result<String, Failure> {
    let named = project.and_then(|project| {
        let name = project.tree.get(&project.tree.root, "name")?;
        let text = project.tree.text(&name.value)?;
        Some(variables::interpolate(text, project.lookup).ok()?.0.to_string())
    });
    let folder = std::path::absolute(file).map_err(Failure::failed)?;
    let folder = folder.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let text = named.or(folder).unwrap_or_default().to_lowercase();
    let legal = text.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(*c));
    let name: String = legal.collect::<String>().trim_start_matches(['_', '-']).into();
    Ok(if name.is_empty() { "app".into() } else { name })
}

fn read(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let cannot = |error: io::Error| Failure::Failed(format!("cannot read `{}`: {error}", file.display()));
    fs::read_to_string(file).map(Zeroizing::new).map_err(cannot)
}

/// What was shown and agreed to is what is done.
fn unchanged(file: &Path, text: &str) -> Result<(), Failure> {
    match read(file)?.as_str() == text {
        true => Ok(()),
        false => Err(in_file(file, "it was changed meanwhile, and nothing was stored or written: run this again")),
    }
}

fn in_file(file: &Path, fault: &str) -> Failure {
    Failure::Failed(format!("{}: {fault}", file.display()))
}

fn nothing(file: &Path) -> Result<(), Failure> {
    print(&format!("{}: no secret was found, and nothing was changed (`--only NAME` names one)", file.display()))
}

fn tell_values(plan: &Plan, store: &crate::provider::local::LocalStore, arguments: &Arguments) -> Result<(), Failure> {
    let lines = plan.describe(store, arguments.overwrite)?;
    say(&format!("For the store {}:", store.path()));
    lines.iter().for_each(|line| say(&format!("  {line}")));
    Ok(())
}

fn tell_identity(store: &crate::provider::local::LocalStore, made: Option<String>) {
    if let Some(path) = made {
        say(&format!("Made the store `{}` and its identity `{path}`: keep a copy of both.", store.path()));
    }
}

fn tell_sources(found: &Found, folder: &Path) {
    for (path, lines) in &found.sources {
        let lines: Vec<String> = lines.iter().map(usize::to_string).collect();
        let place = if lines.is_empty() { String::new() } else { format!(" in line {}", lines.join(", ")) };
        say(&format!("{} still holds values{place}.", shown(path, folder)));
    }
    say(ROTATE);
}

/// Writes the new Compose file; returns where, unless it goes to stdout.
fn write(arguments: &Arguments, new: &str) -> Result<Option<PathBuf>, Failure> {
    let (path, replaces) = match &arguments.output {
        Some(path) if path.as_os_str() == "-" => return Ok(None),
        Some(path) => (path.clone(), false),
        None => (fs::canonicalize(&arguments.file).map_err(Failure::failed)?, true),
    };
    let cannot = |error: io::Error| {
        Failure::Failed(format!(
            "cannot write `{}`: {error}; the values are stored, and the Compose file is as it was",
            path.display()
        ))
    };
    if !replaces {
        let mode = fs::metadata(&arguments.file).map_err(cannot)?.mode() & 0o777;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(cannot)?;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(cannot)?;
        file.write_all(new.as_bytes()).map_err(cannot)?;
        return Ok(Some(path));
    }
    replace(&path, new).map_err(cannot)?;
    Ok(Some(arguments.file.clone()))
}

/// By rename, with the owner and mode that the file had.
fn replace(path: &Path, new: &str) -> io::Result<()> {
    let meta = fs::metadata(path)?;
    let fresh = path.with_file_name(format!(
        ".{}.dso-{}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        if (file.metadata()?.uid(), file.metadata()?.gid()) != (meta.uid(), meta.gid()) {
            fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        file.write_all(new.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&fresh)))
}

#[cfg(test)]
mod tests;
