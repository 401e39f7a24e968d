//! What an operator asks of the plugin at its socket, beside Docker's calls. The socket is root's, and no answer holds a value.
//!
//! `docs/openapi.json` describes each request; a test holds it against [`ROUTES`] and the answers.
//!
//! | request | does |
//! |---|---|
//! | `GET /dso/v1/version` | tells the versions of dso and of this interface |
//! | `GET /dso/v1/settings` | tells whether `/etc/dso/dso.toml` is in use as it is now: `{"fault": null}`, or why not |
//! | `GET /dso/v1/events[?follow]` | the last events, a line of JSON each, and then, with `follow`, what comes |
//! | `POST /dso/v1/check` | what a mount with these options would show, or why it would fail; mounts nothing |
//! | `POST /dso/v1/volumes/<name>/refresh[?force][&wait]` | looks at the volume's secrets now, whatever its `refresh` says; with `force`, tries again what was taken back after it had failed; with `wait`, tells what comes of it |
//! | `GET /dso/v1/doctor` | what is wrong with the plugin, its providers and volumes, and what to do |
//! | `GET /healthz` | whether the plugin is ready |
//! | `GET /metrics` | what is measured, in Prometheus' text format |

use super::{answer::Answer, health, measures, watching};
use crate::{
    driver::{Driver, DriverError},
    faults,
    findings::Finding,
    volume::Options,
};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// The version of this interface.
const API: &str = "1";

/// Every request that is answered, as the OpenAPI file writes it.
pub const ROUTES: [(Method, &str); 8] = [
    (Method::GET, "/dso/v1/version"),
    (Method::GET, "/dso/v1/settings"),
    (Method::GET, "/dso/v1/events"),
    (Method::GET, "/dso/v1/doctor"),
    (Method::POST, "/dso/v1/check"),
    (Method::POST, "/dso/v1/volumes/{name}/refresh"),
    (Method::GET, health::PATH),
    (Method::GET, measures::PATH),
];

/// One request.
pub struct Call<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub body: &'a [u8],
}

#[derive(Serialize)]
struct Noted {}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    api: &'static str,
}

#[derive(Serialize)]
struct Settings {
    fault: Option<String>,
}

#[derive(Serialize)]
struct Examined {
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checked {
    name: String,
    #[serde(default)]
    options: Option<Options>,
}

/// Answers what is asked before the driver has started; `None` if that is needed.
pub fn early(call: &Call<'_>, driver: Option<&Driver>) -> Option<Answer> {
    match find(call)? {
        Err(refusal) => Some(refusal),
        Ok(("/dso/v1/version", _)) => Some(version()),
        Ok((health::PATH, _)) => Some(health::answer(driver)),
        Ok(_) => None,
    }
}

/// Answers an operator; `None` if it is not for an operator.
pub async fn route(driver: &Arc<Driver>, call: &Call<'_>) -> Option<Answer> {
    let (route, name) = match find(call)? {
        Ok(found) => found,
        Err(refusal) => return Some(refusal),
    };
    let answer = match route {
        "/dso/v1/version" => Ok(version()),
        "/dso/v1/settings" => Ok(Answer::json(StatusCode::OK, &Settings { fault: driver.settings_fault() })),
        "/dso/v1/events" => {
            flags(call.query, &["follow"]).and_then(|flags| watching::events(driver, flags.contains("follow")))
        }
        "/dso/v1/doctor" => Ok(Answer::json(StatusCode::OK, &Examined { findings: driver.examine().await })),
        "/dso/v1/check" => check(driver, call.body).await,
        "/dso/v1/volumes/{name}/refresh" => refresh(driver, name, call.query).await,
        health::PATH => Ok(health::answer(Some(driver))),
        measures::PATH => Ok(measures::answer(driver)),
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

/// The route of a call, and the name in its path.
fn find<'a>(call: &Call<'a>) -> Option<Result<(&'static str, &'a str), Answer>> {
    let of_path = ROUTES.iter().filter_map(|(method, route)| Some((method, *route, matched(route, call.path)?)));
    let of_path: Vec<_> = of_path.collect();
    match of_path.iter().find(|(method, ..)| *method == call.method) {
        Some((_, route, name)) => Some(Ok((route, name))),
        None if of_path.is_empty() => {
            is_for_operators(call.path).then(|| Err(Answer::refuse(StatusCode::NOT_FOUND, "dso has no such call")))
        }
        None => {
            let methods: Vec<_> = of_path.iter().map(|(method, ..)| method.as_str()).collect();
            let message = format!("this path is for {}", methods.join(", "));
            Some(Err(Answer::refuse(StatusCode::METHOD_NOT_ALLOWED, message)))
        }
    }
}

/// Whether it is an operator who asks, and not the engine.
pub fn is_for_operators(path: &str) -> bool {
    path.starts_with("/dso/") || path == health::PATH || path == measures::PATH
}

/// Whether the path is of the route, and what stands in it for `{name}`.
fn matched<'a>(route: &str, path: &'a str) -> Option<&'a str> {
    match route.split_once("{name}") {
        None => (route == path).then_some(""),
        Some((before, after)) => {
            path.strip_prefix(before)?.strip_suffix(after).filter(|name| !name.is_empty() && !name.contains('/'))
        }
    }
}

fn version() -> Answer {
    Answer::json(StatusCode::OK, &Version { version: env!("CARGO_PKG_VERSION"), api: API })
}

async fn check(driver: &Driver, body: &[u8]) -> Result<Answer, Answer> {
    let request: Checked = serde_json::from_slice(body).map_err(|error| {
        // The place alone: what stands there may be anything.
        let place = format!("line {}, column {}", error.line(), error.column());
        let shape = r#"{"name": "…", "options": {"…": "…"}}"#;
        Answer::refuse(StatusCode::BAD_REQUEST, format!("the body must be {shape}, and is not ({place})"))
    })?;
    Ok(Answer::json(StatusCode::OK, &driver.preview(&request.name, request.options.unwrap_or_default()).await))
}

async fn refresh(driver: &Arc<Driver>, name: &str, query: Option<&str>) -> Result<Answer, Answer> {
    let flags = flags(query, &["force", "wait"])?;
    let request = driver.events().request();
    // Before it is asked for, so that nothing of it is missed.
    let heard = match flags.contains("wait") {
        true => Some(watching::request(driver, name, request)?),
        false => None,
    };
    match driver.ask(name, flags.contains("force"), request).await {
        Ok(()) => Ok(heard.unwrap_or_else(|| Answer::json(StatusCode::ACCEPTED, &Noted {}))),
        Err(error @ DriverError::NoSuchVolume { .. }) => Err(Answer::refuse(StatusCode::NOT_FOUND, error)),
        Err(error) => Err(Answer::refuse(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}

/// The flags of a query: `name`, `name=` or `name=true`.
fn flags(query: Option<&str>, known: &[&'static str]) -> Result<BTreeSet<&'static str>, Answer> {
    let mut flags = BTreeSet::new();
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, "true"));
        let found = known.iter().find(|known| **known == name);
        match (found, value) {
            (Some(flag), "true" | "") => drop(flags.insert(*flag)),
            (Some(_), "false") => {}
            (Some(flag), _) => {
                return Err(Answer::refuse(StatusCode::BAD_REQUEST, format!("`{flag}` must be `true` or `false`")));
            }
            (None, _) => {
                let fault = faults::unknown("parameter", name, known.iter().copied());
                return Err(Answer::refuse(StatusCode::BAD_REQUEST, fault));
            }
        }
    }
    Ok(flags)
}
