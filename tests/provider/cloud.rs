//! The metadata services of Azure and Google Cloud as far as they are published: they refuse what the real ones refuse,
//! and sign real tokens, which the server then checks.
//!
//! Sources: Microsoft's "Azure Instance Metadata Service" and "managed identities … how to use an access token" and
//! "App Service … connect to Azure services from app code"; Google's "About VM metadata" and "Verify the identity of VMs".

use crate::{
    signer::Signer,
    support::server::{Reply, Seen, Server},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// One service of a test's own, on a port of its own.
pub struct Cloud {
    pub address: String,
    state: Arc<State>,
    _server: Server,
}

pub enum Kind {
    /// A virtual machine of Azure.
    Machine,
    /// Azure's App Service, with the value of its header.
    AppService(String),
    Google,
}

struct State {
    kind: Kind,
    signer: Signer,
    /// Answered in place of everything, one after the other: status and `Retry-After`.
    faults: Mutex<Vec<(u16, Option<&'static str>)>>,
    /// Every token that was given out, and what was refused with what status.
    issued: Mutex<Vec<String>>,
    refused: Mutex<Vec<u16>>,
}

type Answer = (u16, Vec<(&'static str, &'static str)>, String);

// === impl Cloud ===

impl Cloud {
    pub async fn start(kind: Kind) -> Self {
        let (faults, issued, refused) = Default::default();
        let state = Arc::new(State { kind, signer: Signer::new(), faults, issued, refused });
        let answering = Arc::clone(&state);
        let server = Server::start(move |seen| {
            let state = Arc::clone(&answering);
            Box::pin(async move { state.respond(&seen) })
        });
        let server = server.await;
        Self { address: server.address().to_owned(), state, _server: server }
    }

    pub fn public_key(&self) -> String {
        self.state.signer.public_key()
    }

    pub fn fail(&self, status: u16, retry_after: Option<&'static str>) {
        self.state.faults.lock().unwrap().push((status, retry_after));
    }

    pub fn issued(&self) -> Vec<String> {
        self.state.issued.lock().unwrap().clone()
    }

    /// The statuses of every request that was not answered with what it asked for.
    pub fn refused(&self) -> Vec<u16> {
        self.state.refused.lock().unwrap().clone()
    }
}

// === impl State ===

impl State {
    fn respond(&self, seen: &Seen) -> Reply {
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            if faults.is_empty() { None } else { Some(faults.remove(0)) }
        };
        let (status, headers, body) = match fault {
            Some((status, after)) => {
                (status, after.map(|after| ("Retry-After", after)).into_iter().collect(), String::new())
            }
            None => self.answer(seen),
        };
        if status != 200 {
            self.refused.lock().unwrap().push(status);
        }
        headers.into_iter().fold(Reply::new(status, body), |reply, (name, value)| reply.header(name, value))
    }

    fn answer(&self, seen: &Seen) -> Answer {
        if seen.method != "GET" {
            return (405, Vec::new(), String::new());
        }
        let url: reqwest::Url = format!("http://x{}?{}", seen.path, seen.query).parse().unwrap();
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let header = |name: &str| seen.header(name);
        // Both refuse what came through a proxy.
        let forwarded = header("x-forwarded-for").is_some();
        match &self.kind {
            Kind::Machine => self.machine(url.path(), &query, header("metadata") == Some("true") && !forwarded),
            Kind::AppService(word) => self.app_service(url.path(), &query, header("x-identity-header") == Some(word)),
            Kind::Google => self.google(url.path(), &query, header("metadata-flavor") == Some("Google") && !forwarded),
        }
    }

    fn machine(&self, path: &str, query: &BTreeMap<String, String>, allowed: bool) -> Answer {
        let version = query.get("api-version").map(String::as_str);
        let json = |body: Value| (200, vec![("Content-Type", "application/json")], body.to_string());
        let bad = |error: &str| (400, Vec::new(), json!({"error": error}).to_string());
        if !allowed {
            return bad("Bad request. Required metadata header not specified");
        }
        match path {
            "/metadata/identity/oauth2/token" => match (version, query.get("resource")) {
                (Some("2018-02-01" | "2019-08-01" | "2021-02-01"), Some(resource)) => {
                    if query.get("client_id").is_some_and(|id| id != "known-client") {
                        return bad("invalid_request");
                    }
                    json(self.access_token(resource))
                }
                _ => bad("invalid_request"),
            },
            "/metadata/instance/compute" => match version {
                Some("2017-12-01" | "2019-08-01" | "2021-02-01") => json(json!({
                    "name": "vm-1", "resourceGroupName": "group-1", "subscriptionId": "subscription-1",
                    "vmScaleSetName": "", "location": "westeurope",
                })),
                _ => bad("Bad request. api-version is invalid or was not specified in the request."),
            },
            _ => (404, Vec::new(), String::new()),
        }
    }

    fn app_service(&self, path: &str, query: &BTreeMap<String, String>, allowed: bool) -> Answer {
        let version = query.get("api-version").map(String::as_str);
        match (path, allowed, version, query.get("resource")) {
            ("/msi/token", true, Some("2019-08-01"), Some(resource)) => {
                (200, Vec::new(), self.access_token(resource).to_string())
            }
            ("/msi/token", false, ..) => (401, Vec::new(), String::new()),
            ("/msi/token", ..) => (400, Vec::new(), String::new()),
            _ => (404, Vec::new(), String::new()),
        }
    }

    fn google(&self, path: &str, query: &BTreeMap<String, String>, allowed: bool) -> Answer {
        let flavor = vec![("Metadata-Flavor", "Google")];
        if !allowed {
            return (403, Vec::new(), "Missing required header \"Metadata-Flavor\": \"Google\"".into());
        }
        let full = query.get("format").map(String::as_str) == Some("full");
        match (path, query.get("audience")) {
            ("/computeMetadata/v1/instance/service-accounts/default/identity", Some(audience)) => {
                let mut claims = json!({"iss": "https://accounts.google.com", "aud": audience, "sub": "account-1"});
                if full {
                    claims["google"] = json!({"compute_engine": {"instance_name": "vm-1", "project_id": "project-1"}});
                }
                (200, flavor, self.issue(claims))
            }
            ("/computeMetadata/v1/instance/service-accounts/default/identity", None) => (400, flavor, String::new()),
            _ => (404, flavor, String::new()),
        }
    }

    fn access_token(&self, resource: &str) -> Value {
        let token =
            self.issue(json!({"iss": "https://sts.windows.net/tenant/", "aud": resource, "sub": "principal-1"}));
        json!({"access_token": token, "expires_in": "60", "resource": resource, "token_type": "Bearer"})
    }

    fn issue(&self, claims: Value) -> String {
        let token = self.signer.token(claims, 60);
        self.issued.lock().unwrap().push(token.clone());
        token
    }
}
