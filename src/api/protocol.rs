//! Docker's wire types for volume plugins and secret providers.
//!
//! Sources: <https://docs.docker.com/engine/extend/plugins_volume/> and the engine's own client
//! (moby `volume/drivers/proxy.go`, `daemon/cluster/executor`, swarmkit `manager/drivers/secrets.go`).
//! A failure is status 200 with `Err`: the engine shows the text as it is, where it would put the call's name
//! before that of another status.

use crate::driver::Status;
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
