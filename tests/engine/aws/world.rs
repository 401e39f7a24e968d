//! moto behind the gate, a container's endpoint that gives credentials, and a plugin that reads from there.

use crate::support::{
    aws::{gate::Gate, identity::Identity, moto::Moto},
    bao::unique,
    engine::Engine,
    plugin::{Plugin, Preparation},
};
use serde_json::{Value, json};
use std::sync::Arc;

pub struct World {
    pub moto: Moto,
    pub gate: Arc<Gate>,
    pub plugin: Plugin,
    _identity: Identity,
}

// === impl World ===

impl World {
    /// With the provider `aws`, and more in dso.toml and of the plugin's settings.
    pub async fn with(toml: &str, prepare: impl FnOnce(Preparation) -> Preparation) -> Self {
        let moto = Moto::start().await;
        let gate = Arc::new(Gate::before(&moto.address).await);
        let preparation = Plugin::on(&Engine::system());
        let identity = Identity::container(&gate, Some(preparation.config_dir().join("token"))).await;
        let table = format!(
            "[provider.aws]\ntype = 'aws'\nregion = 'eu-central-1'\nendpoint = '{}'\n\
             container_uri = '{}/credentials'\ncontainer_token_file = '/etc/dso/token'\n{toml}",
            gate.address(),
            identity.address()
        );
        let preparation = preparation.config("token", format!("token-{}", unique())).config("dso.toml", table);
        Self { plugin: prepare(preparation).start(), moto, gate, _identity: identity }
    }

    /// A volume of these options that is mounted once, as the engine mounts it.
    pub fn mount(&self, volume: &str, options: Value) {
        let (_, created) = self.plugin.call("/VolumeDriver.Create", &json!({"Name": volume, "Opts": options}));
        let (_, mounted) = self.plugin.call("/VolumeDriver.Mount", &json!({"Name": volume, "ID": "m"}));
        assert_eq!((&created["Err"], &mounted["Err"]), (&json!(""), &json!("")), "{volume}");
    }

    /// `Status` as the engine is told.
    pub fn status(&self, volume: &str) -> Value {
        self.plugin.call("/VolumeDriver.Get", &json!({ "Name": volume })).1["Volume"]["Status"].take()
    }

    pub fn unmount(&self, volume: &str) {
        self.plugin.call("/VolumeDriver.Unmount", &json!({"Name": volume, "ID": "m"}));
    }
}
