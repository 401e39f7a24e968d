//! Which providers there are: types by name, and instances by scheme.

use super::{Provider, aws::Aws, azure::Azure, local::Local, vault::Vault};
use crate::{
    faults::{self, Faults},
    host::HostFiles,
    secret::SecretId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

/// Makes an instance from its name, its table in the configuration and the host's files.
///
/// Strict: an unknown key is a fault that names the nearest known one. Reads no file that may come
/// later (a token, a store): those are read when they are needed.
pub type Build = fn(&str, toml::Table, &HostFiles) -> Result<Arc<dyn Provider>, Faults>;

/// Adding a provider is one line here, beside its own file.
const TYPES: [(&str, Build); 4] =
    [("aws", Aws::build), ("azure", Azure::build), ("local", Local::build), ("vault", Vault::build)];

/// The configured instances, by scheme.
#[derive(Default)]
pub struct Registry {
    instances: BTreeMap<String, Arc<dyn Provider>>,
    /// What each instance was made of.
    tables: BTreeMap<String, toml::Table>,
    broken: BTreeMap<String, Faults>,
    unknown: Option<String>,
    /// Why newer settings than these are not in use.
    refused: Mutex<Option<String>>,
}

// === impl Registry ===

impl Registry {
    /// Builds every instance; `instances` maps a scheme to its table, whose `type` names the provider. One with
    /// faults is left out, and references to it are refused with them.
    pub fn build(instances: BTreeMap<String, toml::Table>, host: &HostFiles) -> Self {
        Self::default().rebuild(instances, host)
    }

    /// The registry of other settings. An instance whose table is still the same is the same one, with its token and what
    /// it has learned.
    pub fn rebuild(&self, instances: BTreeMap<String, toml::Table>, host: &HostFiles) -> Self {
        let mut registry = Self::default();
        for (name, table) in instances {
            let same = self.get(&name).filter(|_| self.tables.get(&name) == Some(&table)).cloned();
            match same.map_or_else(|| build_one(&name, table.clone(), host), Ok) {
                Ok(provider) => {
                    registry.instances.insert(name.clone(), provider);
                    registry.tables.insert(name, table);
                }
                Err(faults) => drop(registry.broken.insert(name, faults)),
            }
        }
        registry
    }

    /// The instances that are not those of `before`: new ones, others of the same name, and those that are gone.
    pub fn changed_since(&self, before: &Self) -> BTreeSet<String> {
        let names = self.instances.keys().chain(before.instances.keys()).cloned();
        names
            .filter(|name| match (self.get(name), before.get(name)) {
                (Some(now), Some(then)) => !Arc::ptr_eq(now, then),
                _ => true,
            })
            .collect()
    }

    /// Whether every instance of `before` is among these as it was.
    pub fn keeps_all_of(&self, before: &Self) -> bool {
        self.changed_since(before).iter().all(|name| before.get(name).is_none())
    }

    /// Notes why newer settings are not in use, or that there are none.
    pub fn refuse(&self, newer: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = newer;
    }

    /// Why newer settings are not in use.
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Instances that were made otherwise, as tests do.
    pub fn of(instances: impl IntoIterator<Item = (String, Arc<dyn Provider>)>) -> Self {
        Self { instances: instances.into_iter().collect(), ..Self::default() }
    }

    /// Nobody knows which providers are meant, because of `fault`: every reference is refused with it. A provider made
    /// of the defaults could answer with a secret of the same name from another place.
    pub fn unknown(fault: String) -> Self {
        Self { unknown: Some(fault), ..Self::default() }
    }

    /// Why nobody knows which providers are meant, if so.
    pub fn fault(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// Instances that were left out, and why.
    pub fn broken(&self) -> impl Iterator<Item = (&str, &Faults)> {
        self.broken.iter().map(|(name, faults)| (name.as_str(), faults))
    }

    pub fn get(&self, scheme: &str) -> Option<&Arc<dyn Provider>> {
        self.instances.get(scheme)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &Arc<dyn Provider>)> {
        self.instances.iter()
    }

    /// Whether the instance is there because its type needs no settings, and nobody has given it any.
    pub fn is_unasked(&self, scheme: &str) -> bool {
        self.tables.get(scheme).is_some_and(|table| table.keys().all(|key| key == "type"))
    }

    /// Faults of a reference that show without asking a server.
    pub fn validate(&self, id: &SecretId) -> Result<(), String> {
        let refused = |fault| match self.refused() {
            // Whoever asks for what is not there may have written it into the file a moment ago.
            Some(newer) if self.get(id.provider()).is_none() => {
                format!("{fault}; the newer /etc/dso/dso.toml is not in use: {newer}")
            }
            _ => fault,
        };
        self.find_fault(id).map_err(refused)
    }

    fn find_fault(&self, id: &SecretId) -> Result<(), String> {
        let name = id.provider();
        if let Some(fault) = &self.unknown {
            return Err(format!("{fault}: mend the file"));
        }
        match (self.get(name), self.broken.get(name)) {
            (Some(provider), _) => provider.validate(id),
            (None, Some(faults)) => Err(format!("provider `{name}` is left out: {faults}; mend /etc/dso/dso.toml")),
            (None, None) if TYPES.iter().any(|(known, _)| *known == name) => Err(format!(
                "provider `{name}` is not set up: write [provider.{name}] in /etc/dso/dso.toml{}",
                match name {
                    "aws" => ", or disable the plugin and set AWS_REGION with `docker plugin set`",
                    "vault" => ", or disable the plugin and set VAULT_ADDR with `docker plugin set`",
                    _ => "",
                }
            )),
            (None, None) => {
                let known = self.instances.keys().chain(self.broken.keys()).map(String::as_str);
                Err(faults::unknown("provider", name, known))
            }
        }
    }
}

fn build_one(name: &str, mut table: toml::Table, host: &HostFiles) -> Result<Arc<dyn Provider>, Faults> {
    let kind = match table.remove("type") {
        Some(toml::Value::String(kind)) => kind,
        _ => {
            return Err(format!(
                "[provider.{name}]: `type` must be one of {}",
                type_names().collect::<Vec<_>>().join(", ")
            )
            .into());
        }
    };
    match TYPES.iter().find(|(known, _)| *known == kind) {
        Some((_, build)) => build(name, table, host),
        None => Err(format!("[provider.{name}]: {}", faults::unknown("type", &kind, type_names())).into()),
    }
}

fn type_names() -> impl Iterator<Item = &'static str> + Clone {
    TYPES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_nobody_can_read_refuses_every_reference_with_its_fault() {
        let registry = Registry::unknown("/etc/dso/dso.toml: invalid (line 3)".into());
        let fault = registry.validate(&"local://app".parse().unwrap()).unwrap_err();
        assert_eq!(fault, "/etc/dso/dso.toml: invalid (line 3): mend the file");
        assert!(registry.get("local").is_none());
    }

    #[test]
    fn a_table_with_a_fault_is_told_to_those_who_need_it_alone() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let instances = [("eu".to_owned(), table("type = 'vualt'")), ("local".to_owned(), table("type = 'local'"))];
        let registry = Registry::build(instances.into(), &HostFiles::on_host("/nowhere"));
        assert_eq!(registry.validate(&"local://app".parse().unwrap()), Ok(()));
        assert_eq!(
            registry.validate(&"eu://app".parse().unwrap()).unwrap_err(),
            "provider `eu` is left out: [provider.eu]: unknown type `vualt`: did you mean `vault`?; \
             mend /etc/dso/dso.toml"
        );
        assert_eq!(
            registry.validate(&"ue://app".parse().unwrap()).unwrap_err(),
            "unknown provider `ue`: did you mean `eu`?"
        );
    }

    #[test]
    fn other_settings_replace_what_they_change_and_nothing_else() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let (host, vault) =
            (HostFiles::on_host("/nowhere"), |at: &str| table(&format!("type = 'vault'\naddress = '{at}'")));
        let settings = |eu: &str, us: &str| [("eu".to_owned(), vault(eu)), ("us".to_owned(), vault(us))];
        let before = Registry::build(settings("http://a", "http://b").into(), &host);
        let same = before.rebuild(settings("http://a", "http://b").into(), &host);
        assert!(same.changed_since(&before).is_empty() && same.keeps_all_of(&before));
        let moved = before.rebuild(settings("http://a", "http://c").into(), &host);
        assert_eq!(moved.changed_since(&before), BTreeSet::from(["us".to_owned()]));
        assert!(!moved.keeps_all_of(&before));
        let fewer = before.rebuild([("eu".to_owned(), vault("http://a"))].into(), &host);
        assert_eq!(fewer.changed_since(&before), BTreeSet::from(["us".to_owned()]));
        assert!(!fewer.keeps_all_of(&before) && before.keeps_all_of(&fewer));
    }

    #[test]
    fn newer_settings_that_are_not_in_use_are_told_to_whom_they_would_serve() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let registry =
            Registry::build([("local".to_owned(), table("type = 'local'"))].into(), &HostFiles::on_host("/nowhere"));
        registry.refuse(Some("unknown key `x`".into()));
        assert_eq!(registry.validate(&"local://app".parse().unwrap()), Ok(()));
        let fault = registry.validate(&"eu://app".parse().unwrap()).unwrap_err();
        assert!(fault.ends_with("; the newer /etc/dso/dso.toml is not in use: unknown key `x`"), "{fault}");
    }

    #[test]
    fn an_instance_without_settings_of_anybodys_is_told_apart() {
        let instance = |name: &str, table: &str| (name.to_owned(), table.parse().unwrap());
        let instances = [instance("azure", "type = 'azure'"), instance("cn", "type = 'azure'\ncloud = 'china'")];
        let registry = Registry::build(instances.into(), &HostFiles::on_host("/nowhere"));
        assert_eq!(["azure", "cn", "nobody"].map(|name| registry.is_unasked(name)), [true, false, false]);
    }

    #[test]
    fn a_record_can_say_whom_an_instance_reads_as() {
        let arn = "arn:aws:iam::123456789012:role/dso";
        for (table, who) in [
            ("type = 'local'".to_owned(), "the identity file /etc/dso/identity".to_owned()),
            ("type = 'vault'\naddress = 'http://a'".into(), "a login by token-file".into()),
            ("type = 'aws'\nregion = 'eu-central-1'".into(), "the host's own credentials".into()),
            (format!("type = 'aws'\nregion = 'eu-central-1'\nrole_arn = '{arn}'"), format!("role {arn}")),
            ("type = 'aws'\nregion = 'eu-central-1'\nprofile = 'dev'".into(), "profile dev".into()),
            ("type = 'azure'".into(), "the managed identity of this machine".into()),
        ] {
            let instances = [("p".to_owned(), table.parse().unwrap())].into();
            let registry = Registry::build(instances, &HostFiles::on_host("/nowhere"));
            assert!(registry.broken().next().is_none(), "{table}");
            assert_eq!(registry.get("p").unwrap().identity(), who);
        }
    }
}
