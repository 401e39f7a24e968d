//! Where the values go: which secret of the store has which of them.

use super::super::{Failure, secret};
use crate::provider::local::{LocalStore, StoreError, Target};
use std::{collections::BTreeMap, path::Path};
use zeroize::Zeroizing;

/// The values by their references.
pub struct Plan {
    scheme: String,
    path: String,
    values: BTreeMap<String, Zeroizing<Vec<u8>>>,
    /// Service and name → reference.
    references: BTreeMap<(String, String), String>,
}

/// What becomes of a reference in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    New,
    Same,
    Other,
}

// === impl Plan ===

impl Plan {
    /// `to` is such as `local://app`; without it, the store's secret of the project's name.
    pub fn new(to: Option<&str>, project: &str) -> Result<Self, Failure> {
        let to = to.map_or_else(|| format!("local://{project}"), str::to_owned);
        match to.split_once("://") {
            Some((scheme, path)) if !path.is_empty() && !path.contains(['#', '?']) => Ok(Self {
                scheme: scheme.into(),
                path: path.trim_end_matches('/').into(),
                values: BTreeMap::new(),
                references: BTreeMap::new(),
            }),
            _ => Err(Failure::Usage(format!("`--to {to}` must be a reference without a field, such as `local://app`"))),
        }
    }

    /// Gives each value its reference: one for all services where they have the same, one for each where not.
    pub fn assign(&mut self, secrets: &[(&str, &str, &[u8])]) {
        for (service, name, value) in secrets {
            let same = secrets.iter().filter(|(_, other, _)| other == name).all(|(_, _, other)| other == value);
            let path = if same { self.path.clone() } else { format!("{}/{service}", self.path) };
            // A field of a JSON object is text; what is not is a secret of its own.
            let reference = match std::str::from_utf8(value) {
                Ok(_) => format!("{}://{path}#{name}", self.scheme),
                Err(_) => format!("{}://{path}/{name}", self.scheme),
            };
            self.values.insert(reference.clone(), Zeroizing::new(value.to_vec()));
            self.references.insert((service.to_string(), name.to_string()), reference);
        }
    }

    pub fn reference(&self, service: &str, name: &str) -> String {
        self.references.get(&(service.to_owned(), name.to_owned())).cloned().unwrap_or_default()
    }

    pub fn open(&self, config_dir: &Path) -> Result<LocalStore, Failure> {
        secret::open(&self.scheme, config_dir).map_err(|failure| match failure {
            Failure::Failed(why) if self.scheme != "local" => Failure::Failed(format!(
                "{why}. Values can be written to an embedded store only: for another provider write them with its own tools, \
                 and import to `local://…` to see how the Compose file has to look"
            )),
            other => other,
        })
    }

    /// What would change in the store, a line for each value; nothing of a value but its length.
    pub fn describe(&self, store: &LocalStore, overwrite: bool) -> Result<Vec<String>, Failure> {
        let width = self.values.keys().map(|reference| reference.chars().count()).max().unwrap_or(0);
        let (mut lines, mut others) = (Vec::new(), Vec::new());
        for (reference, value) in &self.values {
            let change = change(store, reference, value)?;
            if change == Change::Other {
                others.push(reference.as_str());
            }
            let length = String::from_utf8_lossy(value).chars().count();
            let what = match change {
                Change::New => "new",
                Change::Same => "there already, the same",
                Change::Other => "there already with another value, which is replaced",
            };
            lines.push(format!("{reference:width$}   {length} characters, {what}"));
        }
        if !others.is_empty() && !overwrite {
            let others = others.join("`, `");
            return Err(Failure::Failed(format!(
                "the store has other values of `{others}`; nothing was changed (`--overwrite` to replace them, `--to` for another place)"
            )));
        }
        Ok(lines)
    }

    /// Writes what is not there yet. Returns the path of an identity that was made.
    pub fn write(&self, store: &LocalStore) -> Result<Option<String>, Failure> {
        let mut made = None;
        for (reference, value) in &self.values {
            if change(store, reference, value)? == Change::Same {
                continue;
            }
            let done = store.set(&target(store, reference)?, Target::value(value.clone())).map_err(Failure::failed)?;
            made = made.or(done.new_identity);
        }
        Ok(made)
    }
}

fn target(store: &LocalStore, reference: &str) -> Result<Target, Failure> {
    store.target(reference).map_err(|fault| Failure::Failed(format!("`{reference}`: {fault}")))
}

fn change(store: &LocalStore, reference: &str, value: &[u8]) -> Result<Change, Failure> {
    let target = target(store, reference)?;
    match store.get(&target) {
        Ok(held) if held.expose() == value => Ok(Change::Same),
        Ok(_) => Ok(Change::Other),
        Err(StoreError::NoStore(_) | StoreError::NoSecret { .. }) => Ok(Change::New),
        // The secret is there without this field; or is no object, and then it must not be lost.
        Err(StoreError::Field(fault)) if target.field.is_some() => match fault.contains("has no field") {
            true => Ok(Change::New),
            false => Err(Failure::Failed(format!("{fault}; nothing was changed (`--to` for another place)"))),
        },
        Err(error) => Err(Failure::failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_secret_and_others_are_each_services_own() {
        let mut plan = Plan::new(None, "shop").unwrap();
        plan.assign(&[
            ("web", "PW", b"a"),
            ("db", "PW", b"a"),
            ("web", "KEY", b"1"),
            ("db", "KEY", b"2"),
            ("db", "bin", b"\xff"),
        ]);
        assert_eq!(plan.reference("web", "PW"), "local://shop#PW");
        assert_eq!(plan.reference("db", "PW"), "local://shop#PW");
        assert_eq!(plan.reference("db", "KEY"), "local://shop/db#KEY");
        assert_eq!(plan.reference("db", "bin"), "local://shop/bin");
        assert!(Plan::new(Some("local://"), "x").is_err() && Plan::new(Some("app"), "x").is_err());
    }
}
