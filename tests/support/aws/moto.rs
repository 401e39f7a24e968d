//! The real moto server, one for each test that wants one, gone when dropped.

use super::super::{MARK, unique, world};
use reqwest::Client;
use serde_json::{Value, json};
use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Held from choosing a port to listening on it.
static PORTS: Mutex<()> = Mutex::const_new(());

pub struct Moto {
    process: Process,
    pub address: String,
    client: Client,
    home: tempfile::TempDir,
}

struct Process(Child);

// === impl Moto ===

impl Moto {
    pub async fn start() -> Self {
        for _ in 0..3 {
            if let Some(server) = Self::launch().await {
                return server;
            }
        }
        panic!("moto did not start, three times over");
    }

    async fn launch() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let client = Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(20)).build().unwrap();
        let _alone = PORTS.lock().await;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(home.path().join("log")).unwrap();
        let mut command = Command::new(world("venv/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.env("HOME", home.path()).env(MARK, unique());
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let address = format!("http://127.0.0.1:{port}");
        let mut server = Self { process: Process(child), address, client, home };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(server.process.0.try_wait(), Ok(None)) {
            let asked = server.client.get(format!("{}/moto-api/", server.address)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Some(server);
            }
            sleep(Duration::from_millis(50)).await;
        }
        None
    }

    /// A call of Secrets Manager in the region, past the gate; it must succeed.
    pub async fn call(&self, region: &str, action: &str, body: Value) -> Value {
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/{region}/secretsmanager/aws4_request, SignedHeaders=host, Signature=0"
        );
        let sent = self
            .client
            .post(&self.address)
            .header("authorization", scope)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("secretsmanager.{action}"))
            .body(body.to_string());
        let answer = sent.send().await.unwrap();
        let status = answer.status();
        let body = answer.bytes().await.unwrap();
        assert!(status.is_success(), "{action}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    pub async fn create(&self, name: &str, value: &str) -> Value {
        self.call("eu-central-1", "CreateSecret", json!({"Name": name, "SecretString": value})).await
    }

    /// A new version, as a rotation makes it; its id.
    pub async fn put(&self, name: &str, value: &str) -> String {
        let told = self.call("eu-central-1", "PutSecretValue", json!({"SecretId": name, "SecretString": value})).await;
        told["VersionId"].as_str().unwrap().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
