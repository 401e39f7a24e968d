//! The settings of an AWS instance, checked as far as can be without a server or a file.

use super::target::is_region;
use crate::{faults::Faults, host::HostFiles, provider::limits, settings::Settings};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Table;
use url::Url;

/// Keys that would carry a credential.
const CREDENTIALS: [&str; 6] =
    ["access_key_id", "secret_access_key", "session_token", "access_key", "secret_key", "container_token"];

/// An AWS instance as it was configured.
#[derive(Debug)]
pub struct AwsSettings {
    pub name: String,
    pub region: Option<String>,
    pub endpoint: Option<Url>,
    pub sts_endpoint: Option<Url>,
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
    pub role: Option<Role>,
    pub list: bool,
    identity: Vec<(Variable, String)>,
}

/// A role that the host's identity takes on.
#[derive(Debug)]
pub struct Role {
    pub arn: String,
    pub external_id: Option<String>,
    pub session_name: String,
}

/// A setting of the SDK's chain of credentials: its key here, its environment variable there.
#[derive(Clone, Copy, Debug)]
struct Variable {
    key: &'static str,
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Url,
    /// A file of the host's.
    File,
    /// A file of a developer's, who has more of them in one folder.
    Profile,
}

const fn variable(key: &'static str, name: &'static str, kind: Kind) -> Variable {
    Variable { key, name, kind }
}

const IDENTITY: [Variable; 10] = [
    variable("imds_endpoint", "AWS_EC2_METADATA_SERVICE_ENDPOINT", Kind::Url),
    variable("container_uri", "AWS_CONTAINER_CREDENTIALS_FULL_URI", Kind::Url),
    variable("container_relative_uri", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Kind::Text),
    variable("container_token_file", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Kind::File),
    variable("web_identity_token_file", "AWS_WEB_IDENTITY_TOKEN_FILE", Kind::File),
    variable("web_identity_role_arn", "AWS_ROLE_ARN", Kind::Text),
    variable("web_identity_session_name", "AWS_ROLE_SESSION_NAME", Kind::Text),
    variable("profile", "AWS_PROFILE", Kind::Text),
    variable("config_file", "AWS_CONFIG_FILE", Kind::Profile),
    variable("credentials_file", "AWS_SHARED_CREDENTIALS_FILE", Kind::Profile),
];

// === impl AwsSettings ===

impl AwsSettings {
    /// The role that is taken on, else what of the host's identities is named.
    pub fn who(&self) -> String {
        let named = |key: &str| self.identity.iter().find(|(variable, _)| variable.key == key).map(|(_, value)| value);
        match (&self.role, named("web_identity_role_arn"), named("profile")) {
            (Some(role), ..) => format!("role {}", role.arn),
            (None, Some(arn), _) => format!("role {arn}, by a web identity"),
            (None, None, Some(profile)) => format!("profile {profile}"),
            (None, None, None) => "the host's own credentials".into(),
        }
    }

    pub fn parse(name: &str, mut table: Table, host: &HostFiles) -> Result<Self, Faults> {
        let carried: Vec<_> = CREDENTIALS.iter().filter(|key| table.remove(**key).is_some()).collect();
        let mut settings = Settings::new(format!("[provider.{name}]"), table);
        for key in carried {
            let fault = "would carry a credential, and dso takes none in its settings: give the host an identity (an \
                         instance role, container credentials, a web identity), or name a profile's file by \
                         `credentials_file`";
            settings.wrong::<()>(key, fault);
        }
        let region = region(&mut settings);
        let endpoint = url(&mut settings, "endpoint");
        let sts_endpoint = url(&mut settings, "sts_endpoint");
        let ca_file = settings.host_path("ca_file", host);
        let timeout = limits::timeout(&mut settings);
        let role = role(&mut settings);
        let list = settings.boolean("list").unwrap_or(true);
        let identity = identity(&mut settings, host);
        let name = name.to_owned();
        settings.finish(|| Self { name, region, endpoint, sts_endpoint, ca_file, timeout, role, list, identity })
    }

    /// The environment of the SDK's chain: what was configured, and nothing of the process's own.
    pub fn environment(&self, host: &HostFiles) -> Result<HashMap<String, String>, String> {
        let mut environment = HashMap::new();
        let mut set = |name: &str, value: String| drop(environment.insert(name.to_owned(), value));
        for (Variable { name, kind, .. }, value) in &self.identity {
            match kind {
                Kind::Text | Kind::Url => set(name, value.clone()),
                Kind::File | Kind::Profile => set(name, host.locate(Path::new(value))?.display().to_string()),
            }
        }
        if self.is_of_a_developer() {
            // Where `~/.aws` is.
            set("HOME", host.config_dir().display().to_string());
        }
        if let Some(endpoint) = &self.endpoint {
            set("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint.to_string());
        }
        if let Some(endpoint) = &self.sts_endpoint {
            set("AWS_ENDPOINT_URL_STS", endpoint.to_string());
        }
        Ok(environment)
    }

    /// Files that the SDK reads once, and that may change: they are where they are on the host.
    pub fn profile_files(&self, host: &HostFiles) -> Vec<PathBuf> {
        let named = self.identity.iter().filter(|(variable, _)| variable.kind == Kind::Profile);
        let mut files: Vec<_> = named.filter_map(|(_, file)| host.locate(Path::new(file)).ok()).collect();
        if self.is_of_a_developer() {
            files.extend(["config", "credentials"].map(|name| host.config_dir().join(".aws").join(name)));
        }
        files
    }

    fn is_of_a_developer(&self) -> bool {
        self.identity.iter().any(|(variable, _)| variable.kind == Kind::Profile || variable.key == "profile")
    }
}

fn region(settings: &mut Settings) -> Option<String> {
    let region = settings.string("region")?;
    if is_region(&region) { Some(region) } else { settings.wrong("region", "must be a region such as `eu-central-1`") }
}

fn url(settings: &mut Settings, key: &'static str) -> Option<Url> {
    let text = settings.string(key)?;
    match Url::parse(&text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() => {
            settings.wrong(key, "must start with `https://` or `http://` and name a host")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            settings.wrong(key, "must not carry a user name or a password")
        }
        Ok(url) => Some(url),
        Err(_) => settings.wrong(key, "must be a URL such as `https://vpce-….eu-central-1.vpce.amazonaws.com`"),
    }
}

fn role(settings: &mut Settings) -> Option<Role> {
    let arn = settings.string("role_arn");
    let external_id = settings.string("external_id");
    let session_name = settings.string("session_name");
    match arn {
        None => {
            for (key, given) in [("external_id", external_id.is_some()), ("session_name", session_name.is_some())] {
                if given {
                    settings.wrong::<()>(key, "belongs to `role_arn`, which is not given");
                }
            }
            None
        }
        Some(arn) if arn.starts_with("arn:") && arn.contains(":role/") => {
            Some(Role { arn, external_id, session_name: session_name.unwrap_or_else(|| "dso".into()) })
        }
        Some(_) => settings.wrong("role_arn", "must be a role's ARN: `arn:aws:iam::<account>:role/<name>`"),
    }
}

fn identity(settings: &mut Settings, host: &HostFiles) -> Vec<(Variable, String)> {
    let given = IDENTITY.into_iter().filter_map(|variable| {
        let value = match variable.kind {
            Kind::Text => settings.string(variable.key),
            Kind::Url => url(settings, variable.key).map(|url| url.to_string()),
            Kind::File | Kind::Profile => settings.host_path(variable.key, host).map(|path| path.display().to_string()),
        };
        value.map(|value| (variable, value))
    });
    let given: Vec<_> = given.collect();
    for (key, other) in [
        ("web_identity_token_file", "web_identity_role_arn"),
        ("web_identity_role_arn", "web_identity_token_file"),
        ("web_identity_session_name", "web_identity_token_file"),
    ] {
        let has = |key: &str| given.iter().any(|(variable, _)| variable.key == key);
        if has(key) && !has(other) {
            settings.wrong::<()>(key, &format!("needs `{other}` beside it"));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AwsSettings, String> {
        let host = HostFiles::on_host("/nowhere");
        AwsSettings::parse("aws", text.parse().unwrap(), &host).map_err(|faults| faults.to_string())
    }

    #[test]
    fn nothing_is_needed() {
        let settings = parse("").unwrap();
        assert_eq!((settings.timeout, settings.region), (Duration::from_secs(10), None));
    }

    #[test]
    fn the_sdk_sees_what_was_configured_with_files_where_they_are_and_nothing_else() {
        let settings = parse(
            "container_uri = 'http://127.0.0.1:1/c'\ncontainer_token_file = '/etc/dso/t'\nendpoint = 'http://127.0.0.1:2'",
        )
        .unwrap();
        let mut environment: Vec<_> =
            settings.environment(&HostFiles::on_host("/nowhere")).unwrap().into_iter().collect();
        environment.sort();
        let expected = [
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere/t"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/c"),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:2/"),
        ];
        assert_eq!(environment, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = parse(
            "regoin = 'x'\nendpoint = 'ftp://a'\nca_file = '/root/ca'\nexternal_id = 'x'\nweb_identity_role_arn = 'arn:x'\n\
             imds_endpoint = 'http://u:hunter2@a'",
        )
        .unwrap_err();
        assert_eq!(
            faults,
            "[provider.aws]: `endpoint` must start with `https://` or `http://` and name a host; \
             [provider.aws]: `ca_file` cannot be used: `/root/ca` is not under /etc/dso, which is all that dso sees of the host; \
             [provider.aws]: `external_id` belongs to `role_arn`, which is not given; \
             [provider.aws]: `imds_endpoint` must not carry a user name or a password; \
             [provider.aws]: `web_identity_role_arn` needs `web_identity_token_file` beside it; \
             [provider.aws]: unknown key `regoin`: did you mean `region`?"
        );
    }

    #[test]
    fn a_static_key_is_refused_without_its_value() {
        let faults = parse("secret_access_key = 'hunter2'\naccess_key_id = 'hunter2'").unwrap_err();
        assert!(!faults.contains("hunter2"), "{faults}");
        assert!(faults.contains("`access_key_id` would carry a credential") && faults.contains("`secret_access_key`"));
    }
}
