//! The settings of a Vault instance, checked as far as can be without a server or a file.

mod login;

use super::auth::Login;
use crate::{faults::Faults, host::HostFiles, provider::limits, settings::Settings};
use reqwest::{Url, header::HeaderValue};
use std::{path::PathBuf, time::Duration};
use toml::Table;

/// Keys that would carry a credential, and what to use in their place.
const CREDENTIALS: [(&str, &str); 12] = [
    ("token", "put the token into a file and name it by `auth.token_file`"),
    ("auth.token", "put the token into a file and name it by `auth.token_file`"),
    ("secret_id", "put the SecretID into a file and name it by `auth.secret_id_file`"),
    ("auth.secret_id", "put the SecretID into a file and name it by `auth.secret_id_file`"),
    ("password", "log in as a machine, with `auth.method`"),
    ("auth.password", "log in as a machine, with `auth.method`"),
    ("client_token", "put the token into a file and name it by `auth.token_file`"),
    ("auth.client_token", "put the token into a file and name it by `auth.token_file`"),
    ("auth.jwt", "put the JWT into a file and name it by `auth.jwt_file`"),
    ("auth.key", "put the private key into a file and name it by `auth.key_file`"),
    ("auth.identity_header", "put the header into a file and name it by `auth.identity_header_file`"),
    ("auth.client_secret", "log in as a machine, with its managed identity"),
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
        let aws = table.get_mut("auth").and_then(|auth| auth.as_table_mut()?.remove("aws"));
        let carried: Vec<_> = CREDENTIALS.iter().filter(|(key, _)| carries(&mut table, key)).collect();
        let mut settings = Settings::new(format!("[provider.{name}]"), table);
        for (key, instead) in carried {
            settings
                .wrong::<()>(key, &format!("would carry a credential, and dso takes none in its settings: {instead}"));
        }
        let address = address(&mut settings);
        let namespace = namespace(&mut settings);
        let ca_file = settings.host_path("ca_file", host);
        let timeout = limits::timeout(&mut settings);
        let login = login::parse(name, &mut settings, aws, host);
        if let (Some(address), Some(Login::Cert(_))) = (&address, &login)
            && address.scheme() == "http"
        {
            settings.wrong::<()>("address", "must start with `https://`: method `cert` shows its certificate in TLS");
        }
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
            "[provider.v]: `auth.method` names an unknown method `userpass`: known are `token-file`, `approle`, `jwt`, `kubernetes`, `cert`, `aws`, `azure`, `gcp`"
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
        let faults = fault(
            "address = 'http://a'\nauth.method = 'approle'\nauth.role_id = 'x'\nauth.secret_id_file = '/etc/dso/s'\nauth.jwt_file = '/etc/dso/j'",
        );
        assert_eq!(faults, "[provider.v]: `auth.jwt_file` belongs to `auth.method = \"jwt\"` or `\"kubernetes\"`");
    }

    #[test]
    fn each_method_says_what_it_lacks() {
        for (method, lacks) in [
            (
                "jwt",
                "`auth.role` is needed: the role to log in to; [provider.v]: `auth.jwt_file` is needed: the file that holds the JWT",
            ),
            ("kubernetes", "`auth.role` is needed: the role to log in to"),
            (
                "cert",
                "`auth.cert_file` is needed: the PEM file of this client's certificate; [provider.v]: `auth.key_file` is needed: the PEM file of its private key",
            ),
            ("aws", "`auth.role` is needed: the role to log in to"),
            ("azure", "`auth.role` is needed: the role to log in to"),
            ("gcp", "`auth.role` is needed: the role to log in to"),
        ] {
            let faults = fault(&format!("address = 'https://a'\nauth.method = '{method}'"));
            assert_eq!(faults, format!("[provider.v]: {lacks}"), "{method}");
        }
    }

    #[test]
    fn the_keys_of_aws_are_those_of_its_provider() {
        let aws = |more: &str| fault(&format!("address = 'https://a'\nauth.method = 'aws'\nauth.role = 'r'\n{more}"));
        assert_eq!(
            aws("auth.aws.regoin = 'eu-central-1'\nauth.aws.secret_access_key = 'hunter2'\nauth.sever_id = 'x'")
                .replace("hunter2", "LEAK"),
            "[provider.v.auth.aws]: `secret_access_key` would carry a credential, and dso takes none in its settings: give the host \
             an identity (an instance role, container credentials, a web identity), or name a profile's file by `credentials_file`; \
             [provider.v.auth.aws]: unknown key `regoin`: did you mean `region`?; \
             [provider.v]: unknown key `auth.sever_id`: did you mean `auth.server_id`?"
        );
        assert_eq!(
            aws("auth.aws.endpoint = 'https://x'"),
            "[provider.v.auth.aws]: `endpoint` is of Secrets Manager: set `sts_endpoint`"
        );
        let faults = fault("address = 'https://a'\nauth.aws.region = 'eu-central-1'");
        assert_eq!(faults, "[provider.v]: `auth.aws` belongs to `auth.method = \"aws\"`");
    }

    #[test]
    fn a_certificate_needs_tls() {
        let pair = "auth.method = 'cert'\nauth.cert_file = '/etc/dso/c'\nauth.key_file = '/etc/dso/k'";
        assert!(parse(&format!("address = 'https://a'\n{pair}")).is_ok());
        let faults = fault(&format!("address = 'http://a'\n{pair}"));
        assert!(faults.contains("method `cert` shows its certificate in TLS"), "{faults}");
    }

    #[test]
    fn an_azure_identity_is_named_once_and_an_endpoint_has_its_header() {
        let azure =
            |more: &str| fault(&format!("address = 'https://a'\nauth.method = 'azure'\nauth.role = 'r'\n{more}"));
        assert_eq!(
            azure("auth.client_id = 'a'\nauth.object_id = 'b'"),
            "[provider.v]: `auth.client_id` and `auth.object_id` both name an identity: keep one"
        );
        assert_eq!(
            azure("auth.identity_endpoint = 'http://localhost/x'"),
            "[provider.v]: `auth.identity_header_file` is needed with `auth.identity_endpoint`: the file that holds the value of IDENTITY_HEADER"
        );
        assert_eq!(
            azure("auth.metadata_endpoint = 'https://x'"),
            "[provider.v]: `auth.metadata_endpoint` must be a plain `http://` URL: a metadata service speaks no TLS"
        );
    }
}
