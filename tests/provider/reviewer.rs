//! The one call of Kubernetes' API by which a server asks whether a service account's token is good, as the API's
//! reference says: `POST /apis/authentication.k8s.io/v1/tokenreviews`. It refuses who may not ask, and what it did not issue.

use crate::signer::Signer;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::JoinHandle};

pub struct Kubernetes {
    pub address: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    signer: Signer,
    /// Token → service account and audience.
    issued: Mutex<BTreeMap<String, (String, String)>>,
}

// === impl Kubernetes ===

impl Kubernetes {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { signer: Signer::new(), issued: Mutex::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
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

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move {
                    let (status, body) = state.review(request).await;
                    let response = Response::builder().status(status).header("Content-Type", "application/json");
                    Ok::<_, Infallible>(response.body(Full::<Bytes>::new(body.to_string().into())).unwrap())
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

// === impl State ===

impl State {
    async fn review(&self, request: Request<Incoming>) -> (u16, Value) {
        let path = request.uri().path().to_owned();
        if request.method() != Method::POST || path != "/apis/authentication.k8s.io/v1/tokenreviews" {
            return (404, json!({"kind": "Status", "code": 404}));
        }
        let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        // Who asks is a service account itself.
        if !bearer.is_some_and(|token| self.issued.lock().unwrap().contains_key(&token)) {
            return (401, json!({"kind": "Status", "code": 401}));
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
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
