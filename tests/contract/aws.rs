//! The real moto behind the gate, which knows what moto does not.

use crate::{
    aws_world,
    support::{aws::gate, server::Reply},
    world::{Fault, World},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use dso::{
    host::HostFiles,
    provider::{ErrorKind, Provider, ProviderError, aws},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

const REGION: &str = "eu-central-1";

pub struct Aws {
    world: aws_world::World,
    made: Mutex<BTreeSet<String>>,
}

// === impl Aws ===

impl Aws {
    /// A new secret, or a new version of it.
    async fn write(&self, name: &str, mut value: Value) {
        let is_new = self.made.lock().unwrap().insert(name.into());
        let (action, key) = if is_new { ("CreateSecret", "Name") } else { ("PutSecretValue", "SecretId") };
        value[key] = name.into();
        self.world.moto.call(REGION, action, value).await;
    }
}

impl World for Aws {
    /// Every character that AWS lets a name have, beside letters and digits.
    const NAMES: &[&str] = &["A.b/c_d+e=f@g-h", "deep/er/and/deeper"];
    const UNICODE: bool = false;

    async fn start() -> Self {
        Self { world: aws_world::World::new().await, made: Mutex::default() }
    }

    fn instance(&self, timeout: Duration) -> Arc<dyn Provider> {
        self.instance_at(self.world.gate.address(), timeout)
    }

    fn reference(&self, name: &str) -> String {
        format!("aws://{name}")
    }

    async fn put(&self, name: &str, fields: &Value) {
        self.write(name, json!({"SecretString": fields.to_string()})).await;
    }

    async fn put_binary(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        self.write(name, json!({"SecretBinary": STANDARD.encode(bytes)})).await;
        bytes.into()
    }

    /// AWS takes no value of less than one character: what is empty is a secret without a version.
    async fn put_empty(&self, name: &str) -> Result<Vec<u8>, ErrorKind> {
        self.write(name, json!({})).await;
        Err(ErrorKind::NotFound)
    }

    /// AWS keeps about a hundred versions and refuses to make more. It is told of a hundred times as many all the same, by a
    /// description that the gate makes longer.
    async fn put_versions(&self, name: &str, count: usize, fields: &Value) {
        self.put(name, fields).await;
        let mut told = self.world.moto.call(REGION, "DescribeSecret", json!({"SecretId": name})).await;
        let stages = told["VersionIdsToStages"].as_object_mut().unwrap();
        stages.extend((1..count).map(|n| (format!("{n:036}"), json!([format!("OLD-{n}")]))));
        let reply = Reply::new(200, told.to_string()).header("content-type", "application/x-amz-json-1.1");
        self.world.gate.fail("DescribeSecret", usize::MAX, gate::Fault::Answer(reply));
    }

    async fn remove(&self, name: &str) {
        self.made.lock().unwrap().remove(name);
        let body = json!({"SecretId": name, "ForceDeleteWithoutRecovery": true});
        self.world.moto.call(REGION, "DeleteSecret", body).await;
    }

    async fn forbid(&self, _name: &str) -> ErrorKind {
        let denied = gate::Fault::Answer(Reply::fault(400, "AccessDeniedException"));
        self.world.gate.fail("GetSecretValue", usize::MAX, denied);
        ErrorKind::Forbidden
    }

    fn reads(&self) -> usize {
        self.world.gate.count("GetSecretValue") + self.world.gate.count("BatchGetSecretValue")
    }

    fn fail(&self, fault: Fault) -> bool {
        let fault = match fault {
            Fault::Throttled => {
                gate::Fault::Answer(Reply::fault(400, "ThrottlingException").header("retry-after", "7"))
            }
            Fault::Held => gate::Fault::Hold,
            Fault::Hang => gate::Fault::Hang,
            Fault::Cut => gate::Fault::Cut,
            Fault::HalfClosed => return true,
        };
        self.world.gate.fail("GetSecretValue", 1, fault);
        true
    }

    fn release(&self) {
        self.world.gate.release();
    }

    fn instance_at(&self, address: &str, timeout: Duration) -> Arc<dyn Provider> {
        let settings = self.world.settings(address, &format!("timeout = '{}ms'", timeout.as_millis()));
        let host = HostFiles::on_host(self.world.etc.path());
        aws::Aws::build("aws", settings.parse().unwrap(), &host).unwrap()
    }

    fn canary(&self) -> String {
        self.world.canary()
    }

    fn is_silent(&self, error: &ProviderError) -> bool {
        self.world.message(error);
        true
    }
}
