//! The real OpenBao behind the proxy; secrets are those of its engine KV, version 2.

use crate::{
    support::proxy,
    vault_world,
    world::{Fault, World},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use dso::{
    host::HostFiles,
    provider::{ErrorKind, Provider, ProviderError, vault},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

pub struct Vault(vault_world::World);

impl World for Vault {
    const NAMES: &[&str] = &["größe/ключ", "a b/c%2Fd", "x+y/z;w=1", "deep/er/and/deeper", "q'\"<>`{}|^[]"];
    const UNICODE: bool = true;

    async fn start() -> Self {
        Self(vault_world::World::new().await)
    }

    fn instance(&self, timeout: Duration) -> Arc<dyn Provider> {
        self.instance_at(self.0.proxy.address(), timeout)
    }

    fn reference(&self, name: &str) -> String {
        format!("vault://secret/{name}")
    }

    async fn put(&self, name: &str, fields: &Value) {
        self.0.bao.put("secret", name, fields.clone()).await;
    }

    /// A field is text: what is binary is written in base64.
    async fn put_binary(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        let fields = json!({"key": STANDARD.encode(bytes)});
        self.put(name, &fields).await;
        fields.to_string().into()
    }

    /// Without fields it is an object without fields.
    async fn put_empty(&self, name: &str) -> Result<Vec<u8>, ErrorKind> {
        self.put(name, &json!({})).await;
        Ok(b"{}".into())
    }

    /// OpenBao keeps as many as it is told to, but takes minutes to write them: its metadata, which a check reads, is made longer by
    /// the proxy.
    async fn put_versions(&self, name: &str, count: usize, fields: &Value) {
        self.put(name, &json!({"n": 1})).await;
        self.put(name, fields).await;
        let mut told = self.0.bao.api("GET", &format!("secret/metadata/{name}"), Value::Null).await;
        let versions = told["data"]["versions"].as_object_mut().unwrap();
        let old = versions["1"].clone();
        versions.extend((3..=count).map(|n| (format!("{}", n + 2), old.clone())));
        self.0.proxy.fail(&format!("/v1/secret/metadata/{name}"), usize::MAX, proxy::Fault::body(&told.to_string()));
    }

    async fn remove(&self, name: &str) {
        self.0.bao.api("DELETE", &format!("secret/metadata/{name}"), Value::Null).await;
    }

    async fn forbid(&self, name: &str) -> ErrorKind {
        let policy = format!(
            "path \"secret/data/*\" {{ capabilities = [\"read\"] }}\npath \"secret/data/{name}\" {{ capabilities = [\"deny\"] }}"
        );
        self.0.log_in_with(&policy).await;
        ErrorKind::Forbidden
    }

    fn reads(&self) -> usize {
        self.0.proxy.count("GET", "/v1/secret/data/")
    }

    fn fail(&self, fault: Fault) -> bool {
        let fault = match fault {
            Fault::Throttled => proxy::Fault::throttle("7"),
            Fault::Held => proxy::Fault::Hold,
            Fault::Hang => proxy::Fault::Hang,
            Fault::Cut => proxy::Fault::Truncate,
            Fault::HalfClosed => return true,
        };
        self.0.proxy.fail("/v1/secret/data/", 1, fault);
        true
    }

    fn release(&self) {
        self.0.proxy.release();
    }

    fn instance_at(&self, address: &str, timeout: Duration) -> Arc<dyn Provider> {
        let table = format!("address = '{address}'\ntimeout = '{}ms'", timeout.as_millis()).parse().unwrap();
        vault::Vault::build("vault", table, &HostFiles::on_host(self.0.etc())).unwrap()
    }

    fn canary(&self) -> String {
        self.0.canary()
    }

    fn is_silent(&self, error: &ProviderError) -> bool {
        self.0.message(error);
        true
    }
}
