//! What a reference asks for, in the terms of Key Vault.

use crate::{faults, secret::SecretId};

const PARAMETERS: [&str; 1] = ["version"];

/// Where the clouds have their vaults: the names' ends.
pub const CLOUDS: [(&str, &str); 3] =
    [("public", "vault.azure.net"), ("china", "vault.azure.cn"), ("usgov", "vault.usgovcloudapi.net")];

/// Of no secret: what Key Vault answers to it tells whether a secret may be read, without its value.
pub const NO_VERSION: &str = "00000000000000000000000000000000";

/// One secret: its vault, its name, and the version that is wanted if it is a certain one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The vault's host, with a port where the instance's own suffix has one.
    pub host: String,
    pub name: String,
    pub version: Option<String>,
}

// === impl Target ===

impl Target {
    /// `suffix` is what follows the name of a vault in this instance's cloud.
    pub fn of(id: &SecretId, suffix: &str) -> Result<Self, String> {
        if let Some(name) = id.params().keys().find(|name| !PARAMETERS.contains(&name.as_str())) {
            return Err(faults::unknown("parameter", name, PARAMETERS));
        }
        let (vault, name) = match id.path().split('/').collect::<Vec<_>>()[..] {
            [vault, name] => (vault, name),
            [vault, "secrets", name] | [vault, "secrets", name, _] => {
                let example = format!("{}://{vault}/{name}", id.provider());
                return Err(format!("it names the secret as the portal's address does: write {example}"));
            }
            _ => return Err("it must name a vault and a secret: azure://<vault>/<secret>".into()),
        };
        if name.is_empty() || name.len() > 127 || !name.bytes().all(is_of_name) {
            return Err("the secret's name must have letters, digits and `-` only, and at most 127 of them".into());
        }
        let version = id.param("version").map(str::to_ascii_lowercase);
        if version.as_ref().is_some_and(|text| text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err("`version` must be a version's id: 32 hexadecimal digits".into());
        }
        Ok(Self { host: host(vault, suffix)?, name: name.into(), version })
    }
}

/// The name and the version in a secret's id.
pub fn parts(id: &str) -> Option<(&str, Option<&str>)> {
    let (_, path) = id.strip_prefix("https://")?.split_once("/secrets/")?;
    let (name, version) = path.split_once('/').map_or((path, ""), |(name, version)| (name, version));
    let plain = |text: &str| text.bytes().all(is_of_name);
    let version = Some(version).filter(|version| !version.is_empty());
    (!name.is_empty() && plain(name) && version.is_none_or(plain)).then_some((name, version))
}

/// A vault's host. Another host than a cloud's or the instance's own is nobody's vault: nothing is sent there.
fn host(vault: &str, suffix: &str) -> Result<String, String> {
    let vault = vault.to_ascii_lowercase();
    let (name, end) = vault.split_once('.').unwrap_or((&vault, suffix));
    let legal = (3..=24).contains(&name.len())
        && name.bytes().all(is_of_name)
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && !name.ends_with('-');
    if !legal {
        return Err("the vault's name must have 3 to 24 letters, digits and `-`, and start with a letter".into());
    }
    if end != suffix && !CLOUDS.iter().any(|(_, known)| *known == end) {
        let known: Vec<_> = CLOUDS.iter().map(|(_, known)| *known).collect();
        return Err(format!(
            "`{vault}` is no vault of a known cloud ({}): correct it, or set the cloud's `dns_suffix`",
            known.join(", ")
        ));
    }
    Ok(format!("{name}.{end}"))
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(reference: &str) -> Result<Target, String> {
        Target::of(&reference.parse().unwrap(), "vault.azure.net")
    }

    #[test]
    fn a_vault_is_named_by_its_name_or_its_host_and_a_version_is_pinned() {
        let plain = target("azure://Corp-Vault/tls-key").unwrap();
        let expected = Target { host: "corp-vault.vault.azure.net".into(), name: "tls-key".into(), version: None };
        assert_eq!(plain, expected);
        assert_eq!(target("azure://corp-vault.vault.azure.net/tls-key").unwrap(), expected);
        assert_eq!(target("azure://eu1.vault.azure.cn/x").unwrap().host, "eu1.vault.azure.cn");
        let version = "0".repeat(31) + "A";
        let pinned = target(&format!("azure://corp-vault/x?version={version}")).unwrap();
        assert_eq!(pinned.version, Some(version.to_lowercase()));
        let own = Target::of(&"azure://v1a.vault.test:8443/x".parse().unwrap(), "vault.test:8443").unwrap();
        assert_eq!(own.host, "v1a.vault.test:8443");
    }

    #[test]
    fn what_cannot_be_is_refused_without_a_server() {
        let fault = |reference: &str| target(reference).unwrap_err();
        assert_eq!(fault("azure://v-1/a?versoin=x"), "unknown parameter `versoin`: did you mean `version`?");
        assert_eq!(fault("azure://v-1/a?version=3"), "`version` must be a version's id: 32 hexadecimal digits");
        assert_eq!(fault("azure://vault"), "it must name a vault and a secret: azure://<vault>/<secret>");
        assert_eq!(
            fault("azure://corp/secrets/a/0123"),
            "it names the secret as the portal's address does: write azure://corp/a"
        );
        for odd in ["a.b", "a b", "a%2fb", "größe", "a;b"] {
            assert!(fault(&format!("azure://corp/{odd}")).starts_with("the secret's name must have"), "{odd}");
        }
        for odd in ["1corp", "co", "corp-", "co_rp", &"x".repeat(25)] {
            assert!(fault(&format!("azure://{odd}/a")).starts_with("the vault's name must have"), "{odd}");
        }
        for other in [
            "corp.example.com",
            "corp.vault.azure.net.example.com",
            "corp.vault.azure.net:444",
            "a-1.b.vault.azure.net",
        ] {
            assert!(fault(&format!("azure://{other}/a")).contains("is no vault of a known cloud"), "{other}");
        }
    }

    #[test]
    fn an_id_tells_the_name_and_the_version() {
        assert_eq!(parts("https://v.vault.azure.net/secrets/a/0f"), Some(("a", Some("0f"))));
        assert_eq!(parts("https://v.vault.azure.net/secrets/a"), Some(("a", None)));
        assert_eq!(parts("https://v.vault.azure.net/keys/a/0f"), None);
        assert_eq!(parts("https://v.vault.azure.net/secrets/a/b/c"), None);
    }
}
