//! What stands before moto: it checks signatures, sessions, web identities and external ids, as AWS does and moto does
//! not; it counts calls, and fails those that a test tells it to.

use super::{
    super::server::{Reply, Seen, Server},
    sigv4::Signed,
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::sync::Notify;
use url::form_urlencoded;

/// The most that AWS reads in one call.
const BATCH: usize = 20;

/// What happens to a call in place of its answer.
#[derive(Clone, Debug)]
pub enum Fault {
    Answer(Reply),
    /// The server's answer, but not before [`Gate::release`].
    Hold,
    /// No answer, as long as the client waits.
    Hang,
    /// The server's answer, cut off in the middle of its body.
    Cut,
}

/// An access key as AWS knows it.
#[derive(Clone, Debug)]
pub struct Key {
    pub secret: String,
    pub session: Option<String>,
    pub ends: Option<SystemTime>,
}

pub struct Gate {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    upstream: String,
    keys: HashMap<String, Key>,
    calls: Vec<Call>,
    faults: Vec<(String, usize, Fault)>,
    /// Of ten calls, so many are refused as too many.
    throttled: usize,
    external_id: Option<String>,
    web_token: Option<String>,
    refused: Vec<String>,
    signatures: Vec<String>,
    /// How long the sessions of roles last, if other than moto's.
    life: Option<Duration>,
    released: Arc<Notify>,
}

/// A call that came: the action, the region and the key that it was signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub action: String,
    pub region: String,
    pub key: String,
}

// === impl Gate ===

impl Gate {
    pub async fn before(upstream: &str) -> Self {
        let state = Arc::new(Mutex::new(State { upstream: upstream.to_owned(), ..State::default() }));
        let shared = Arc::clone(&state);
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let server = Server::start(move |seen| {
            let (state, client) = (Arc::clone(&shared), client.clone());
            Box::pin(async move { answer(seen, &state, &client).await })
        })
        .await;
        Self { server, state }
    }

    pub fn address(&self) -> &str {
        self.server.address()
    }

    pub fn admit(&self, access_key: &str, key: Key) {
        self.state().keys.insert(access_key.into(), key);
    }

    /// The key is no more.
    pub fn revoke(&self, access_key: &str) {
        self.state().keys.remove(access_key);
    }

    /// Every secret key and session token that AWS has given out.
    pub fn secrets(&self) -> Vec<String> {
        let state = self.state();
        state.keys.values().flat_map(|key| [Some(key.secret.clone()), key.session.clone()]).flatten().collect()
    }

    /// Every signature that came.
    pub fn signatures(&self) -> Vec<String> {
        self.state().signatures.clone()
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub fn count(&self, action: &str) -> usize {
        self.state().calls.iter().filter(|call| call.action == action).count()
    }

    pub fn reset(&self) {
        self.state().calls.clear();
    }

    /// Why requests were refused by the gate itself.
    pub fn refused(&self) -> Vec<String> {
        self.state().refused.clone()
    }

    /// Fails the next `times` calls of `action`.
    pub fn fail(&self, action: &str, times: usize, fault: Fault) {
        self.state().faults.push((action.into(), times, fault));
    }

    /// Refuses so many of ten calls of Secrets Manager as too many, one after the other.
    pub fn throttle(&self, of_ten: usize) {
        self.state().throttled = of_ten;
    }

    /// Lets one answer go that [`Fault::Hold`] holds back, now or later.
    pub fn release(&self) {
        self.state().released.notify_one();
    }

    pub fn heal(&self) {
        self.state().faults.clear();
    }

    pub fn ask_for_external_id(&self, id: &str) {
        self.state().external_id = Some(id.into());
    }

    pub fn take_web_token(&self, token: &str) {
        self.state().web_token = Some(token.into());
    }

    pub fn end_sessions_after(&self, life: Duration) {
        self.state().life = Some(life);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

async fn answer(seen: Seen, state: &Mutex<State>, client: &reqwest::Client) -> Reply {
    let form: HashMap<_, _> = form_urlencoded::parse(&seen.body).into_owned().collect();
    let target = seen.header("x-amz-target").and_then(|target| target.rsplit_once('.')).map(|(_, action)| action);
    let action = target.map(str::to_owned).or_else(|| form.get("Action").cloned()).unwrap_or_default();
    let is_sts = target.is_none();
    let passed = lock(state).pass(&seen, &action, &form);
    if let Err((status, code, why)) = passed {
        lock(state).refused.push(format!("{action}: {why}"));
        return if is_sts { sts_fault(status, code) } else { Reply::fault(status, code) };
    }
    let fault = lock(state).fault(&action);
    match fault {
        Some(Fault::Answer(reply)) => return reply,
        Some(Fault::Hang) => {}
        Some(Fault::Hold) => {
            let (reply, released) = (forward(seen, state, client).await, Arc::clone(&lock(state).released));
            released.notified().await;
            return reply;
        }
        Some(Fault::Cut) => {
            let reply = forward(seen, state, client).await;
            return Reply { cut: true, ..reply };
        }
        None => {
            let reply = forward(seen, state, client).await;
            return if is_sts { lock(state).learn(reply) } else { reply };
        }
    }
    std::future::pending().await
}

async fn forward(seen: Seen, state: &Mutex<State>, client: &reqwest::Client) -> Reply {
    let url = format!("{}{}", lock(state).upstream, seen.path);
    let mut headers = seen.headers;
    headers.remove("host");
    let sent = client.post(url).headers(headers).body(seen.body).send().await.unwrap();
    let mut reply = Reply::new(sent.status().as_u16(), Bytes::new());
    if let Some(kind) = sent.headers().get("content-type") {
        reply = reply.header("content-type", kind.to_str().unwrap());
    }
    reply.body = sent.bytes().await.unwrap();
    reply
}

/// How many secrets a batch names.
fn asked_for(body: &[u8]) -> usize {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["SecretIdList"].as_array().map_or(0, Vec::len)
}

/// A failure as the query protocol has it.
pub fn sts_fault(status: u16, code: &str) -> Reply {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>as planned</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    );
    Reply::new(status, body).header("content-type", "text/xml")
}

// === impl State ===

impl State {
    /// Whether AWS would take the request.
    fn pass(
        &mut self,
        seen: &Seen,
        action: &str,
        form: &HashMap<String, String>,
    ) -> Result<(), (u16, &'static str, &'static str)> {
        if action == "AssumeRoleWithWebIdentity" {
            self.calls.push(Call { action: action.into(), region: String::new(), key: String::new() });
            let given = form.get("WebIdentityToken");
            let right = given.is_some() && given == self.web_token.as_ref();
            return right.then_some(()).ok_or((400, "InvalidIdentityToken", "another web identity token"));
        }
        let signed = Signed::of(seen).map_err(|why| (400, "MissingAuthenticationTokenException", why))?;
        self.signatures.push(signed.signature.clone());
        self.calls.push(Call { action: action.into(), region: signed.region.clone(), key: signed.access_key.clone() });
        let service = if seen.header("x-amz-target").is_some() { "secretsmanager" } else { "sts" };
        if signed.service != service {
            return Err((400, "InvalidSignatureException", "signed for another service"));
        }
        let key = self.keys.get(&signed.access_key);
        let key = key.ok_or((400, "UnrecognizedClientException", "an access key that is not known"))?;
        signed.check(seen, &key.secret, SystemTime::now()).map_err(|why| (403, "InvalidSignatureException", why))?;
        if seen.header("x-amz-security-token") != key.session.as_deref() {
            return Err((400, "UnrecognizedClientException", "another session token"));
        }
        if key.ends.is_some_and(|ends| ends < SystemTime::now()) {
            return Err((400, "ExpiredTokenException", "a session that has ended"));
        }
        if action == "BatchGetSecretValue" && asked_for(&seen.body) > BATCH {
            return Err((400, "ValidationException", "more secrets in a batch than AWS takes"));
        }
        if action == "AssumeRole" && self.external_id.as_ref() != form.get("ExternalId") {
            return Err((403, "AccessDenied", "another external id"));
        }
        Ok(())
    }

    fn fault(&mut self, action: &str) -> Option<Fault> {
        if self.calls.len() % 10 < self.throttled {
            return Some(Fault::Answer(Reply::fault(400, "ThrottlingException")));
        }
        let (_, left, fault) = self.faults.iter_mut().find(|(of, left, _)| *left > 0 && of == action)?;
        *left -= 1;
        Some(fault.clone())
    }

    /// The key that STS gives out is known from now on.
    fn learn(&mut self, mut reply: Reply) -> Reply {
        let mut text = String::from_utf8(reply.body.to_vec()).unwrap();
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            Some(rest.split_once("</")?.0.to_owned())
        };
        if let (Some(key), Some(secret)) = (field("AccessKeyId"), field("SecretAccessKey")) {
            let session = field("SessionToken");
            let ends = self.life.map(|life| SystemTime::now() + life);
            if let (Some(ends), Some(old)) = (ends, field("Expiration")) {
                text = text.replace(&old, &humantime::format_rfc3339_seconds(ends).to_string());
            }
            self.keys.insert(key, Key { secret, session, ends });
        }
        reply.body = text.into();
        reply
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
