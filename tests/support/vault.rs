//! OpenBao behind a counting proxy, for tests that are not asynchronous themselves.

use super::{
    bao::{Bao, Role},
    proxy::Proxy,
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// Both end when this is dropped.
pub struct VaultServer {
    pub bao: Bao,
    /// Runs on the runtime's own threads.
    pub proxy: Proxy,
    runtime: Runtime,
}

// === impl VaultServer ===

impl VaultServer {
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (bao, proxy) = runtime.block_on(async {
            let bao = Bao::start().await;
            let proxy = Proxy::before(&bao.address).await;
            (bao, proxy)
        });
        Self { bao, proxy, runtime }
    }

    /// Writes `secret/NAME`; `data` is its fields.
    pub fn put(&self, name: &str, data: Value) {
        self.runtime.block_on(self.bao.put("secret", name, data));
    }

    /// A request with the root token, which must succeed.
    pub fn api(&self, method: &str, path: &str, body: Value) -> Value {
        self.runtime.block_on(self.bao.api(method, path, body))
    }

    /// A token that no log of the server's has.
    pub fn token(&self) -> String {
        self.runtime.block_on(self.bao.token(&["root"], Value::Object(Default::default())))
    }

    /// An AppRole that may read what is in `secret`.
    pub fn approle(&self) -> Role {
        let policy = r#"path "secret/*" { capabilities = ["read"] }"#;
        self.runtime.block_on(async {
            self.bao.policy("reads", policy).await;
            self.bao.approle("approle", "dso", json!({"token_policies": "reads"})).await
        })
    }

    /// The port of the proxy on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.proxy.address().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("an address with a port")
    }

    /// The lines of `dso.toml` for the provider `vault` at this server; the token is in `vault-token` beside it.
    pub fn settings(&self) -> String {
        let address = self.proxy.address();
        format!(
            "[provider.vault]\ntype = \"vault\"\naddress = \"{address}\"\nauth.method = \"token-file\"\n\
             auth.token_file = \"/etc/dso/vault-token\"\n"
        )
    }
}
