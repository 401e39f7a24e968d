//! The Key Vault that is written for the tests, and the machine's identity.

use crate::{
    azure_world,
    support::azure::{
        directory::now,
        vault::{self, error, forbidden},
    },
    world::{Fault, World},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use dso::{
    host::HostFiles,
    provider::{ErrorKind, Provider, ProviderError, azure},
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Secrets were made this long ago, one second after the other.
const AGO: u64 = 1_000_000;

pub struct Azure {
    world: azure_world::World,
    made: AtomicU64,
}

// === impl Azure ===

impl Azure {
    fn write(&self, name: &str, body: Value) {
        let made = now() - AGO + self.made.fetch_add(1, Ordering::Relaxed);
        self.world.vault.set("corp", name, body, made, json!({}));
    }
}

impl World for Azure {
    /// Letters, digits and `-`, and as many as 127 of them.
    const NAMES: &[&str] = &[
        "0-Upper-and-LOWER",
        "-a--b-",
        "7",
        "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
    ];
    const UNICODE: bool = false;
    /// Key Vault refuses what is larger; so does the server.
    const LARGEST: usize = vault::LARGEST;
    /// Versions come in no order and 25 a page: of four hundred pages dso asks for four, and reads the value instead.
    const TELLS_AMONG_MANY: bool = false;

    async fn start() -> Self {
        Self { world: azure_world::World::new().await, made: AtomicU64::new(0) }
    }

    fn instance(&self, timeout: Duration) -> Arc<dyn Provider> {
        self.instance_at(self.world.vault.address(), timeout)
    }

    fn reference(&self, name: &str) -> String {
        format!("azure://corp/{name}")
    }

    async fn put(&self, name: &str, fields: &Value) {
        self.write(name, json!({"value": fields.to_string()}));
    }

    /// A value is text: what is binary is a certificate as PKCS#12, which Key Vault keeps in base64.
    async fn put_binary(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        self.write(name, json!({"value": STANDARD.encode(bytes), "contentType": "application/x-pkcs12"}));
        bytes.into()
    }

    async fn put_empty(&self, name: &str) -> Result<Vec<u8>, ErrorKind> {
        self.write(name, json!({"value": ""}));
        Ok(Vec::new())
    }

    async fn put_versions(&self, name: &str, count: usize, fields: &Value) {
        for n in 1..count {
            self.write(name, json!({"value": n.to_string()}));
        }
        self.put(name, fields).await;
    }

    async fn remove(&self, name: &str) {
        self.world.vault.delete(name);
    }

    async fn forbid(&self, _name: &str) -> ErrorKind {
        self.world.vault.fail("get", usize::MAX, vault::Fault::Answer(forbidden("ForbiddenByRbac")));
        ErrorKind::Forbidden
    }

    fn reads(&self) -> usize {
        self.world.vault.count("get")
    }

    fn fail(&self, fault: Fault) -> bool {
        let fault = match fault {
            Fault::Throttled => vault::Fault::Answer(error(429, "Throttled", None, "").header("retry-after", "7")),
            Fault::Held => vault::Fault::Hold,
            Fault::Hang => vault::Fault::Hang,
            Fault::Cut => vault::Fault::Cut,
            Fault::HalfClosed => return true,
        };
        self.world.vault.fail("get", 1, fault);
        true
    }

    fn release(&self) {
        self.world.vault.release();
    }

    /// The vaults' names stay, and their port is that of the address.
    fn instance_at(&self, address: &str, timeout: Duration) -> Arc<dyn Provider> {
        let (_, port) = address.rsplit_once(':').expect("an address with a port");
        let settings = format!(
            "dns_suffix = 'vault.test:{port}'\nprivate_endpoint = '127.0.0.1'\nca_file = '/etc/dso/ca.pem'\n\
             auth.metadata_endpoint = '{}'\ntimeout = '{}ms'",
            self.world.machine.address(),
            timeout.as_millis()
        );
        let host = HostFiles::on_host(self.world.etc.path());
        azure::Azure::build("azure", settings.parse().unwrap(), &host).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn canary(&self) -> String {
        self.world.canary()
    }

    fn is_silent(&self, error: &ProviderError) -> bool {
        self.world.message(error);
        true
    }
}
