//! The settings of an Azure instance, checked as far as can be without a server or a file.

mod login;

use super::{identity::Login, target::CLOUDS};
use crate::{faults, faults::Faults, host::HostFiles, provider::limits, settings::Settings};
use azure_core::http::Url;
use std::{net::IpAddr, path::PathBuf, time::Duration};
use toml::Table;

/// Where the clouds give out tokens, in the order of [`CLOUDS`].
const AUTHORITIES: [&str; 3] =
    ["https://login.microsoftonline.com/", "https://login.chinacloudapi.cn/", "https://login.microsoftonline.us/"];

/// Keys that would carry a credential.
const CREDENTIALS: [&str; 7] = [
    "client_secret",
    "password",
    "certificate_password",
    "client_certificate_password",
    "access_token",
    "token",
    "username",
];

/// An Azure instance as it was configured.
pub struct AzureSettings {
    pub name: String,
    /// What follows a vault's name.
    pub suffix: String,
    pub authority: Url,
    /// Where every vault is reached, whatever DNS says.
    pub private_endpoint: Option<IpAddr>,
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
    pub list: bool,
    pub login: Login,
}

// === impl AzureSettings ===

impl AzureSettings {
    pub fn parse(name: &str, mut table: Table, host: &HostFiles) -> Result<Self, Faults> {
        let carried = take_credentials(&mut table);
        let mut settings = Settings::new(format!("[provider.{name}]"), table);
        for key in carried {
            let fault = "would carry a credential, and dso takes none in its settings: give the host a managed identity, or \
                         an application a federated token (`auth.token_file`) or a certificate (`auth.certificate_file`)";
            settings.wrong::<()>(&key, fault);
        }
        let cloud = cloud(&mut settings);
        let suffix = suffix(&mut settings).unwrap_or_else(|| CLOUDS[cloud].1.into());
        let authority = authority(&mut settings, AUTHORITIES[cloud]);
        let private_endpoint = private_endpoint(&mut settings);
        let ca_file = settings.host_path("ca_file", host);
        let timeout = limits::timeout(&mut settings);
        let list = settings.boolean("list").unwrap_or(true);
        let login = login::parse(&mut settings, host);
        let name = name.to_owned();
        let made = match (authority, login) {
            (Some(authority), Some(login)) => {
                Some(Self { name, suffix, authority, private_endpoint, ca_file, timeout, list, login })
            }
            _ => None,
        };
        match settings.finish(|| made)? {
            Some(made) => Ok(made),
            None => Err("the settings are not complete".to_owned().into()),
        }
    }
}

/// Takes them away, so that no message names one as what was meant.
fn take_credentials(table: &mut Table) -> Vec<String> {
    let mut carried = Vec::new();
    let mut take = |prefix: &str, table: &mut Table| {
        let found = CREDENTIALS.iter().filter(|key| table.remove(**key).is_some());
        carried.extend(found.map(|key| format!("{prefix}{key}")));
    };
    take("", table);
    if let Some(auth) = table.get_mut("auth").and_then(toml::Value::as_table_mut) {
        take("auth.", auth);
    }
    carried
}

/// Its place in [`CLOUDS`].
fn cloud(settings: &mut Settings) -> usize {
    let Some(named) = settings.string("cloud") else { return 0 };
    let names = CLOUDS.map(|(name, _)| name);
    let found = names.iter().position(|name| *name == named);
    found.unwrap_or_else(|| {
        settings.wrong("cloud", &format!("names an {}", faults::unknown("cloud", &named, names))).unwrap_or(0)
    })
}

/// Of a cloud that dso does not know.
fn suffix(settings: &mut Settings) -> Option<String> {
    let named = settings.string("dns_suffix")?.to_ascii_lowercase();
    let url = Url::parse(&format!("https://vault.{named}/"));
    let whole = url.is_ok_and(|url| {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        url.host_str().is_some_and(|host| format!("{host}{port}") == format!("vault.{named}")) && url.path() == "/"
    });
    match whole && named.contains('.') {
        true => Some(named),
        false => settings.wrong("dns_suffix", "must be the end of the vaults' host names, such as `vault.azure.net`"),
    }
}

fn authority(settings: &mut Settings, default: &str) -> Option<Url> {
    let text = settings.string("authority_host").unwrap_or_else(|| default.into());
    let plain = |url: &Url| {
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        url.scheme() == "https"
            && url.host_str().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && bare
    };
    match Url::parse(&text).ok().filter(plain) {
        Some(url) => Some(url),
        None => settings
            .wrong("authority_host", "must be `https://` and a host, such as `https://login.microsoftonline.com`"),
    }
}

fn private_endpoint(settings: &mut Settings) -> Option<IpAddr> {
    let text = settings.string("private_endpoint")?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => settings.wrong("private_endpoint", "must be the IP address of the private endpoint"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AzureSettings, String> {
        let host = HostFiles::on_host("/nowhere");
        AzureSettings::parse("azure", text.parse().unwrap(), &host).map_err(|faults| faults.to_string())
    }

    fn fault(text: &str) -> String {
        parse(text).err().unwrap()
    }

    #[test]
    fn nothing_is_needed_and_a_cloud_says_where_its_vaults_and_tokens_are() {
        let settings = parse("").unwrap();
        assert_eq!((settings.suffix.as_str(), settings.timeout), ("vault.azure.net", Duration::from_secs(10)));
        assert_eq!(settings.authority.as_str(), "https://login.microsoftonline.com/");
        let china = parse("cloud = 'china'").unwrap();
        assert_eq!(
            (china.suffix.as_str(), china.authority.host_str()),
            ("vault.azure.cn", Some("login.chinacloudapi.cn"))
        );
        let own = parse("dns_suffix = 'Vault.local:8443'\nauthority_host = 'https://login.local'").unwrap();
        assert_eq!((own.suffix.as_str(), own.authority.as_str()), ("vault.local:8443", "https://login.local/"));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = fault(
            "clod = 'x'\ncloud = 'chnia'\ndns_suffix = 'a/b'\nauthority_host = 'http://a'\nprivate_endpoint = 'b'\n\
             ca_file = '/root/ca'\ntimeout = '1h'\nauth.method = 'mangaed'",
        );
        assert_eq!(
            faults,
            "[provider.azure]: `cloud` names an unknown cloud `chnia`: did you mean `china`?; \
             [provider.azure]: `dns_suffix` must be the end of the vaults' host names, such as `vault.azure.net`; \
             [provider.azure]: `authority_host` must be `https://` and a host, such as `https://login.microsoftonline.com`; \
             [provider.azure]: `private_endpoint` must be the IP address of the private endpoint; \
             [provider.azure]: `ca_file` cannot be used: `/root/ca` is not under /etc/dso, which is all that dso sees of the host; \
             [provider.azure]: `timeout` must be between `100ms` and `1m`; \
             [provider.azure]: `auth.method` names an unknown method `mangaed`: did you mean `managed`?; \
             [provider.azure]: unknown key `clod`: did you mean `cloud`?"
        );
    }

    #[test]
    fn a_client_secret_is_refused_without_its_value_and_with_what_to_use() {
        let faults = fault("auth.client_secret = 'hunter2'\npassword = 'hunter2'");
        assert!(!faults.contains("hunter2"), "{faults}");
        assert!(
            faults.contains("`auth.client_secret` would carry a credential") && faults.contains("`password` would")
        );
        assert!(faults.contains("give the host a managed identity"));
    }
}
