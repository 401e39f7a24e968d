//! A volume of dso as the engine shows it, and the fields that people ask for.

use super::{
    format::Field,
    text::{self, Colour},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

/// What `GET /volumes/<name>` says.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    pub created: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub status: Status,
}

/// What dso says of it, all of it optional: the plugin may be of another version.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub state: String,
    pub generation: u64,
    pub versions: BTreeMap<String, String>,
    pub checked: Option<String>,
    pub rotated: Option<String>,
    pub next_check: Option<String>,
    pub error: Option<String>,
    pub mounts: u32,
    pub containers: Vec<User>,
    pub last_rotation: Option<Rotation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct User {
    pub name: String,
    pub id: String,
    pub state: String,
    pub destination: String,
    pub on_rotate: String,
    pub fault: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Rotation {
    pub result: String,
    pub cause: String,
    pub from: u64,
    pub to: u64,
    pub at: String,
    pub reason: Option<String>,
}

/// A volume at a moment, since people are told how long ago.
pub struct Row {
    pub volume: Volume,
    pub now: SystemTime,
}

// === impl Volume ===

impl Volume {
    pub fn of(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let texts = |name: &str| {
            let object = value[name].as_object().into_iter().flatten();
            object.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
        };
        let status = Status::deserialize(&value["Status"]).unwrap_or_else(|_| Status {
            error: Some(
                "its status is of a form that is not known: this command and the plugin are of different versions"
                    .into(),
            ),
            ..Status::default()
        });
        Self {
            name: text("Name"),
            driver: text("Driver"),
            created: text("CreatedAt"),
            options: texts("Options"),
            labels: texts("Labels"),
            status,
        }
    }
}

// === impl Status ===

impl Status {
    pub fn state(&self) -> &str {
        if self.state.is_empty() { "unknown" } else { &self.state }
    }

    pub fn colour(&self) -> Colour {
        match self.state() {
            "current" => Colour::Green,
            "idle" => Colour::Dim,
            "stale" => Colour::Yellow,
            _ => Colour::Red,
        }
    }
}

/// Results of a rotation that left everything as the provider has it.
pub fn result_colour(result: &str) -> Colour {
    match result {
        "verified" | "published" => Colour::Green,
        "unverified" | "deferred" => Colour::Yellow,
        _ => Colour::Red,
    }
}

/// The default of `ls`.
pub const COLUMNS: &str = "{{.Name}}\t{{.State}}\t{{.Generation}}\t{{.Versions}}\t{{.Age}}\t{{.NextCheck}}\t{{.Containers}}\t{{.LastRotation}}";

/// What `--format` knows of a volume. JSON has times in RFC 3339, ages in seconds, numbers as numbers; text is for people.
pub const FIELDS: &[Field<Row>] = &[
    field("Name", "VOLUME", |row| row.volume.name.clone(), |row| json!(row.volume.name)),
    field("Driver", "DRIVER", |row| row.volume.driver.clone(), |row| json!(row.volume.driver)),
    Field {
        name: "State",
        heading: "STATE",
        text: |row| row.volume.status.state().into(),
        json: |row| json!(row.volume.status.state()),
        colour: |row| row.volume.status.colour(),
    },
    field(
        "Generation",
        "GENERATION",
        |row| row.volume.status.generation.to_string(),
        |row| json!(row.volume.status.generation),
    ),
    field("Versions", "VERSIONS", |row| versions(&row.volume.status.versions), |row| json!(row.volume.status.versions)),
    field(
        "Age",
        "AGE",
        |row| age(row).map_or_else(|| "-".into(), text::lasting),
        |row| json!(age(row).map(|age| age.as_secs())),
    ),
    field("Rotated", "ROTATED", |row| or_dash(&row.volume.status.rotated), |row| json!(row.volume.status.rotated)),
    field("Checked", "CHECKED", checked, |row| json!(row.volume.status.checked)),
    field("NextCheck", "NEXT CHECK", next_check, |row| json!(row.volume.status.next_check)),
    field("Mounts", "MOUNTS", |row| row.volume.status.mounts.to_string(), |row| json!(row.volume.status.mounts)),
    field(
        "Containers",
        "CONTAINERS",
        |row| containers(&row.volume.status.containers),
        |row| row.volume.status.containers.iter().map(user).collect(),
    ),
    Field {
        name: "LastRotation",
        heading: "LAST ROTATION",
        text: last_rotation,
        json: |row| json!(row.volume.status.last_rotation.as_ref().map(rotation)),
        colour: |row| row.volume.status.last_rotation.as_ref().map_or(Colour::None, |last| result_colour(&last.result)),
    },
    field(
        "Cause",
        "CAUSE",
        |row| last(row, |last| last.cause.clone()),
        |row| json!(row.volume.status.last_rotation.as_ref().map(|last| &last.cause)),
    ),
    field("Error", "ERROR", |row| or_dash(&row.volume.status.error), |row| json!(row.volume.status.error)),
    field("Options", "OPTIONS", |row| pairs(&row.volume.options), |row| json!(row.volume.options)),
    field("Labels", "LABELS", |row| pairs(&row.volume.labels), |row| json!(row.volume.labels)),
    field("CreatedAt", "CREATED", |row| row.volume.created.clone(), |row| json!(row.volume.created)),
];

const fn field(
    name: &'static str,
    heading: &'static str,
    text: fn(&Row) -> String,
    json: fn(&Row) -> Value,
) -> Field<Row> {
    Field { name, heading, text, json, colour: |_| Colour::None }
}

fn or_dash(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".into())
}

/// How old the files are.
fn age(row: &Row) -> Option<Duration> {
    let rotated = row.volume.status.rotated.as_deref().and_then(text::time)?;
    Some(row.now.duration_since(rotated).unwrap_or_default())
}

fn checked(row: &Row) -> String {
    let checked = row.volume.status.checked.as_deref().and_then(text::time);
    checked.map_or_else(|| "-".into(), |at| text::ago(row.now, at))
}

fn next_check(row: &Row) -> String {
    let next = row.volume.status.next_check.as_deref().and_then(text::time);
    next.map_or_else(|| "-".into(), |at| text::ahead(row.now, at))
}

/// The distinct ones, cut short: some providers' are long, and the whole ones are in `inspect`.
fn versions(versions: &BTreeMap<String, String>) -> String {
    let distinct: BTreeSet<String> = versions.values().map(|version| short(version)).collect();
    let mut shown: Vec<_> = distinct.iter().take(2).cloned().collect();
    match distinct.len() {
        0 => return "-".into(),
        3.. => shown.push(format!("+{}", distinct.len() - 2)),
        _ => {}
    }
    shown.join(", ")
}

fn short(version: &str) -> String {
    match version.char_indices().nth(12) {
        Some(_) => version.chars().take(8).chain(['…']).collect(),
        None => version.into(),
    }
}

fn containers(users: &[User]) -> String {
    match users {
        [] => "-".into(),
        _ => users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

fn last(row: &Row, show: impl Fn(&Rotation) -> String) -> String {
    row.volume.status.last_rotation.as_ref().map_or_else(|| "-".into(), show)
}

fn last_rotation(row: &Row) -> String {
    last(row, |last| match text::time(&last.at) {
        Some(at) => format!("{} {}", last.result, text::ago(row.now, at)),
        None => last.result.clone(),
    })
}

fn user(user: &User) -> Value {
    let User { name, id, state, destination, on_rotate, fault } = user;
    json!({"Name": name, "Id": id, "State": state, "Destination": destination, "OnRotate": on_rotate, "Fault": fault})
}

fn rotation(rotation: &Rotation) -> Value {
    let Rotation { result, cause, from, to, at, reason } = rotation;
    json!({"Result": result, "Cause": cause, "From": from, "To": to, "At": at, "Reason": reason})
}

fn pairs(map: &BTreeMap<String, String>) -> String {
    match map.is_empty() {
        true => "-".into(),
        false => map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","),
    }
}
