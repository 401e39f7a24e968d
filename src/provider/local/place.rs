//! Where a store and its identity are: the settings of an instance.

use super::error::StoreError;
use crate::{faults::Faults, host::HostFiles, settings::Settings};
use std::path::{Path, PathBuf};

const STORE: &str = "/etc/dso/local.age";
const IDENTITY: &str = "/etc/dso/identity";

/// Keys that a person might put a credential in; the files that are named hold it, the settings never do.
const CREDENTIALS: [&str; 7] = ["identity", "key", "private_key", "passphrase", "password", "secret", "token"];

/// The settings of one instance: paths as a person knows them on the host.
#[derive(Clone, Debug)]
pub struct Place {
    store: PathBuf,
    identity: PathBuf,
    host: HostFiles,
}

/// A file, and how messages name it.
#[derive(Clone, Debug)]
pub struct Named {
    pub path: PathBuf,
    pub shown: String,
}

/// The two files of a store, as found from here and now.
#[derive(Clone, Debug)]
pub struct Files {
    pub store: Named,
    pub identity: Named,
}

// === impl Place ===

impl Place {
    /// As the host names it.
    pub fn identity(&self) -> &Path {
        &self.identity
    }

    pub fn read(instance: &str, table: toml::Table, host: &HostFiles) -> Result<Self, Faults> {
        let place = format!("[provider.{instance}]");
        let (credentials, table): (toml::Table, toml::Table) =
            table.into_iter().partition(|(key, _)| CREDENTIALS.contains(&key.as_str()));
        let mut settings = Settings::new(place, table);
        for key in credentials.keys() {
            settings.wrong::<()>(key, "is refused: dso takes no credential in its settings; put the identity in the file that `identity_file` names");
        }
        let store = path(&mut settings, "store", STORE, host);
        let identity = path(&mut settings, "identity_file", IDENTITY, host);
        if store == identity {
            settings.wrong::<()>("store", "and `identity_file` are the same file");
        }
        settings.finish(|| Self { store, identity, host: host.clone() })
    }

    /// The files as they are to be found now: the folder may have been made since the last time.
    pub fn files(&self) -> Result<Files, StoreError> {
        let find = |named: &Path| {
            let path = self.host.locate(named).map_err(StoreError::Outside)?;
            Ok(Named { path, shown: named.display().to_string() })
        };
        Ok(Files { store: find(&self.store)?, identity: find(&self.identity)? })
    }
}

fn path(settings: &mut Settings, key: &'static str, default: &str, host: &HostFiles) -> PathBuf {
    let Some(named) = settings.path(key) else { return default.into() };
    // Not repeated in the message: someone took the file's content for its path.
    if named.to_string_lossy().to_ascii_uppercase().contains("AGE-SECRET-KEY-") {
        settings.wrong::<()>(key, "must be a path, not the identity itself");
        return default.into();
    }
    if let Err(fault) = host.locate(&named) {
        settings.wrong::<()>(key, &format!("cannot be used: {fault}"));
    }
    named
}

// === impl Files ===

impl Files {
    /// Named as they are, for a process that sees the host itself.
    pub fn shown_as_found(mut self) -> Self {
        for file in [&mut self.store, &mut self.identity] {
            file.shown = file.path.display().to_string();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &str) -> Result<Place, String> {
        Place::read("local", table.parse().unwrap(), &HostFiles::on_host("/nowhere")).map_err(|f| f.to_string())
    }

    #[test]
    fn the_defaults_are_the_files_of_the_design() {
        let files = read("").unwrap().files().unwrap();
        assert_eq!(files.store.path, Path::new("/nowhere/local.age"));
        assert_eq!(files.store.shown, "/etc/dso/local.age");
        assert_eq!(files.identity.path, Path::new("/nowhere/identity"));
        assert_eq!(files.shown_as_found().identity.shown, "/nowhere/identity");
    }

    #[test]
    fn every_fault_is_told_at_once_and_no_credential_is_repeated() {
        let faults = read("store = '/srv/x'\nidentity_file = 'AGE-SECRET-KEY-1QQ'\npassphrase = 'hunter2'\nstor = 1")
            .unwrap_err();
        assert_eq!(
            faults,
            "[provider.local]: `passphrase` is refused: dso takes no credential in its settings; put the identity in the \
             file that `identity_file` names; [provider.local]: `store` cannot be used: `/srv/x` is not under /etc/dso, \
             which is all that dso sees of the host; [provider.local]: `identity_file` must be a path, not the identity \
             itself; [provider.local]: unknown key `stor`: did you mean `store`?"
        );
    }

    #[test]
    fn one_file_cannot_be_both() {
        let faults = read("store = '/etc/dso/identity'").unwrap_err();
        assert_eq!(faults, "[provider.local]: `store` and `identity_file` are the same file");
    }
}
