//! Key Vaults behind one address: `<name>.vault.test`.

use super::{
    super::{
        bao::unique,
        server::{Reply, Seen, Server},
    },
    directory::{Directory, TENANT, now},
    tls::Certificates,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// What a value may have at most: "Maximum size 25 KB".
pub const LARGEST: usize = 25 << 10;
/// What tokens are for.
pub const AUDIENCE: &str = "https://vault.test";
const API_VERSIONS: [&str; 5] = ["7.3", "7.4", "7.5", "7.6", "2025-07-01"];
const PAGE: usize = 25;

pub struct KeyVault {
    server: Server,
    state: Arc<Mutex<State>>,
}

/// In place of an answer.
#[derive(Clone)]
pub enum Fault {
    Answer(Reply),
    /// The answer, but not before [`KeyVault::release`].
    Hold,
    /// None, as long as the client waits.
    Hang,
    /// The answer, cut off in its middle.
    Cut,
}

/// A request with a token that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub action: &'static str,
    pub host: String,
    pub name: String,
    pub page: usize,
}

struct State {
    directory: Arc<Directory>,
    port: String,
    secrets: BTreeMap<(String, String), Vec<Version>>,
    faults: Vec<(&'static str, usize, Fault)>,
    /// Of ten calls, so many are refused as too many.
    throttled: usize,
    /// Whether the answer that was just made is to be held.
    held: bool,
    released: Arc<Notify>,
    calls: Vec<Call>,
    values: usize,
    refused: Vec<String>,
    /// What the challenge names as the resource.
    resource: String,
    /// Where lists say that their next page is.
    next_host: Option<String>,
    /// How many pages of a list are empty before those that are not, as a vault's may be.
    empty_pages: usize,
}

#[derive(Clone)]
struct Version {
    id: String,
    body: Value,
    attributes: Value,
}

// === impl KeyVault ===

impl KeyVault {
    pub async fn start(directory: &Arc<Directory>, certificates: &Certificates) -> Self {
        let state = Arc::new(Mutex::new(State {
            directory: Arc::clone(directory),
            port: String::new(),
            secrets: BTreeMap::new(),
            faults: Vec::new(),
            throttled: 0,
            held: false,
            released: Arc::default(),
            calls: Vec::new(),
            values: 0,
            refused: Vec::new(),
            resource: AUDIENCE.into(),
            next_host: None,
            empty_pages: 0,
        }));
        let (shared, (cert, key)) = (Arc::clone(&state), certificates.files());
        let server = Server::start_tls((&cert, &key), move |seen| {
            let mut state = lock(&shared);
            let reply = state.respond(&seen);
            let held = mem::take(&mut state.held).then(|| Arc::clone(&state.released));
            Box::pin(async move {
                if let Some(released) = held {
                    released.notified().await;
                }
                match reply {
                    Some(reply) => reply,
                    None => std::future::pending().await,
                }
            })
        })
        .await;
        lock(&state).port = server.address().rsplit_once(':').unwrap().1.to_owned();
        Self { server, state }
    }

    /// `dns_suffix` of an instance that is to find these vaults.
    pub fn suffix(&self) -> String {
        format!("vault.test:{}", self.state().port)
    }

    pub fn address(&self) -> &str {
        self.server.address()
    }

    /// A new version of a secret of the vault `corp`, made an hour ago; its id.
    pub fn put(&self, name: &str, value: &str) -> String {
        let count = self.state().versions("corp", name).len() as u64;
        self.set("corp", name, json!({"value": value}), now() - 3600 + count, json!({}))
    }

    /// A new version; `body` and `attributes` are added to what every one has.
    pub fn set(&self, vault: &str, name: &str, body: Value, created: u64, attributes: Value) -> String {
        assert!(body["value"].as_str().unwrap().len() <= LARGEST, "400 BadParameter: the value is too large");
        let id = unique();
        let mut all = json!({"enabled": true, "created": created, "updated": created,
            "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90});
        all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        let version = Version { id: id.clone(), body, attributes: all };
        self.state().secrets.entry((vault.into(), name.to_lowercase())).or_default().push(version);
        id
    }

    /// Changes the attributes of the last version.
    pub fn change(&self, name: &str, attributes: Value) {
        let mut state = self.state();
        let versions = state.secrets.get_mut(&("corp".into(), name.into())).unwrap();
        let last = versions.last_mut().unwrap().attributes.as_object_mut().unwrap();
        last.extend(attributes.as_object().unwrap().clone());
    }

    pub fn delete(&self, name: &str) {
        self.state().secrets.remove(&("corp".into(), name.into()));
    }

    /// The next `times` calls of an action (`get`, `list`, `versions`) end so, or of any (`*`), also without a token.
    pub fn fail(&self, action: &'static str, times: usize, fault: Fault) {
        self.state().faults.push((action, times, fault));
    }

    /// Refuses so many of ten calls as too many.
    pub fn throttle(&self, of_ten: usize) {
        self.state().throttled = of_ten;
    }

    /// Lets one answer go that [`Fault::Hold`] holds back, now or later.
    pub fn release(&self) {
        self.state().released.notify_one();
    }

    /// The policy does not allow it.
    pub fn forbid(&self, action: &'static str) {
        self.fail(action, usize::MAX, Fault::Answer(forbidden("ForbiddenByRbac")));
    }

    pub fn challenge(&self, resource: &str) {
        self.state().resource = resource.into();
    }

    pub fn continue_lists_at(&self, host: &str) {
        self.state().next_host = Some(host.into());
    }

    pub fn begin_lists_with_empty_pages(&self, count: usize) {
        self.state().empty_pages = count;
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub fn count(&self, action: &str) -> usize {
        self.state().calls.iter().filter(|call| call.action == action).count()
    }

    /// Why requests were refused, but for the policy.
    pub fn refused(&self) -> Vec<String> {
        self.state().refused.clone()
    }

    /// How many answers had a value in them.
    pub fn values(&self) -> usize {
        self.state().values
    }

    pub fn forget(&self) {
        let mut state = self.state();
        state.calls.clear();
        state.values = 0;
        state.faults.clear();
        state.refused.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

// === impl State ===

impl State {
    fn respond(&mut self, seen: &Seen) -> Option<Reply> {
        if let Some(fault) = self.fault("*") {
            return self.broken(fault, seen);
        }
        let host = seen.header("host").unwrap_or_default().to_owned();
        let vault = host.strip_suffix(&format!(".vault.test:{}", self.port)).unwrap_or_default().to_owned();
        if vault.is_empty() || vault.contains('.') {
            return Some(self.refuse(400, "BadParameter", "a host that is no vault"));
        }
        let token = seen.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
        let refused = match token {
            None => Some("no token"),
            Some(token) => self.directory.check(token, AUDIENCE).err(),
        };
        if let Some(why) = refused {
            let challenge =
                format!("Bearer authorization=\"https://login.test/{TENANT}\", resource=\"{}\"", self.resource);
            return Some(self.refuse(401, "Unauthorized", why).header("www-authenticate", &challenge));
        }
        let url: reqwest::Url = format!("http://x{}?{}", seen.path, seen.query).parse().unwrap();
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        if !query.get("api-version").is_some_and(|version| API_VERSIONS.contains(&version.as_str())) {
            return Some(self.refuse(400, "BadParameter", "no known api-version"));
        }
        let segments: Vec<_> = seen.path.trim_start_matches('/').split('/').map(str::to_owned).collect();
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        let (action, name, version) = match (seen.method.as_str(), &segments[..]) {
            ("GET", ["secrets"]) => ("list", "", ""),
            ("GET", ["secrets", name, "versions"]) => ("versions", *name, ""),
            ("GET", ["secrets", name, version]) => ("get", *name, *version),
            ("GET", ["secrets", name]) => ("get", *name, ""),
            _ => return Some(self.refuse(404, "NotFound", "another path")),
        };
        let page = query.get("$skiptoken").and_then(|text| text.parse().ok()).unwrap_or(0);
        self.calls.push(Call { action, host: vault.clone(), name: name.into(), page });
        if let Some(fault) = self.fault(action) {
            return self.broken(fault, seen);
        }
        let most = query.get("maxresults").map_or(Some(PAGE), |text| text.parse().ok());
        match most.filter(|most| (1..=PAGE).contains(most)) {
            None => Some(self.refuse(400, "BadParameter", "maxresults is not of 1 to 25")),
            Some(most) => Some(match action {
                "list" => self.list(&vault, page, most),
                "versions" => self.list_versions(&vault, name, page, most),
                _ => self.get(&vault, name, version),
            }),
        }
    }

    fn get(&mut self, vault: &str, name: &str, version: &str) -> Reply {
        let versions = self.versions(vault, name);
        let found = match version {
            "" => versions.last(),
            wanted => versions.iter().find(|version| version.id == wanted),
        };
        let Some(found) = found else {
            return error(404, "SecretNotFound", None, "A secret with (name/id) x was not found in this key vault.");
        };
        if found.attributes["enabled"] == false {
            return error(
                403,
                "Forbidden",
                Some("SecretDisabled"),
                "Operation get is not allowed on a disabled secret.",
            );
        }
        let mut body = json!({"id": format!("{}/{}", self.id(vault, name), found.id), "attributes": found.attributes});
        body.as_object_mut().unwrap().extend(found.body.as_object().unwrap().clone());
        self.values += 1;
        answer(body)
    }

    fn list(&self, vault: &str, page: usize, most: usize) -> Reply {
        let all = self.secrets.iter().filter(|((of, _), _)| of == vault);
        let lines = all.map(|((_, name), versions)| self.line(self.id(vault, name), versions.last().unwrap()));
        self.page(vault, "/secrets", lines.collect(), page, most)
    }

    fn list_versions(&self, vault: &str, name: &str, page: usize, most: usize) -> Reply {
        // In no order that means anything.
        let mut versions = self.versions(vault, name).to_vec();
        versions.sort_by(|a, b| a.id.cmp(&b.id));
        let id = self.id(vault, name);
        let lines = versions.iter().map(|version| self.line(format!("{id}/{}", version.id), version));
        self.page(vault, &format!("/secrets/{name}/versions"), lines.collect(), page, most)
    }

    fn line(&self, id: String, version: &Version) -> Value {
        let mut line = json!({"id": id, "attributes": version.attributes});
        if let Some(kind) = version.body.get("contentType") {
            line["contentType"] = kind.clone();
        }
        line
    }

    fn page(&self, vault: &str, path: &str, lines: Vec<Value>, page: usize, most: usize) -> Reply {
        let empty = self.empty_pages;
        let next = (page < empty || (page - empty + 1) * most < lines.len()).then(|| {
            let host = self.next_host.clone().unwrap_or_else(|| format!("{vault}.vault.test:{}", self.port));
            format!("https://{host}{path}?api-version=2025-07-01&$skiptoken={}&maxresults={most}", page + 1)
        });
        let shown = if page < empty { 0 } else { most };
        let lines: Vec<_> = lines.into_iter().skip(page.saturating_sub(empty) * most).take(shown).collect();
        answer(json!({"value": lines, "nextLink": next}))
    }

    fn versions(&self, vault: &str, name: &str) -> &[Version] {
        self.secrets.get(&(vault.into(), name.to_lowercase())).map(Vec::as_slice).unwrap_or_default()
    }

    fn id(&self, vault: &str, name: &str) -> String {
        format!("https://{vault}.vault.test:{}/secrets/{}", self.port, name)
    }

    fn fault(&mut self, action: &str) -> Option<Fault> {
        // Seven has no divisor in common with ten: they are spread.
        if action != "*" && self.calls.len() * 7 % 10 < self.throttled {
            return Some(Fault::Answer(error(429, "Throttled", None, "too many requests")));
        }
        let (_, times, fault) = self.faults.iter_mut().find(|(of, times, _)| *of == action && *times > 0)?;
        *times -= 1;
        Some(fault.clone())
    }

    fn broken(&mut self, fault: Fault, seen: &Seen) -> Option<Reply> {
        match fault {
            Fault::Answer(reply) => Some(reply),
            Fault::Hang => None,
            Fault::Cut => self.again(seen).map(|reply| Reply { cut: true, ..reply }),
            Fault::Hold => {
                let reply = self.again(seen);
                self.held = true;
                reply
            }
        }
    }

    /// The answer that there would be without the fault.
    fn again(&mut self, seen: &Seen) -> Option<Reply> {
        self.calls.pop();
        self.respond(seen)
    }

    fn refuse(&mut self, status: u16, code: &str, why: &str) -> Reply {
        self.refused.push(why.into());
        error(status, code, None, "AKV10000: refused.")
    }
}

pub fn forbidden(inner: &str) -> Reply {
    error(
        403,
        "Forbidden",
        Some(inner),
        "Caller is not authorized to perform action on resource. Caller: appid=x;oid=y",
    )
}

pub fn error(status: u16, code: &str, inner: Option<&str>, message: &str) -> Reply {
    let mut body = json!({"error": {"code": code, "message": message}});
    if let Some(inner) = inner {
        body["error"]["innererror"] = json!({"code": inner});
    }
    Reply::new(status, body.to_string()).header("content-type", "application/json; charset=utf-8")
}

fn answer(body: Value) -> Reply {
    Reply::new(200, body.to_string()).header("content-type", "application/json; charset=utf-8")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
