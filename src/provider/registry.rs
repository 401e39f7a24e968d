//! Which providers there are: types by name, and instances by scheme.

use super::{Provider, local::Local, vault::Vault};
use crate::{
    faults::{self, Faults},
    host::HostFiles,
    secret::SecretId,
};
use std::{collections::BTreeMap, sync::Arc};

/// Makes an instance from its name, its table in the configuration and the host's files.
///
/// Strict: an unknown key is a fault that names the nearest known one. Reads no file that may come
/// later (a token, a store): those are read when they are needed.
pub type Build = fn(&str, toml::Table, &HostFiles) -> Result<Arc<dyn Provider>, Faults>;

/// Adding a provider is one line here, beside its own file.
const TYPES: [(&str, Build); 2] = [("local", Local::build), ("vault", Vault::build)];

/// The configured instances, by scheme.
#[derive(Default)]
pub struct Registry {
    instances: BTreeMap<String, Arc<dyn Provider>>,
    broken: BTreeMap<String, Faults>,
    unknown: Option<String>,
}

// === impl Registry ===

impl Registry {
    /// Builds every instance; `instances` maps a scheme to its table, whose `type` names the provider. One with
    /// faults is left out, and references to it are refused with them.
    pub fn build(instances: BTreeMap<String, toml::Table>, host: &HostFiles) -> Self {
        let mut registry = Self::default();
        for (name, table) in instances {
            match build_one(&name, table, host) {
                Ok(provider) => drop(registry.instances.insert(name, provider)),
                Err(faults) => drop(registry.broken.insert(name, faults)),
            }
        }
        registry
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

    /// Faults of a reference that show without asking a server.
    pub fn validate(&self, id: &SecretId) -> Result<(), String> {
        let name = id.provider();
        if let Some(fault) = &self.unknown {
            return Err(format!("{fault}: mend the file, and enable the plugin again"));
        }
        match (self.get(name), self.broken.get(name)) {
            (Some(provider), _) => provider.validate(id),
            (None, Some(faults)) => Err(format!(
                "provider `{name}` is left out: {faults}; mend /etc/dso/dso.toml, and enable the plugin again"
            )),
            (None, None) if TYPES.iter().any(|(known, _)| *known == name) => Err(format!(
                "provider `{name}` is not set up: write [provider.{name}] in /etc/dso/dso.toml{}, and enable the plugin again",
                if name == "vault" { ", or set VAULT_ADDR with `docker plugin set`" } else { "" }
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
        assert_eq!(fault, "/etc/dso/dso.toml: invalid (line 3): mend the file, and enable the plugin again");
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
             mend /etc/dso/dso.toml, and enable the plugin again"
        );
        assert_eq!(
            registry.validate(&"ue://app".parse().unwrap()).unwrap_err(),
            "unknown provider `ue`: did you mean `eu`?"
        );
    }
}
