//! The real OpenBao server, one for each test that wants one: on free ports, with a home of its own,
//! gone when dropped.
#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::Mutex,
    time::{Instant, sleep},
};

/// How long anything that a test waits for may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Held from choosing ports to listening on them, so that two servers of one test binary never choose the same.
static PORTS: Mutex<()> = Mutex::const_new(());

pub struct Bao {
    process: Process,
    pub address: String,
    pub root: String,
    client: Client,
    home: tempfile::TempDir,
    tls: bool,
}

/// A process that ends with its owner, however that ends.
struct Process(Child);

/// What `Bao::approle` made.
pub struct Role {
    pub role_id: String,
    pub secret_id: String,
}

// === impl Bao ===

impl Bao {
    pub async fn start() -> Self {
        Self::launch(false).await
    }

    /// With TLS, by a CA of its own: [`Self::ca_file`].
    pub async fn start_tls() -> Self {
        Self::launch(true).await
    }

    async fn launch(tls: bool) -> Self {
        for _ in 0..5 {
            if let Some(server) = Self::try_launch(tls).await {
                return server;
            }
        }
        panic!("OpenBao did not start: its log is in no good state five times over");
    }

    async fn try_launch(tls: bool) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let root = format!("root-{}", unique());
        let (port, mut process) = {
            let _alone = PORTS.lock().await;
            let port = free_ports();
            let log = fs::File::create(home.path().join("log")).unwrap();
            let mut command = Command::new(binary());
            command.args(["server", "-dev", "-dev-no-store-token"]);
            command.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
            if tls {
                command.arg("-dev-tls").arg(format!("-dev-tls-cert-dir={}", home.path().display()));
            }
            // By the environment: the arguments of a process are there for everyone to see.
            command.env("BAO_DEV_ROOT_TOKEN_ID", &root).env("HOME", home.path());
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            let mut process = Process(command.spawn().unwrap());
            let deadline = Instant::now() + PATIENCE;
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                if Instant::now() > deadline || process.is_gone() {
                    return None;
                }
                sleep(Duration::from_millis(20)).await;
            }
            (port, process)
        };
        let scheme = if tls { "https" } else { "http" };
        let mut builder = Client::builder().no_proxy().tls_certs_only([]);
        if tls {
            let pem = wait_for_file(&home.path().join("vault-ca.pem"), &mut process).await?;
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).unwrap());
        }
        let client = builder.timeout(Duration::from_secs(20)).build().unwrap();
        let address = format!("{scheme}://127.0.0.1:{port}");
        let mut server = Self { process, address, root, client, home, tls };
        server.is_ready().await.then_some(server)
    }

    async fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && !self.process.is_gone() {
            // Listening is not enough: another server may have taken the port, and the dev mounts come last.
            let sent =
                self.client.get(format!("{}/v1/secret/config", self.address)).header("X-Vault-Token", &self.root);
            if sent.send().await.is_ok_and(|answer| answer.status().is_success()) {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    pub fn ca_file(&self) -> PathBuf {
        assert!(self.tls);
        self.home.path().join("vault-ca.pem")
    }

    /// Of the TLS server itself: certificate and key.
    pub fn cert_files(&self) -> (PathBuf, PathBuf) {
        assert!(self.tls);
        (self.home.path().join("vault-cert.pem"), self.home.path().join("vault-key.pem"))
    }

    /// One request with the root token, or with `token`, in a namespace or not.
    pub async fn send(&self, method: &str, path: &str, body: Value, with: &[(&str, &str)]) -> (StatusCode, Value) {
        let mut url: reqwest::Url = format!("{}/v1/", self.address).parse().unwrap();
        url.path_segments_mut().unwrap().pop_if_empty().extend(path.split('/'));
        let mut request = self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
        if !with.iter().any(|(name, _)| *name == "X-Vault-Token") {
            request = request.header("X-Vault-Token", &self.root);
        }
        for (name, value) in with {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Like [`Self::send`], and it must succeed.
    pub async fn api(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.send(method, path, body, &[]).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    pub async fn mount(&self, path: &str, kind: &str, version: &str) {
        self.mount_in("", path, kind, version).await;
    }

    pub async fn mount_in(&self, namespace: &str, path: &str, kind: &str, version: &str) {
        let body = json!({"type": kind, "options": {"version": version}});
        let with = [("X-Vault-Namespace", namespace)];
        let (status, answer) = self.send("POST", &format!("sys/mounts/{path}"), body, &with).await;
        assert!(status.is_success(), "{answer}");
        if (kind, version) == ("kv", "2") {
            // A new mount of version 2 prepares itself for a moment, and refuses everything meanwhile.
            let probe = async || self.send("GET", &format!("{path}/config"), Value::Null, &with).await.0.is_success();
            eventually("the mount is ready", probe).await;
        }
    }

    /// Writes a secret of KV version 2; `data` is its fields.
    pub async fn put(&self, mount: &str, name: &str, data: Value) {
        self.api("POST", &format!("{mount}/data/{name}"), json!({"data": data})).await;
    }

    pub async fn policy(&self, name: &str, hcl: &str) {
        self.api("PUT", &format!("sys/policies/acl/{name}"), json!({"policy": hcl})).await;
    }

    /// A token with these policies; `more` are further fields of the request, such as `ttl`.
    pub async fn token(&self, policies: &[&str], more: Value) -> String {
        let mut body = json!({"policies": policies});
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let answer = self.api("POST", "auth/token/create", body).await;
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    pub async fn revoke(&self, token: &str) {
        self.api("POST", "auth/token/revoke", json!({"token": token})).await;
    }

    /// An AppRole with these settings (`token_policies`, `token_ttl`, …), and one SecretID of it.
    pub async fn approle(&self, mount: &str, role: &str, settings: Value) -> Role {
        let (status, answer) = self.send("POST", &format!("sys/auth/{mount}"), json!({"type": "approle"}), &[]).await;
        assert!(status.is_success() || answer.to_string().contains("path is already in use"), "{answer}");
        self.api("POST", &format!("auth/{mount}/role/{role}"), settings).await;
        let id = self.api("GET", &format!("auth/{mount}/role/{role}/role-id"), Value::Null).await;
        let secret = self.api("POST", &format!("auth/{mount}/role/{role}/secret-id"), json!({})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Role { role_id: text(&id["data"]["role_id"]), secret_id: text(&secret["data"]["secret_id"]) }
    }

    /// A wrapping token for what a request answers.
    pub async fn wrapped(&self, path: &str, body: Value) -> String {
        let (status, answer) = self.send("POST", path, body, &[("X-Vault-Wrap-TTL", "120s")]).await;
        assert!(status.is_success(), "{answer}");
        answer["wrap_info"]["token"].as_str().unwrap().to_owned()
    }

    pub async fn namespace(&self, name: &str) {
        self.api("POST", &format!("sys/namespaces/{name}"), json!({})).await;
    }

    /// At most `rate` requests to `path` in each `interval`, with `Retry-After` in the refusals.
    pub async fn rate_quota(&self, name: &str, path: &str, rate: f64, interval: &str) {
        self.api("POST", "sys/quotas/config", json!({"enable_rate_limit_response_headers": true})).await;
        let body = json!({"path": path, "rate": rate, "interval": interval});
        self.api("POST", &format!("sys/quotas/rate-limit/{name}"), body).await;
    }

    /// Seals the server; a dev server is not unsealed again.
    pub async fn seal(&self) {
        self.api("PUT", "sys/seal", Value::Null).await;
    }

    /// Ends the server, as an outage.
    pub fn stop(&mut self) {
        self.process.stop();
    }
}

// === impl Process ===

impl Process {
    fn is_gone(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for a condition, and fails the test if it never comes.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A text that occurs nowhere else: for canaries.
pub fn unique() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Server and command line in one.
pub fn binary() -> PathBuf {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/world/venv/bin/bao");
    let binary = std::env::var_os("DSO_TEST_BAO").map_or(made, PathBuf::from);
    assert!(binary.is_file(), "there is no OpenBao server at {}: run `make test-world`", binary.display());
    binary
}

/// A port that is free, and the next one too, which the server takes for its cluster.
fn free_ports() -> u16 {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
    panic!("no two free ports in a row");
}

async fn wait_for_file(file: &Path, process: &mut Process) -> Option<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && !process.is_gone() {
        match fs::read(file) {
            Ok(bytes) if !bytes.is_empty() => return Some(bytes),
            _ => sleep(Duration::from_millis(20)).await,
        }
    }
    None
}
