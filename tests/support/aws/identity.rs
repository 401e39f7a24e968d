//! What gives a host its identity, written from AWS's published protocols: the instance metadata service, version 2,
//! and the endpoint of containers. Both refuse what AWS refuses, and remember it.

use super::{
    super::bao::unique,
    super::server::{Reply, Seen, Server},
    gate::{Gate, Key},
};
use serde_json::json;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// How long IMDS lets a token last at most.
const LONGEST_TTL: u64 = 21_600;

pub struct Identity {
    server: Server,
    state: Arc<Mutex<State>>,
}

struct State {
    gate: Arc<Gate>,
    kind: Kind,
    life: Duration,
    given: usize,
    refused: Vec<String>,
    tokens: Vec<String>,
    current: Option<(String, String)>,
    ready: bool,
    tells_region: bool,
}

enum Kind {
    /// With the tokens that were given out, and when they end.
    Instance(Vec<(String, SystemTime)>),
    /// With the file whose content must come as `Authorization`.
    Container(Option<PathBuf>),
}

// === impl Identity ===

impl Identity {
    /// The instance metadata service; a request without a token of its own is refused.
    pub async fn instance(gate: &Arc<Gate>) -> Self {
        Self::start(gate, Kind::Instance(Vec::new())).await
    }

    /// The endpoint of a container, that asks for the content of `token_file`.
    pub async fn container(gate: &Arc<Gate>, token_file: Option<PathBuf>) -> Self {
        Self::start(gate, Kind::Container(token_file)).await
    }

    async fn start(gate: &Arc<Gate>, kind: Kind) -> Self {
        let state = Arc::new(Mutex::new(State {
            gate: Arc::clone(gate),
            kind,
            life: Duration::from_secs(3600),
            given: 0,
            refused: Vec::new(),
            tokens: Vec::new(),
            current: None,
            ready: true,
            tells_region: true,
        }));
        let shared = Arc::clone(&state);
        let server = Server::start(move |seen| {
            let reply = lock(&shared).answer(&seen);
            Box::pin(async move { reply })
        })
        .await;
        Self { server, state }
    }

    pub fn address(&self) -> &str {
        self.server.address()
    }

    /// Credentials last this long from now on.
    pub fn last(&self, life: Duration) {
        self.state().life = life;
    }

    /// Whether it answers at all with credentials.
    pub fn ready(&self, ready: bool) {
        self.state().ready = ready;
    }

    /// As an instance whose metadata lacks the region.
    pub fn hide_region(&self) {
        self.state().tells_region = false;
    }

    /// How many credentials were given out.
    pub fn given(&self) -> usize {
        self.state().given
    }

    pub fn refused(&self) -> Vec<String> {
        self.state().refused.clone()
    }

    /// The access key that was given out last.
    pub fn key(&self) -> String {
        self.state().current.clone().unwrap().0
    }

    /// Every token that was given out or came.
    pub fn tokens(&self) -> Vec<String> {
        self.state().tokens.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

// === impl State ===

impl State {
    fn answer(&mut self, seen: &Seen) -> Reply {
        match &self.kind {
            Kind::Instance(_) => self.answer_instance(seen),
            Kind::Container(file) => {
                let file = file.clone();
                self.answer_container(seen, file)
            }
        }
    }

    fn answer_instance(&mut self, seen: &Seen) -> Reply {
        let Kind::Instance(given) = &mut self.kind else { unreachable!() };
        if (seen.method.as_str(), seen.path.as_str()) == ("PUT", "/latest/api/token") {
            let ttl = seen.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse().ok());
            let Some(ttl) = ttl.filter(|ttl| (1..=LONGEST_TTL).contains(ttl)) else {
                return self.refuse(400, "a token was asked for without its time to live");
            };
            let token = format!("imds-{}", unique());
            given.push((token.clone(), SystemTime::now() + Duration::from_secs(ttl)));
            self.tokens.push(token.clone());
            return Reply::new(200, token).header("x-aws-ec2-metadata-token-ttl-seconds", &ttl.to_string());
        }
        let token = seen.header("x-aws-ec2-metadata-token").unwrap_or_default();
        if !given.iter().any(|(known, ends)| known == token && SystemTime::now() < *ends) {
            return self.refuse(401, "a request of version 1, or with a token that has ended");
        }
        match seen.path.as_str() {
            "/latest/meta-data/placement/region" if self.tells_region => Reply::new(200, "eu-central-1"),
            "/latest/meta-data/iam/security-credentials/" => Reply::new(200, "dso-role"),
            "/latest/meta-data/iam/security-credentials/dso-role" if self.ready => {
                let (key, secret, session, ends) = self.give();
                let body = json!({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": rfc3339(SystemTime::now()),
                    "AccessKeyId": key, "SecretAccessKey": secret, "Token": session, "Expiration": ends});
                Reply::new(200, body.to_string())
            }
            "/latest/meta-data/iam/security-credentials/dso-role" => Reply::new(503, "not ready"),
            _ => Reply::new(404, "not found"),
        }
    }

    fn answer_container(&mut self, seen: &Seen, file: Option<PathBuf>) -> Reply {
        if seen.method != "GET" || seen.path != "/credentials" {
            return self.refuse(404, "another path");
        }
        if let Some(file) = file {
            let token = std::fs::read_to_string(file).unwrap();
            if seen.header("authorization") != Some(&token) {
                return self.refuse(401, "another token");
            }
        }
        if !self.ready {
            return Reply::new(503, json!({"code": "NotReady", "message": "not ready"}).to_string());
        }
        let (key, secret, session, ends) = self.give();
        let body = json!({"RoleArn": "arn:aws:iam::123456789012:role/task", "AccessKeyId": key,
            "SecretAccessKey": secret, "Token": session, "Expiration": ends});
        Reply::new(200, body.to_string())
    }

    fn give(&mut self) -> (String, String, String, String) {
        self.given += 1;
        let (key, secret, session) =
            (format!("ASIA{}", &unique()[..16]).to_uppercase(), unique() + "/+", format!("session-{}", unique()));
        let ends = SystemTime::now() + self.life;
        self.gate.admit(&key, Key { secret: secret.clone(), session: Some(session.clone()), ends: Some(ends) });
        self.current = Some((key.clone(), secret.clone()));
        (key, secret, session, rfc3339(ends))
    }

    fn refuse(&mut self, status: u16, why: &str) -> Reply {
        self.refused.push(why.into());
        Reply::new(status, "")
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
