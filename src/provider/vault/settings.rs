//! The settings of a Vault instance, checked as far as can be without a server or a file.

use super::auth::{AppRole, Login, RoleId, TokenFile};
use crate::{
    faults::{self, Faults},
    host::HostFiles,
    settings::Settings,
};
use reqwest::{Url, header::HeaderValue};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Table;

const TOKEN_FILE: &str = "/etc/dso/vault-token";
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

const METHODS: [&str; 2] = ["token-file", "approle"];

/// Keys that would carry a credential, and what to use in their place.
const CREDENTIALS: [(&str, &str); 8] = [
    ("token", "put the token into a file and name it by `auth.token_file`"),
    ("auth.token", "put the token into a file and name it by `auth.token_file`"),
    ("secret_id", "put the SecretID into a file and name it by `auth.secret_id_file`"),
    ("auth.secret_id", "put the SecretID into a file and name it by `auth.secret_id_file`"),
    ("password", "log in as a machine, with `auth.method`"),
    ("auth.password", "log in as a machine, with `auth.method`"),
    ("client_token", "put the token into a file and name it by `auth.token_file`"),
    ("auth.client_token", "put the token into a file and name it by `auth.token_file`"),
];

/// A Vault instance as it was configured.
pub struct VaultSettings {
    pub name: String,
    pub address: Url,
    pub namespace: Option<HeaderValue>,
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
    pub login: Login,
}

// === impl VaultSettings ===

impl VaultSettings {
    pub fn parse(name: &str, mut table: Table, host: &HostFiles) -> Result<Self, Faults> {
        let carried: Vec<_> = CREDENTIALS.iter().filter(|(key, _)| carries(&mut table, key)).collect();
        let mut settings = Settings::new(format!("[provider.{name}]"), table);
        for (key, instead) in carried {
            settings
                .wrong::<()>(key, &format!("would carry a credential, and dso takes none in its settings: {instead}"));
        }
        let address = address(&mut settings);
        let namespace = namespace(&mut settings);
        let ca_file = visible_path(&mut settings, "ca_file", host);
        let timeout = timeout(&mut settings);
        let login = login(&mut settings, host);
        let Some((address, login)) = settings.finish(|| address.zip(login))? else {
            return Err(format!("[provider.{name}]: the settings are not complete").into());
        };
        Ok(Self { name: name.into(), address, namespace, ca_file, timeout, login })
    }
}

fn carries(table: &mut Table, key: &str) -> bool {
    match key.split_once('.') {
        None => table.remove(key).is_some(),
        Some((outer, inner)) => {
            let nested = table.get_mut(outer).and_then(|value| value.as_table_mut());
            nested.is_some_and(|nested| carries(nested, inner))
        }
    }
}

fn address(settings: &mut Settings) -> Option<Url> {
    let Some(text) = settings.string("address") else {
        return settings.wrong("address", "is needed: the server's URL, such as `https://vault.example:8200`");
    };
    let Ok(url) = Url::parse(&text) else {
        return settings.wrong("address", "must be a URL such as `https://vault.example:8200`");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return settings.wrong("address", "must start with `https://` or `http://` and name a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return settings.wrong("address", "must not carry a user name or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return settings.wrong("address", "must not have a `?` or a `#` part");
    }
    Some(url)
}

fn namespace(settings: &mut Settings) -> Option<HeaderValue> {
    let text = settings.string("namespace")?;
    match HeaderValue::from_str(text.trim_matches('/')) {
        Ok(value) if !value.is_empty() => Some(value),
        _ => settings.wrong("namespace", "must be a namespace's path such as `team/app`"),
    }
}

fn timeout(settings: &mut Settings) -> Duration {
    match settings.duration("timeout") {
        None => TIMEOUT,
        Some(time) if TIMEOUTS.contains(&time) => time,
        Some(_) => settings.wrong("timeout", "must be between `100ms` and `1m`").unwrap_or(TIMEOUT),
    }
}

fn login(settings: &mut Settings, host: &HostFiles) -> Option<Login> {
    let method = settings.string("auth.method");
    let token_file = visible_path(settings, "auth.token_file", host);
    let mount = settings.string("auth.mount");
    let role_id = settings.string("auth.role_id");
    let role_id_file = visible_path(settings, "auth.role_id_file", host);
    let secret_id_file = visible_path(settings, "auth.secret_id_file", host);
    let wrapped = settings.boolean("auth.secret_id_wrapped");
    let of_approle = [
        ("auth.mount", mount.is_some()),
        ("auth.role_id", role_id.is_some()),
        ("auth.role_id_file", role_id_file.is_some()),
        ("auth.secret_id_file", secret_id_file.is_some()),
        ("auth.secret_id_wrapped", wrapped.is_some()),
    ];
    match method.as_deref().unwrap_or(METHODS[0]) {
        "token-file" => {
            for (key, _) in of_approle.iter().filter(|(_, given)| *given) {
                settings.wrong::<()>(key, "belongs to `auth.method = \"approle\"`");
            }
            Some(Login::TokenFile(TokenFile::new(token_file.unwrap_or_else(|| TOKEN_FILE.into()))))
        }
        "approle" => {
            if token_file.is_some() {
                settings.wrong::<()>("auth.token_file", "belongs to `auth.method = \"token-file\"`");
            }
            let role = role_id_of(settings, role_id, role_id_file);
            let Some(file) = secret_id_file else {
                return settings.wrong("auth.secret_id_file", "is needed: the file that holds the SecretID");
            };
            let mount = mount.unwrap_or_else(|| "approle".into());
            let mount = mount.trim_matches('/').trim_start_matches("auth/").to_owned();
            Some(Login::AppRole(AppRole::new(mount, role?, file, wrapped.unwrap_or(false))))
        }
        other => {
            let fault = faults::unknown("method", other, METHODS);
            settings.wrong("auth.method", &format!("names an {fault}"))
        }
    }
}

fn role_id_of(settings: &mut Settings, text: Option<String>, file: Option<PathBuf>) -> Option<RoleId> {
    match (text, file) {
        (Some(text), None) => Some(RoleId::Text(text)),
        (None, Some(file)) => Some(RoleId::File(file)),
        (None, None) => settings.wrong("auth.role_id", "is needed (or `auth.role_id_file`): the role's id"),
        (Some(_), Some(_)) => settings.wrong("auth.role_id", "and `auth.role_id_file` are both given: keep one"),
    }
}

/// A path that dso can see; where it leads is found anew at each use.
fn visible_path(settings: &mut Settings, key: &'static str, host: &HostFiles) -> Option<PathBuf> {
    let path = settings.path(key)?;
    match host.locate(Path::new(&path)) {
        Ok(_) => Some(path),
        Err(fault) => settings.wrong(key, &format!("cannot be used: {fault}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<VaultSettings, String> {
        let host = HostFiles::on_host("/nowhere");
        VaultSettings::parse("v", text.parse().unwrap(), &host).map_err(|faults| faults.to_string())
    }

    fn fault(text: &str) -> String {
        parse(text).err().unwrap()
    }

    #[test]
    fn an_address_is_enough() {
        let settings = parse("address = 'https://vault.example:8200'").unwrap();
        assert_eq!(settings.timeout, Duration::from_secs(10));
        assert!(matches!(settings.login, Login::TokenFile(_)));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = fault(
            "adress = 'x'\ntimeout = '0s'\nca_file = '/root/ca.pem'\nauth.method = 'approle'\nauth.token_file = '/etc/dso/t'",
        );
        assert_eq!(
            faults,
            "[provider.v]: `address` is needed: the server's URL, such as `https://vault.example:8200`; \
             [provider.v]: `ca_file` cannot be used: `/root/ca.pem` is not under /etc/dso, which is all that dso sees of the host; \
             [provider.v]: `timeout` must be between `100ms` and `1m`; \
             [provider.v]: `auth.token_file` belongs to `auth.method = \"token-file\"`; \
             [provider.v]: `auth.role_id` is needed (or `auth.role_id_file`): the role's id; \
             [provider.v]: `auth.secret_id_file` is needed: the file that holds the SecretID; \
             [provider.v]: unknown key `adress`: did you mean `address`?"
        );
    }

    #[test]
    fn a_key_that_would_carry_a_credential_is_refused_without_its_value() {
        let faults = fault("address = 'http://a'\nauth.token = 'hunter2'\nauth.secret_id = 'hunter2'\npassword = 3");
        assert!(!faults.contains("hunter2"), "{faults}");
        assert_eq!(
            faults,
            "[provider.v]: `auth.token` would carry a credential, and dso takes none in its settings: put the token into a file and name it by `auth.token_file`; \
             [provider.v]: `auth.secret_id` would carry a credential, and dso takes none in its settings: put the SecretID into a file and name it by `auth.secret_id_file`; \
             [provider.v]: `password` would carry a credential, and dso takes none in its settings: log in as a machine, with `auth.method`"
        );
    }

    #[test]
    fn an_unknown_method_names_those_that_exist() {
        let faults = fault("address = 'http://a'\nauth.method = 'userpass'");
        assert_eq!(
            faults,
            "[provider.v]: `auth.method` names an unknown method `userpass`: known are `token-file`, `approle`"
        );
    }

    #[test]
    fn an_address_must_be_a_plain_web_address() {
        for (address, part) in [
            ("vault:8200", "must start with"),
            ("vault", "must be a URL"),
            ("unix:///run/v.sock", "must start with"),
            ("https://user:hunter2@vault", "must not carry a user name or a password"),
            ("https://vault/?x=1", "must not have a `?` or a `#` part"),
        ] {
            let faults = fault(&format!("address = '{address}'"));
            assert!(faults.contains(part) && !faults.contains("hunter2"), "{address}: {faults}");
        }
    }

    #[test]
    fn keys_of_another_method_are_faults() {
        let faults = fault("address = 'http://a'\nauth.role_id = 'x'");
        assert_eq!(faults, "[provider.v]: `auth.role_id` belongs to `auth.method = \"approle\"`");
    }
}
