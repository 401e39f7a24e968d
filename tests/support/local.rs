//! The embedded store of a plugin under test, written as `docker dso secret set` writes it.

use dso::{host::HostFiles, provider::local::LocalStore, secret::SecretValue};
use std::path::Path;

pub struct LocalSecrets(LocalStore);

// === impl LocalSecrets ===

impl LocalSecrets {
    /// The store in the folder that the plugin sees as `/etc/dso`.
    pub fn in_dir(config: &Path) -> Self {
        Self(LocalStore::open("local", toml::Table::new(), &HostFiles::on_host(config)).expect("no settings, no fault"))
    }

    /// Sets `NAME` or `NAME#FIELD`.
    #[track_caller]
    pub fn set(&self, target: &str, value: impl AsRef<[u8]>) {
        let target = self.0.target(target).expect("a name");
        self.0.set(&target, SecretValue::new(value.as_ref().to_vec())).expect("the local store");
    }

    /// A secret of so many fields `f0`, `f1`, …, all of one text.
    #[track_caller]
    pub fn set_all(&self, name: &str, fields: usize, text: &str) {
        let fields: serde_json::Map<_, _> = (0..fields).map(|number| (format!("f{number}"), text.into())).collect();
        self.set(name, serde_json::Value::from(fields).to_string());
    }
}
