//! Settings: from the environment (`docker plugin set`) and `/etc/dso/dso.toml` to a validated [`Config`].
//!
//! A fault here never ends the plugin: containers read from what it mounted, and volumes must go on existing. It
//! is logged, and told to whoever needs what it broke.

use crate::{audit::Destination, faults::Faults, host::HostFiles, settings::Settings, units};
use std::{collections::BTreeMap, fs, io, net::SocketAddr, path::PathBuf, time::Duration};
use toml::{Table, Value};

const REFRESH_DEFAULT: Duration = Duration::from_secs(30);
const FILE: &str = "dso.toml";

/// Settings that stand for keys of the provider instance that has its type's name, as the provider's own tools name
/// them. An instance that cannot be without its first one is made by that, unless the file does.
const ENVIRONMENT: [(&str, bool, Variables); 3] =
    [("aws", true, &AWS), ("azure", false, &AZURE), ("vault", true, &VAULT)];

/// Each variable, and the key that it stands for.
type Variables = &'static [(&'static str, &'static str)];

const AWS: [(&str, &str); 12] = [
    ("AWS_REGION", "region"),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "imds_endpoint"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "container_uri"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "container_relative_uri"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "container_token_file"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file"),
    ("AWS_ROLE_ARN", "web_identity_role_arn"),
    ("AWS_ROLE_SESSION_NAME", "web_identity_session_name"),
    ("AWS_PROFILE", "profile"),
    ("AWS_CONFIG_FILE", "config_file"),
    ("AWS_SHARED_CREDENTIALS_FILE", "credentials_file"),
    ("AWS_CA_BUNDLE", "ca_file"),
];

const AZURE: [(&str, &str); 8] = [
    ("AZURE_CLIENT_ID", "auth.client_id"),
    ("AZURE_TENANT_ID", "auth.tenant_id"),
    ("AZURE_FEDERATED_TOKEN_FILE", "auth.token_file"),
    ("AZURE_CLIENT_CERTIFICATE_PATH", "auth.certificate_file"),
    ("AZURE_AUTHORITY_HOST", "authority_host"),
    ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "auth.metadata_endpoint"),
    ("IDENTITY_ENDPOINT", "auth.identity_endpoint"),
    ("IDENTITY_HEADER", "auth.identity_header"),
];

const VAULT: [(&str, &str); 4] = [
    ("VAULT_ADDR", "address"),
    ("VAULT_NAMESPACE", "namespace"),
    ("VAULT_CACERT", "ca_file"),
    ("VAULT_TOKEN_FILE", "auth.token_file"),
];

/// `host:port` of Google's metadata server, as Google's own tools name it, for every login that asks that.
const GOOGLE_METADATA: &str = "GCE_METADATA_HOST";

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
    /// Where metrics are served over TCP, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Where deliveries of secrets are recorded, if anywhere.
    pub audit: Option<Destination>,
    /// Provider instances by scheme, each with its `type` and its own keys.
    pub providers: BTreeMap<String, Table>,
    /// `[rotation]`: what is done to containers, with its own keys.
    pub rotation: Table,
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
        let file = Self::file(host);
        let table = faults.note(read(&file), "/etc/dso/dso.toml");
        let unread = table.is_none().then(|| faults.to_string());
        let config = Self::from_parts(env, table.unwrap_or_default(), &mut faults);
        (Self { unread, ..config }, faults)
    }

    /// Where the file is, if there is one.
    pub fn file(host: &HostFiles) -> PathBuf {
        host.config_dir().join(FILE)
    }

    fn from_parts(env: Lookup<'_>, mut table: Table, faults: &mut Faults) -> Self {
        let mut providers = from_environment(env);
        let own = take_providers(&mut table, faults);
        let rotation = take_table(&mut table, "rotation", faults);
        let audit = audit(take_table(&mut table, "audit", faults), faults);
        for (name, needs_first, settings) in ENVIRONMENT {
            if needs_first && env(settings[0].0).is_none() && !own.contains_key(name) {
                providers.remove(name);
            }
        }
        for (name, own) in own {
            // What the file says of an instance goes before the environment.
            merge(providers.entry(name).or_default(), own);
        }
        if let Some(server) = env(GOOGLE_METADATA) {
            set_metadata_server(&mut providers, &server);
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
        let metrics = env("DSO_METRICS_ADDR").and_then(|text| faults.note(address(&text), "DSO_METRICS_ADDR"));
        Self { refresh: refresh.unwrap_or(REFRESH_DEFAULT), metrics, audit, providers, rotation, unread: None }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no address and port: write it as `127.0.0.1:9323` or `[::1]:9323`"))
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

/// What the environment says of `local`, which has no settings there, and of those that have.
fn from_environment(env: Lookup<'_>) -> BTreeMap<String, Table> {
    let of_type = |name: &str| Table::from_iter([("type".to_owned(), Value::from(name))]);
    let mut providers = BTreeMap::from([("local".to_owned(), of_type("local"))]);
    for (name, _, settings) in ENVIRONMENT {
        let mut table = of_type(name);
        for (variable, key) in settings {
            let Some(value) = env(variable) else { continue };
            match key.split_once('.') {
                Some((outer, inner)) => {
                    let nested = table.entry(outer).or_insert_with(|| Table::new().into());
                    nested.as_table_mut().map(|nested| nested.insert(inner.to_owned(), value.into()));
                }
                None => drop(table.insert((*key).to_owned(), value.into())),
            }
        }
        providers.insert(name.to_owned(), table);
    }
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

fn take_table(table: &mut Table, name: &str, faults: &mut Faults) -> Table {
    match table.remove(name) {
        Some(Value::Table(found)) => found,
        Some(_) => {
            faults.push(format!("/etc/dso/dso.toml: `{name}` must be a table: [{name}]"));
            Table::new()
        }
        None => Table::new(),
    }
}

/// `[audit]`: `to`, or nothing.
fn audit(table: Table, faults: &mut Faults) -> Option<Destination> {
    let mut settings = Settings::new("[audit]", table);
    let to = settings.string("to").and_then(|to| match to.as_str() {
        "log" => Some(Destination::Log),
        "file" => Some(Destination::File),
        _ => settings.wrong("to", "must be `log` or `file`"),
    });
    if let Err(found) = settings.finish(|| ()) {
        faults.extend(found);
    }
    to
}

fn set_metadata_server(providers: &mut BTreeMap<String, Table>, server: &str) {
    let logins = providers.values_mut().filter_map(|table| table.get_mut("auth")?.as_table_mut());
    for login in logins.filter(|login| login.get("method").and_then(Value::as_str) == Some("gcp")) {
        login.entry("metadata_endpoint").or_insert_with(|| format!("http://{server}/").into());
    }
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
    fn without_settings_there_are_the_embedded_store_and_azures_managed_identity_and_a_check_every_30_seconds() {
        let (config, faults) = load(&[], "");
        assert_eq!(faults, "");
        assert_eq!(config.refresh, Duration::from_secs(30));
        assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["azure", "local"]);
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
    fn aws_exists_from_a_region_alone_or_from_the_file_with_what_the_environment_says() {
        let identity = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/c");
        let (config, _) = load(&[("AWS_REGION", "eu-central-1"), identity], "");
        let aws = &config.providers["aws"];
        assert_eq!((aws["type"].as_str(), aws["region"].as_str()), (Some("aws"), Some("eu-central-1")));
        assert_eq!(aws["container_uri"].as_str(), Some(identity.1));
        let (config, _) = load(&[identity], "[provider.aws]\ntype = 'aws'\nregion = 'us-east-1'");
        let aws = &config.providers["aws"];
        assert_eq!((aws["region"].as_str(), aws["container_uri"].as_str()), (Some("us-east-1"), Some(identity.1)));
        assert!(!load(&[identity], "").0.providers.contains_key("aws"), "an identity alone is no provider");
    }

    #[test]
    fn azure_needs_no_setting_and_takes_those_of_its_sdks_unless_the_file_says_who_the_host_is() {
        let env = [("AZURE_CLIENT_ID", "c"), ("AZURE_TENANT_ID", "t"), ("AZURE_AUTHORITY_HOST", "https://a")];
        let azure = &load(&env, "").0.providers["azure"];
        assert_eq!((azure["auth"]["client_id"].as_str(), azure["auth"]["tenant_id"].as_str()), (Some("c"), Some("t")));
        assert_eq!(azure["authority_host"].as_str(), Some("https://a"));
        let azure = &load(&env, "[provider.azure]\ntype = 'azure'\nauth.method = 'managed'").0.providers["azure"];
        assert_eq!((azure["auth"].get("client_id"), azure["authority_host"].as_str()), (None, Some("https://a")));
    }

    #[test]
    fn googles_metadata_server_holds_for_the_logins_that_ask_it_unless_they_name_another() {
        let login =
            |name: &str, more: &str| format!("[provider.{name}]\ntype = 'vault'\naddress = 'http://b'\n{more}\n");
        let file = login("a", "auth.method = 'gcp'")
            + &login("b", "auth.method = 'gcp'\nauth.metadata_endpoint = 'http://x/'")
            + &login("c", "auth.method = 'azure'");
        let (config, faults) = load(&[("GCE_METADATA_HOST", "127.0.0.1:80")], &file);
        assert_eq!(faults, "");
        let endpoint = |name: &str| config.providers[name]["auth"].get("metadata_endpoint").and_then(Value::as_str);
        assert_eq!(
            (endpoint("a"), endpoint("b"), endpoint("c")),
            (Some("http://127.0.0.1:80/"), Some("http://x/"), None)
        );
    }

    #[test]
    fn metrics_are_served_nowhere_but_where_they_were_asked_for() {
        assert_eq!(load(&[], "").0.metrics, None);
        let (config, faults) = load(&[("DSO_METRICS_ADDR", "127.0.0.1:9323")], "");
        assert_eq!((config.metrics, faults), (Some(([127, 0, 0, 1], 9323).into()), String::new()));
        for wrong in ["9323", ":9323", "localhost:9323", "127.0.0.1", "127.0.0.1:99999"] {
            let (config, faults) = load(&[("DSO_METRICS_ADDR", wrong)], "");
            let told = format!(
                "DSO_METRICS_ADDR: `{wrong}` is no address and port: write it as `127.0.0.1:9323` or `[::1]:9323`"
            );
            assert_eq!((config.metrics, faults), (None, told));
        }
    }

    #[test]
    fn deliveries_are_recorded_where_the_file_says() {
        for (file, to, fault) in [
            ("", None, ""),
            ("[audit]\nto = 'log'", Some(Destination::Log), ""),
            ("audit.to = 'file'", Some(Destination::File), ""),
            ("audit.to = 'disk'", None, "[audit]: `to` must be `log` or `file`"),
            ("audit.too = 'log'", None, "[audit]: unknown key `too`: did you mean `to`?"),
            ("audit = 'log'", None, "/etc/dso/dso.toml: `audit` must be a table: [audit]"),
        ] {
            let (config, faults) = load(&[], file);
            assert_eq!((config.audit, faults.as_str()), (to, fault), "{file}");
        }
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
