//! The one call of Kubernetes' API by which a server asks whether a service account's token is good, as the API's
//! reference says: `POST /apis/authentication.k8s.io/v1/tokenreviews`. It refuses who may not ask, and what it did not issue.

use crate::{
    signer::Signer,
    support::server::{Reply, Seen, Server},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

pub struct Kubernetes {
    pub address: String,
    state: Arc<State>,
    _server: Server,
}

struct State {
    signer: Signer,
    /// Token → service account and audience.
    issued: Mutex<BTreeMap<String, (String, String)>>,
}

// === impl Kubernetes ===

impl Kubernetes {
    pub async fn start() -> Self {
        let state = Arc::new(State { signer: Signer::new(), issued: Mutex::default() });
        let answering = Arc::clone(&state);
        let server = Server::start(move |seen| {
            let state = Arc::clone(&answering);
            Box::pin(async move {
                let (status, body) = state.review(&seen);
                Reply::new(status, body.to_string()).header("Content-Type", "application/json")
            })
        });
        let server = server.await;
        Self { address: server.address().to_owned(), state, _server: server }
    }

    /// A token of a service account in the namespace `default`.
    pub fn token(&self, account: &str, audience: &str) -> String {
        let token = self.state.signer.token(
            json!({
                "iss": "https://kubernetes.default.svc", "aud": [audience],
                "sub": format!("system:serviceaccount:default:{account}"),
                "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": account, "uid": "uid-1"}},
            }),
            60,
        );
        self.state.issued.lock().unwrap().insert(token.clone(), (account.to_owned(), audience.to_owned()));
        token
    }
}

// === impl State ===

impl State {
    fn review(&self, seen: &Seen) -> (u16, Value) {
        if seen.method != "POST" || seen.path != "/apis/authentication.k8s.io/v1/tokenreviews" {
            return (404, json!({"kind": "Status", "code": 404}));
        }
        let bearer = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        // Who asks is a service account itself.
        if !bearer.is_some_and(|token| self.issued.lock().unwrap().contains_key(token)) {
            return (401, json!({"kind": "Status", "code": 401}));
        }
        let asked: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let token = asked["spec"]["token"].as_str().unwrap_or_default();
        let found = self.issued.lock().unwrap().get(token).cloned();
        let wanted: Vec<_> = asked["spec"]["audiences"].as_array().cloned().unwrap_or_default();
        let status = match found {
            Some((account, audience)) if wanted.is_empty() || wanted.contains(&json!(audience)) => json!({
                "authenticated": true, "audiences": [audience],
                "user": {
                    "username": format!("system:serviceaccount:default:{account}"), "uid": "uid-1",
                    "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
                },
            }),
            _ => json!({"authenticated": false, "error": "invalid bearer token"}),
        };
        (201, json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status}))
    }
}
