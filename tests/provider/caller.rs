//! The login by AWS: a server that checks the signature as AWS does, before the one that serves the secrets.

use crate::{
    support::{
        bao::unique,
        server::{Reply, Seen, Server},
    },
    world::World,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use dso::provider::ErrorKind;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

const SERVER: &str = "vault.example";

/// Keys as STS gives them, in a profile that the host has.
struct Keys {
    id: String,
    secret: String,
    session: String,
}

/// A server whose method `aws` knows one identity; everything else is the real server's.
struct Strict {
    address: String,
    state: Arc<State>,
    _server: Server,
}

struct State {
    upstream: String,
    keys: Keys,
    region: &'static str,
    url: &'static str,
    token: String,
    signatures: Mutex<Vec<String>>,
}

// === impl Keys ===

impl Keys {
    fn new() -> Self {
        Self { id: format!("ASIA{}", &unique()[..16].to_uppercase()), secret: unique(), session: unique() }
    }

    fn profile(&self) -> String {
        let Self { id, secret, session } = self;
        format!(
            "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\naws_session_token = {session}\n"
        )
    }
}

// === impl Strict ===

impl Strict {
    async fn before(world: &World, keys: Keys, region: &'static str, url: &'static str) -> Self {
        let token = world.guard(&world.bao.token(&["p"], json!({"ttl": "1h"})).await);
        let upstream = world.proxy.address().to_owned();
        let state = Arc::new(State { upstream, keys, region, url, token, signatures: Mutex::default() });
        let answering = Arc::clone(&state);
        let server = Server::start(move |seen| {
            let state = Arc::clone(&answering);
            Box::pin(async move { state.answer(seen).await })
        });
        let server = server.await;
        Self { address: server.address().to_owned(), state, _server: server }
    }
}

// === impl State ===

impl State {
    async fn answer(&self, seen: Seen) -> Reply {
        if seen.path == "/v1/auth/aws/login" {
            let body = serde_json::from_slice(&seen.body).unwrap_or_default();
            let (status, answer) = match self.check(&body) {
                Ok(()) => {
                    (200, json!({"auth": {"client_token": self.token, "lease_duration": 3600, "renewable": true}}))
                }
                Err(why) => (400, json!({"errors": [why]})),
            };
            return Reply::new(status, answer.to_string());
        }
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let query = if seen.query.is_empty() { String::new() } else { format!("?{}", seen.query) };
        let url = format!("{}{}{query}", self.upstream, seen.path);
        let sent = client.request(seen.method.parse().unwrap(), url).headers(seen.headers).body(seen.body);
        let answer = sent.send().await.unwrap();
        Reply::new(answer.status().as_u16(), answer.bytes().await.unwrap())
    }

    /// As Vault and then STS do: the request is the one that is allowed, names this server, is new, and is signed.
    fn check(&self, login: &Value) -> Result<(), String> {
        let text = |name: &str| {
            let text = login[name].as_str().ok_or(format!("no {name}"))?;
            let bytes = STANDARD.decode(text).map_err(|_| format!("{name} is not base64"))?;
            String::from_utf8(bytes).map_err(|_| format!("{name} is no text"))
        };
        if login["role"] != "web" || login["iam_http_request_method"] != "POST" {
            return Err("role or method".into());
        }
        let (url, body) = (text("iam_request_url")?, text("iam_request_body")?);
        if url != self.url || body != "Action=GetCallerIdentity&Version=2011-06-15" {
            return Err(format!("{url} {body}"));
        }
        let headers: BTreeMap<String, String> =
            serde_json::from_str(&text("iam_request_headers")?).map_err(|error| error.to_string())?;
        let mut headers: BTreeMap<_, _> =
            headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        let host = self.url.strip_prefix("https://").unwrap().trim_end_matches('/');
        headers.insert("host".into(), host.into());
        let header = |name: &str| headers.get(name).map(String::as_str).ok_or(format!("no {name}"));
        if header("x-vault-aws-iam-server-id")? != SERVER || header("x-amz-security-token")? != self.keys.session {
            return Err("server id or session".into());
        }
        let date = header("x-amz-date")?;
        let age = SystemTime::now().duration_since(time_of(date)).unwrap_or_default();
        if age > Duration::from_secs(300) {
            return Err("too old".into());
        }
        let scope = format!("{}/{}/sts/aws4_request", &date[..8], self.region);
        let authorization = header("authorization")?;
        let rest = authorization
            .strip_prefix(&format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=", self.keys.id))
            .ok_or("scope")?;
        let (names, signature) = rest.split_once(", Signature=").ok_or("signature")?;
        for needed in ["host", "x-amz-date", "x-amz-security-token", "x-vault-aws-iam-server-id"] {
            if !names.split(';').any(|name| name == needed) {
                return Err(format!("{needed} is not signed"));
            }
        }
        let mut canonical = String::from("POST\n/\n\n");
        for name in names.split(';') {
            canonical += &format!("{name}:{}\n", header(name)?.trim());
        }
        canonical += &format!("\n{names}\n{}", hex(&Sha256::digest(&body)));
        let signed = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(&canonical)));
        let mut key = format!("AWS4{}", self.keys.secret).into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part);
        }
        self.signatures.lock().unwrap().push(signature.into());
        if hex(&mac(&key, &signed)) == signature { Ok(()) } else { Err("SignatureDoesNotMatch".into()) }
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20261125T084500Z`
fn time_of(text: &str) -> SystemTime {
    let part = |range: std::ops::Range<usize>| &text[range];
    let date =
        format!("{}-{}-{}T{}:{}:{}Z", part(0..4), part(4..6), part(6..8), part(9..11), part(11..13), part(13..15));
    humantime::parse_rfc3339(&date).unwrap()
}

async fn world(keys: &Keys) -> World {
    let world = World::new().await;
    world.remove("vault-token");
    world.bao.put("secret", "a", json!({"n": 1})).await;
    world.bao.policy("p", r#"path "secret/data/*" { capabilities = ["read"] }"#).await;
    world.guard(&keys.secret);
    world.guard(&keys.session);
    world.write("aws", &keys.profile());
    world
}

const LOGIN: &str = "auth.method = 'aws'\nauth.role = 'web'\nauth.server_id = 'vault.example'\n\
                     auth.aws.credentials_file = '/etc/dso/aws'\n";

fn guard_signatures(world: &World, strict: &Strict) {
    let signatures = strict.state.signatures.lock().unwrap();
    assert!(!signatures.is_empty());
    signatures.iter().for_each(|signature| drop(world.guard(signature)));
}

#[tokio::test]
async fn a_role_at_aws_logs_in_by_a_signed_request() {
    let keys = Keys::new();
    let world = world(&keys).await;
    let strict = Strict::before(&world, keys, "us-east-1", "https://sts.amazonaws.com/").await;
    assert_eq!(world.vault_at(&strict.address, LOGIN).value("vault://secret/a").await, json!({"n": 1}));
    guard_signatures(&world, &strict);
}

#[tokio::test]
async fn a_region_has_an_endpoint_of_its_own() {
    let keys = Keys::new();
    let world = world(&keys).await;
    let strict = Strict::before(&world, keys, "eu-central-1", "https://sts.eu-central-1.amazonaws.com/").await;
    let settings = format!("{LOGIN}auth.aws.region = 'eu-central-1'");
    assert_eq!(world.vault_at(&strict.address, &settings).value("vault://secret/a").await, json!({"n": 1}));
    guard_signatures(&world, &strict);
}

#[tokio::test]
async fn what_is_signed_by_another_key_or_for_another_server_is_refused_and_told() {
    let keys = Keys::new();
    let world = world(&keys).await;
    let strict = Strict::before(&world, keys, "us-east-1", "https://sts.amazonaws.com/").await;
    let other = LOGIN.replace("'vault.example'", "'another.example'");
    let (kind, message) = world.refused(&world.vault_at(&strict.address, &other), "vault://secret/a").await;
    assert_eq!(kind, ErrorKind::Unauthenticated);
    assert_eq!(
        message.replace(&strict.address, "STRICT"),
        "vault (STRICT): 400 the login at auth/aws/login was refused: the host's role at AWS is not one that role `web` is \
         bound to, `auth.server_id` is not the server's `iam_server_id_header_value`, or the server asks another STS \
         endpoint than https://sts.amazonaws.com/ (`sts_endpoint`, `region`); or no method is enabled there (`auth.mount`), \
         or the role does not accept this host's address. The server's log tells which"
    );
    let vault = world.vault_at(&strict.address, LOGIN);
    let Keys { id, session, .. } = &strict.state.keys;
    let forged = Keys { id: id.clone(), secret: world.guard(&unique()), session: session.clone() };
    let right = std::fs::read_to_string(world.etc().join("aws")).unwrap();
    world.write("aws", &forged.profile());
    assert_eq!(world.refused(&vault, "vault://secret/a").await.0, ErrorKind::Unauthenticated);
    world.write("aws", &right);
    assert_eq!(vault.value("vault://secret/a").await, json!({"n": 1}), "a changed file is used at once");
    guard_signatures(&world, &strict);
}

#[tokio::test]
async fn a_host_without_an_identity_at_aws_is_told() {
    let keys = Keys::new();
    let world = world(&keys).await;
    world.write("aws", "[another]\n");
    let settings = format!("{LOGIN}auth.aws.imds_endpoint = 'http://127.0.0.1:1'\ntimeout = '5s'");
    let (kind, message) = world.refused(&world.vault(&settings), "vault://secret/a").await;
    assert_ne!(kind, ErrorKind::Malformed);
    assert!(message.starts_with("vault.auth.aws"), "{message}");
    assert_eq!(world.proxy.count("POST", "/auth/aws/login"), 0);
}
