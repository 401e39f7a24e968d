//! Where a host of Azure asks for its token: the instance metadata service, and App Service's endpoint.

use super::{
    super::server::{Reply, Seen, Server},
    directory::Directory,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The ids of the user-assigned identity that the machine has, beside its own.
pub const CLIENT: &str = "aaaaaaaa-0000-0000-0000-000000000001";
pub const OBJECT: &str = "aaaaaaaa-0000-0000-0000-000000000002";
pub const RESOURCE: &str =
    "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/dso";

pub struct Identity {
    server: Server,
    state: Arc<State>,
}

struct State {
    directory: Arc<Directory>,
    /// App Service's header; a machine has none.
    header: Option<String>,
    faults: Mutex<Vec<Reply>>,
    refused: Mutex<Vec<String>>,
    asked: Mutex<Vec<BTreeMap<String, String>>>,
}

// === impl Identity ===

impl Identity {
    pub async fn machine(directory: &Arc<Directory>) -> Self {
        Self::start(directory, None).await
    }

    pub async fn app_service(directory: &Arc<Directory>, header: &str) -> Self {
        Self::start(directory, Some(header.to_owned())).await
    }

    async fn start(directory: &Arc<Directory>, header: Option<String>) -> Self {
        let (faults, refused, asked) = Default::default();
        let state = Arc::new(State { directory: Arc::clone(directory), header, faults, refused, asked });
        let answering = Arc::clone(&state);
        let server = Server::start(move |seen| {
            let reply = answering.respond(&seen);
            Box::pin(async move { reply })
        });
        Self { server: server.await, state }
    }

    pub fn address(&self) -> &str {
        self.server.address()
    }

    /// Answered in place of the next request.
    pub fn fail(&self, reply: Reply) {
        lock(&self.state.faults).push(reply);
    }

    pub fn refused(&self) -> Vec<String> {
        lock(&self.state.refused).clone()
    }

    /// The queries of all requests that were answered with a token.
    pub fn asked(&self) -> Vec<BTreeMap<String, String>> {
        lock(&self.state.asked).clone()
    }
}

// === impl State ===

impl State {
    fn respond(&self, seen: &Seen) -> Reply {
        if let Some(reply) = lock(&self.faults).pop() {
            return reply;
        }
        let url: reqwest::Url = format!("http://x{}?{}", seen.path, seen.query).parse().unwrap();
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let (path, versions, allowed, ids): (_, &[&str], _, _) = match &self.header {
            None => (
                "/metadata/identity/oauth2/token",
                &["2018-02-01", "2019-08-01", "2021-02-01"],
                // What came through a proxy is refused.
                seen.header("metadata") == Some("true") && seen.header("x-forwarded-for").is_none(),
                [("client_id", CLIENT), ("object_id", OBJECT), ("msi_res_id", RESOURCE)],
            ),
            Some(header) => (
                "/msi/token",
                &["2019-08-01"],
                seen.header("x-identity-header") == Some(header),
                [("client_id", CLIENT), ("principal_id", OBJECT), ("mi_res_id", RESOURCE)],
            ),
        };
        if seen.method != "GET" || seen.path != path {
            return self.refuse(404, "another path");
        }
        if !allowed {
            return match self.header {
                None => self.refuse(400, "no Metadata header"),
                Some(_) => self.refuse(401, "a wrong identity header"),
            };
        }
        if !query.get("api-version").is_some_and(|version| versions.contains(&version.as_str())) {
            return self.refuse(400, "no known api-version");
        }
        let Some(resource) = query.get("resource") else { return self.refuse(400, "no resource") };
        let known = |name: &str, value: &String| ids.iter().any(|(known, id)| *known == name && id == value);
        for (name, value) in &query {
            if !["api-version", "resource"].contains(&name.as_str()) && !known(name, value) {
                return self.refuse(400, "an identity that this machine has not");
            }
        }
        let (token, ends) = self.directory.issue(resource);
        let body = json!({
            "access_token": token, "client_id": CLIENT, "expires_on": ends.to_string(), "resource": resource,
            "token_type": "Bearer",
        });
        lock(&self.asked).push(query);
        Reply::new(200, body.to_string()).header("content-type", "application/json")
    }

    fn refuse(&self, status: u16, why: &str) -> Reply {
        lock(&self.refused).push(why.into());
        let body = json!({"error": "invalid_request", "error_description": "Identity not found"});
        Reply::new(status, body.to_string()).header("content-type", "application/json")
    }
}

fn lock<T>(state: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
