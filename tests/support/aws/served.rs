//! AWS for tests that are not asynchronous themselves: three instances of the provider, each with an identity of another kind.

use super::{gate::Gate, identity::Identity, moto::Moto};
use crate::support::bao::unique;
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use tokio::runtime::{Builder, Runtime};

const REGION: &str = "eu-central-1";
const SIGNATURES: usize = 40;

/// All of it ends when this is dropped.
pub struct AwsServer {
    pub gate: Arc<Gate>,
    /// What is in the token files of a container and of a web identity.
    pub container_token: String,
    pub web_token: String,
    container: Identity,
    instance: Identity,
    moto: Moto,
    runtime: Runtime,
}

// === impl AwsServer ===

impl AwsServer {
    /// `config` stands for `/etc/dso`, where `token` and `web-token` are to be.
    pub fn start(config: &Path) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let token_file = config.join("token");
        let (moto, gate, container, instance) = runtime.block_on(async {
            let moto = Moto::start().await;
            let gate = Arc::new(Gate::before(&moto.address).await);
            let container = Identity::container(&gate, Some(token_file)).await;
            let instance = Identity::instance(&gate).await;
            (moto, gate, container, instance)
        });
        let (container_token, web_token) = (format!("token-{}", unique()), format!("web-{}", unique()));
        gate.take_web_token(&web_token);
        Self { gate, container_token, web_token, container, instance, moto, runtime }
    }

    /// A secret, with its value as `SecretString` or `SecretBinary`.
    pub fn create(&self, name: &str, value: Value) {
        self.write("CreateSecret", "Name", name, value);
    }

    pub fn put(&self, name: &str, value: Value) {
        self.write("PutSecretValue", "SecretId", name, value);
    }

    fn write(&self, action: &str, key: &str, name: &str, mut value: Value) {
        value[key] = json!(name);
        self.runtime.block_on(self.moto.call(REGION, action, value));
    }

    /// The ports of all servers on 127.0.0.1.
    pub fn ports(&self) -> [u16; 3] {
        [self.gate.address(), self.container.address(), self.instance.address()]
            .map(|address| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port"))
    }

    /// The lines of `dso.toml` for `aws` (a container's credentials), `ec2` (an instance's) and `web` (a web identity's).
    pub fn settings(&self) -> String {
        let (gate, container, instance) = (self.gate.address(), self.container.address(), self.instance.address());
        let identities = [
            ("aws", format!("container_uri = '{container}/credentials'\ncontainer_token_file = '/etc/dso/token'")),
            ("ec2", format!("imds_endpoint = '{instance}'")),
            (
                "web",
                "web_identity_token_file = '/etc/dso/web-token'\nweb_identity_role_arn = 'arn:aws:iam::123456789012:role/dso'"
                    .to_owned(),
            ),
        ];
        let table = |(name, identity): &(&str, String)| {
            format!(
                "[provider.{name}]\ntype = 'aws'\nregion = '{REGION}'\nendpoint = '{gate}'\nsts_endpoint = '{gate}'\n{identity}\n"
            )
        };
        identities.iter().map(table).collect()
    }

    /// Every secret key, session token and token of the metadata service so far, and the newest signatures: each call has one, and a
    /// search for very many takes very long.
    pub fn identities(&self) -> Vec<String> {
        assert!(!self.instance.tokens().is_empty() && self.gate.secrets().len() > 2, "every identity was used");
        let signatures = self.gate.signatures();
        let newest = signatures.len().saturating_sub(SIGNATURES);
        [self.gate.secrets(), signatures[newest..].to_vec(), self.instance.tokens()].concat()
    }
}
