//! Docker's wire types for volume plugins and secret providers.
//!
//! Sources: <https://docs.docker.com/engine/extend/plugins_volume/> and the engine's own client
//! (moby `volume/drivers/proxy.go`, `daemon/cluster/executor`, swarmkit `manager/drivers/secrets.go`).
//! A failure is status 200 with `Err`: the engine shows the text as it is, where it would put the call's name
//! before that of another status.

use crate::driver::Status;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

pub const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.1+json";
pub const INTERNAL: &str = "an internal fault, which the plugin's log tells of";

/// A request that names a volume, as all but `List` and `Capabilities` do.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeRequest {
    pub name: String,
    /// Of `Mount` and `Unmount`.
    #[serde(default, rename = "ID")]
    pub id: String,
    /// Of `Create`; the engine sends `null` where there are none.
    #[serde(default)]
    pub opts: Option<BTreeMap<String, String>>,
}

/// What Swarm's manager asks a secret provider; there is more, which dso does not need.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecretRequest {
    #[serde(default)]
    pub secret_name: String,
    #[serde(default)]
    pub secret_labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub service_name: String,
    #[serde(default)]
    pub service_labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub task_name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Failure {
    err: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Done {
    pub err: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mounted {
    pub mountpoint: PathBuf,
    pub err: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    pub name: String,
    pub mountpoint: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Got {
    pub volume: Volume,
    pub err: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    pub volumes: Vec<Volume>,
    pub err: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Capabilities {
    pub capabilities: Scope,
}

/// Volumes are the host's own: the same name on another host is another volume.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Scope {
    pub scope: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Activated {
    pub implements: [&'static str; 2],
}

// === impl Failure ===

impl Failure {
    pub fn new(err: String) -> Self {
        Self { err }
    }
}

/// The reply to `GetSecret`: `{"Value": "<Base64>", "Err": "", "DoNotReuse": …}`, written in one piece that nobody copies to grow it.
pub fn secret_reply(value: &[u8], reusable: bool) -> Vec<u8> {
    let (before, after) = ("{\"Value\":\"", format!("\",\"Err\":\"\",\"DoNotReuse\":{}}}", !reusable));
    let length = base64::encoded_len(value.len(), true).unwrap_or_default();
    let mut reply = vec![0; before.len() + length + after.len()];
    reply[..before.len()].copy_from_slice(before.as_bytes());
    // The slice has just the length that this writes.
    let _ = STANDARD.encode_slice(value, &mut reply[before.len()..before.len() + length]);
    reply[before.len() + length..].copy_from_slice(after.as_bytes());
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_told_as_swarm_reads_it() {
        assert_eq!(secret_reply(b"\xff\x00ab", false), br#"{"Value":"/wBhYg==","Err":"","DoNotReuse":true}"#);
        assert_eq!(secret_reply(b"abc", true), br#"{"Value":"YWJj","Err":"","DoNotReuse":false}"#);
    }

    #[test]
    fn what_swarm_leaves_out_or_adds_is_no_fault() {
        let request = r#"{"SecretName":"db","ServiceLabels":null,"TaskImage":"x","ServiceEndpointSpec":{}}"#;
        let request: SecretRequest = serde_json::from_str(request).unwrap();
        assert_eq!((request.secret_name.as_str(), request.service_labels), ("db", None));
    }
}
