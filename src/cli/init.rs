//! `docker dso init`: what a host needs before its first secret.
//!
//! # Guarantees
//! - What is there stays as it is, whatever it holds; a second run finds nothing to do.
//! - Folders are 0700 and files 0600 from the moment they exist.

mod plugin;

use super::{Failure, confirm, print, say, secret, session::Session};
use clap::Args;
use rustix::fs::{CWD, RenameFlags};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Every setting, commented out.
const SETTINGS: &str = include_str!("init/dso.toml");

#[derive(Args)]
pub struct Arguments {
    /// Do it without asking
    #[arg(short, long)]
    yes: bool,
}

/// What is to be done, in this order.
enum Step {
    Folder(PathBuf),
    Settings(PathBuf),
    Identity(PathBuf),
    Plugin(Box<plugin::Change>),
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<(), Failure> {
    let folder = std::path::absolute(&session.config_dir).map_err(Failure::failed)?;
    let (mut steps, mut there) = (Vec::new(), Vec::new());
    let settings = folder.join("dso.toml");
    for (path, step) in [(&folder, Step::Folder as fn(PathBuf) -> Step), (&settings, Step::Settings)] {
        match exists(path)? {
            true => there.push(path.clone()),
            false => steps.push(step(path.clone())),
        }
    }
    let store = secret::open("local", &folder)?;
    match store.wants_identity().map_err(Failure::failed)? {
        true => steps.push(Step::Identity(store.identity_path().to_owned())),
        false => there.push(store.identity_path().to_owned()),
    }
    match plugin::look(session, &folder) {
        Ok(change) => steps.extend(change.map(|change| Step::Plugin(Box::new(change)))),
        Err(why) => say(&format!("Note: the plugin's mount `config` is not looked at: {why}.")),
    }
    for path in &there {
        say(&format!("{} is there, and stays as it is{}", path.display(), openness(path)));
    }
    if !steps.is_empty() {
        say("This will be done:");
        steps.iter().for_each(|step| say(&format!("  {}", step.describe())));
        confirm::go_on("Go on?", arguments.yes)?;
    }
    for step in &steps {
        match step {
            Step::Folder(path) => make_folder(path)?,
            Step::Settings(path) => write_settings(path)?,
            Step::Identity(_) => drop(store.make_identity().map_err(Failure::failed)?),
            Step::Plugin(change) => change.make(session)?,
        }
    }
    let done = if steps.is_empty() { "Nothing to do" } else { "Done" };
    print(&format!("{done}. Next: docker dso secret set app/db#password"))
}

/// Also what a broken link names is there: nothing is written through it.
fn exists(path: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(cannot("look at", path, error)),
    }
}

fn openness(path: &Path) -> String {
    let mode = fs::metadata(path).map(|meta| meta.permissions().mode() & 0o7777).unwrap_or_default();
    if mode & 0o022 == 0 {
        return String::new();
    }
    format!(" (mode {mode:04o}: other users may change it; run `chmod go-w {}`)", path.display())
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| cannot("make", path, error))
}

/// Whole or not at all, and never in the place of a file that came meanwhile.
fn write_settings(path: &Path) -> Result<(), Failure> {
    let fresh = path.with_file_name(format!(".dso.toml.{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(SETTINGS.as_bytes())?;
        file.sync_all()?;
        rustix::fs::renameat_with(CWD, &fresh, CWD, path, RenameFlags::NOREPLACE).map_err(io::Error::from)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&fresh);
        cannot("write", path, error)
    })
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Failure {
    let advice = if error.kind() == io::ErrorKind::PermissionDenied { "; run it as root" } else { "" };
    Failure::Failed(format!("cannot {what} `{}`: {error}{advice}", path.display()))
}

// === impl Step ===

impl Step {
    fn describe(&self) -> String {
        match self {
            Self::Folder(path) => format!("make the folder {} (mode 0700)", path.display()),
            Self::Settings(path) => {
                format!("write {} (mode 0600): every setting, each commented out", path.display())
            }
            Self::Plugin(change) => change.describe(),
            Self::Identity(path) => {
                format!("make {} (mode 0600): the identity that opens the embedded store", path.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, host::HostFiles, provider::Registry, reconcile::policy::Policy};

    /// Blocks of settings, with the `#` taken away; each begins with a table or a key after a line of prose.
    fn blocks() -> Vec<String> {
        let mut blocks = vec![String::new()];
        for line in SETTINGS.lines() {
            match line.strip_prefix('#') {
                Some(setting) if setting.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
                    let block = blocks.last_mut().unwrap();
                    block.push_str(setting);
                    block.push('\n');
                }
                _ => blocks.push(String::new()),
            }
        }
        blocks.retain(|block| !block.is_empty());
        blocks
    }

    fn faults(text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dso.toml"), text).unwrap();
        let host = HostFiles::on_host(dir.path());
        let (config, faults) = Config::load(&|_| None, &host);
        let registry = Registry::build(config.providers, &host);
        let (_, rotation) = Policy::parse(config.rotation);
        let broken = registry.broken().map(|(_, faults)| faults.to_string());
        [faults.to_string(), rotation.to_string()].into_iter().chain(broken).filter(|fault| !fault.is_empty()).collect()
    }

    #[test]
    fn the_file_says_nothing_until_a_line_is_uncommented() {
        let table: toml::Table = SETTINGS.parse().unwrap();
        assert!(table.is_empty());
    }

    #[test]
    fn every_block_is_good_as_it_stands() {
        let blocks = blocks();
        assert_eq!(blocks.len(), 16, "{blocks:#?}");
        for block in blocks {
            assert_eq!(faults(&block), [""; 0], "{block}");
        }
    }

    #[test]
    fn every_key_of_the_documentation_is_there() {
        let docs = include_str!("../../docs/providers.md");
        // What stands first in tables of other things.
        let others = ["identity", "local.age", "local.age.lock", "set", "get", "ls", "rm"];
        let mut seen = 0;
        for line in docs.lines().filter(|line| line.starts_with("| `")) {
            let keys = line.split('|').nth(1).unwrap();
            for key in keys.split('`').skip(1).step_by(2) {
                let plain = key.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c)) && !others.contains(&key);
                if plain {
                    seen += 1;
                    assert!(SETTINGS.contains(&format!("{key} =")) || SETTINGS.contains(key), "{key}");
                }
            }
        }
        assert!(seen > 25, "{seen}");
    }
}
