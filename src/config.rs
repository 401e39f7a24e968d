//! Settings: from the environment (`docker plugin set`) and `/etc/dso/dso.toml` to a validated [`Config`].
//!
//! A fault here never ends the plugin: containers read from what it mounted, and volumes must go on existing. It
//! is logged, and told to whoever needs what it broke.

use crate::{faults::Faults, host::HostFiles, settings::Settings, units};
use std::{collections::BTreeMap, fs, io, path::PathBuf, time::Duration};
use toml::{Table, Value};

const REFRESH_DEFAULT: Duration = Duration::from_secs(30);
const FILE: &str = "dso.toml";

/// Settings that stand for a key of the provider instance `vault`, as its own tools name them.
const VAULT: [(&str, &str); 4] = [
    ("VAULT_ADDR", "address"),
    ("VAULT_NAMESPACE", "namespace"),
    ("VAULT_CACERT", "ca_file"),
    ("VAULT_TOKEN_FILE", "auth.token_file"),
];

/// How the plugin logs; read before anything can be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `info`, or levels by module as in `info,dso::driver=debug`.
    pub filter: String,
    pub json: bool,
}

/// Everything else.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub refresh: Duration,
    /// Provider instances by scheme, each with its `type` and its own keys.
    pub providers: BTreeMap<String, Table>,
    /// Why the file says nothing: then nobody knows which providers are meant, also not whether `local` is the
    /// default one.
    pub unread: Option<String>,
}

/// Reads an environment variable; an empty one is none, since that is how a plugin's settings begin.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's own environment.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

// === impl LogConfig ===

impl LogConfig {
    pub fn load(env: Lookup<'_>) -> Result<Self, String> {
        let json = match env("DSO_LOG_FORMAT").as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => return Err(format!("DSO_LOG_FORMAT is `{other}`: it must be `text` or `json`")),
        };
        Ok(Self { filter: env("DSO_LOG").unwrap_or_else(|| "info".into()), json })
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), json: false }
    }
}

// === impl Config ===

impl Config {
    /// Reads the environment and the file. What is faulty is left out of the result, and told beside it.
    pub fn load(env: Lookup<'_>, host: &HostFiles) -> (Self, Faults) {
        let mut faults = Faults::default();
        let file = host.config_dir().join(FILE);
        let table = faults.note(read(&file), "/etc/dso/dso.toml");
        let unread = table.is_none().then(|| faults.to_string());
        let config = Self::from_parts(env, table.unwrap_or_default(), &mut faults);
        (Self { unread, ..config }, faults)
    }

    fn from_parts(env: Lookup<'_>, mut table: Table, faults: &mut Faults) -> Self {
        let mut providers = from_environment(env);
        let own = take_providers(&mut table, faults);
        if env(VAULT[0].0).is_none() && !own.contains_key("vault") {
            providers.remove("vault");
        }
        for (name, own) in own {
            // What the file says of an instance goes before the environment.
            merge(providers.entry(name).or_default(), own);
        }
        let mut settings = Settings::new("/etc/dso/dso.toml", table);
        let from_file = settings.string("refresh");
        if let Err(found) = settings.finish(|| ()) {
            faults.extend(found);
        }
        let refresh = match (from_file, env("DSO_REFRESH")) {
            (Some(text), _) => faults.note(units::refresh(&text), "/etc/dso/dso.toml: `refresh`"),
            (None, Some(text)) => faults.note(units::refresh(&text), "DSO_REFRESH"),
            (None, None) => None,
        };
        Self { refresh: refresh.unwrap_or(REFRESH_DEFAULT), providers, unread: None }
    }
}

fn read(file: &PathBuf) -> Result<Table, String> {
    match fs::read_to_string(file) {
        // TOML's own messages show the line, which may hold anything: the place and the kind are enough.
        Ok(text) => text.parse::<Table>().map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            format!("{}{}", error.message(), line.map(|line| format!(" (line {line})")).unwrap_or_default())
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::new()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// What the environment says of `local`, which needs no setting, and of `vault`, which has an address there or in the file.
fn from_environment(env: Lookup<'_>) -> BTreeMap<String, Table> {
    let mut providers = BTreeMap::new();
    providers.insert("local".to_owned(), Table::from_iter([("type".to_owned(), Value::from("local"))]));
    let mut vault = Table::from_iter([("type".to_owned(), Value::from("vault"))]);
    for (variable, key) in VAULT {
        let Some(value) = env(variable) else { continue };
        match key.split_once('.') {
            Some((outer, inner)) => {
                let nested = Table::from_iter([(inner.to_owned(), Value::from(value))]);
                vault.insert(outer.to_owned(), nested.into());
            }
            None => drop(vault.insert(key.to_owned(), value.into())),
        }
    }
    providers.insert("vault".to_owned(), vault);
    providers
}

fn take_providers(table: &mut Table, faults: &mut Faults) -> BTreeMap<String, Table> {
    let Some(found) = table.remove("provider") else { return BTreeMap::new() };
    let Value::Table(found) = found else {
        faults.push("/etc/dso/dso.toml: `provider` must be tables such as [provider.vault]");
        return BTreeMap::new();
    };
    let mut providers = BTreeMap::new();
    for (name, value) in found {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(legal) {
            faults.push(format!(
                "/etc/dso/dso.toml: [provider.{name}]: the name is the scheme of references: lower-case letters, digits \
                 and `-`, and a letter first"
            ));
        } else if let Value::Table(own) = value {
            providers.insert(name, own);
        } else {
            faults.push(format!("/etc/dso/dso.toml: [provider.{name}] must be a table"));
        }
    }
    providers
}

fn merge(into: &mut Table, from: Table) {
    // Another type has other keys: nothing of the environment fits it. Another method of login likewise.
    if from.get("type").is_some_and(|kind| into.get("type").is_some_and(|known| known != kind)) {
        into.clear();
    }
    into.extend(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(env: &[(&str, &str)], file: &str) -> (Config, String) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), file).unwrap();
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        let (config, faults) = Config::load(&lookup, &HostFiles::on_host(dir.path()));
        (config, faults.to_string())
    }

    #[test]
    fn without_settings_there_is_the_embedded_store_and_a_check_every_30_seconds() {
        let (config, faults) = load(&[], "");
        assert_eq!(faults, "");
        assert_eq!(config.refresh, Duration::from_secs(30));
        assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["local"]);
    }

    #[test]
    fn the_file_goes_before_the_environment_key_by_key() {
        let env = [
            ("VAULT_ADDR", "http://a"),
            ("VAULT_NAMESPACE", "team"),
            ("VAULT_TOKEN_FILE", "/etc/dso/t"),
            ("DSO_REFRESH", "5s"),
        ];
        let (config, faults) = load(
            &env,
            "refresh = '10s'\n[provider.vault]\ntype = 'vault'\naddress = 'http://b'\n[provider.vault-eu]\ntype = 'vault'",
        );
        assert_eq!(faults, "");
        assert_eq!(config.refresh, Duration::from_secs(10));
        let vault = &config.providers["vault"];
        assert_eq!((vault["address"].as_str(), vault["namespace"].as_str()), (Some("http://b"), Some("team")));
        assert_eq!(vault["auth"]["token_file"].as_str(), Some("/etc/dso/t"));
        assert!(config.providers.contains_key("vault-eu"));
    }

    #[test]
    fn settings_of_vault_hold_also_where_the_file_names_its_address() {
        let env = [("VAULT_NAMESPACE", "team"), ("VAULT_TOKEN_FILE", "/etc/dso/t")];
        let (config, faults) = load(&env, "[provider.vault]\ntype = 'vault'\naddress = 'http://b'");
        assert_eq!(faults, "");
        let vault = &config.providers["vault"];
        assert_eq!((vault["address"].as_str(), vault["namespace"].as_str()), (Some("http://b"), Some("team")));
        assert_eq!(vault["auth"]["token_file"].as_str(), Some("/etc/dso/t"));
        let (config, _) = load(&env, "");
        assert!(!config.providers.contains_key("vault"), "no address, no provider");
    }

    #[test]
    fn every_fault_is_told_and_the_rest_still_holds() {
        let (config, faults) = load(
            &[("DSO_REFRESH", "often")],
            "refesh = '1s'\n[provider.Bad]\ntype = 'vault'\n[provider.ok]\ntype = 'local'",
        );
        assert_eq!(
            faults,
            "/etc/dso/dso.toml: [provider.Bad]: the name is the scheme of references: lower-case letters, digits and `-`, and a letter first; \
             /etc/dso/dso.toml: unknown key `refesh`: did you mean `refresh`?; \
             DSO_REFRESH: `often` is no time: write it as `30s`, `5m` or `1h30m`"
        );
        assert!(config.providers.contains_key("ok"));
    }

    #[test]
    fn a_broken_file_is_told_by_its_line_and_not_by_its_text() {
        let (config, faults) = load(&[], "a = 1\nsecret = \"hunter2\n");
        assert_eq!(config.unread.as_ref(), Some(&faults));
        assert!(faults.contains("(line 2)") && !faults.contains("hunter2"), "{faults}");
    }
}
