//! What an operator asks of the plugin at its socket, beside Docker's calls. The socket is root's.
//!
//! | request | does |
//! |---|---|
//! | `POST /dso/v1/volumes/<name>/refresh` | looks at the volume's secrets now, whatever its `refresh` says |
//! | `POST /dso/v1/volumes/<name>/refresh?force` | the same, and tries again what was taken back after it had failed |
//! | `GET /dso/v1/settings` | tells whether `/etc/dso/dso.toml` is in use as it is now: `{"fault": null}`, or why not |
//!
//! Answers 202 when it is noted, 404 where there is no such volume.

use super::routes::Answer;
use crate::driver::{Driver, DriverError};
use hyper::StatusCode;
use serde::Serialize;

const VOLUMES: &str = "/dso/v1/volumes/";

#[derive(Serialize)]
struct Noted {}

#[derive(Serialize)]
struct Refused {
    message: String,
}

#[derive(Serialize)]
struct Settings {
    fault: Option<String>,
}

/// Answers a request that changes nothing; `None` if there is no such call.
pub fn show(driver: &Driver, path: &str) -> Option<Answer> {
    let settings = || Answer::json(StatusCode::OK, &Settings { fault: driver.settings_fault() });
    (path == "/dso/v1/settings").then(settings)
}

/// Answers a request under `/dso/`; `None` if there is no such call.
pub async fn route(driver: &Driver, path: &str, query: Option<&str>) -> Option<Answer> {
    let name = path.strip_prefix(VOLUMES)?.strip_suffix("/refresh").filter(|name| !name.contains('/'))?;
    let force = match query {
        None | Some("") => false,
        Some("force" | "force=true") => true,
        Some(_) => return Some(refuse(StatusCode::BAD_REQUEST, "the query must be `force` or nothing")),
    };
    Some(match driver.ask(name, force).await {
        Ok(()) => Answer::json(StatusCode::ACCEPTED, &Noted {}),
        Err(error @ DriverError::NoSuchVolume { .. }) => refuse(StatusCode::NOT_FOUND, error),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
    })
}

fn refuse(status: StatusCode, message: impl ToString) -> Answer {
    Answer::json(status, &Refused { message: message.to_string() })
}
