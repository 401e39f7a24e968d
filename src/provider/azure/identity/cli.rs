//! A developer's token, as `az account get-access-token` prints it. The plugin has no `az`, and does not look into its cache.

use super::{given_for, until};
use crate::{
    host::HostFiles,
    provider::{
        ErrorKind,
        azure::{failure::Fault, tokens::Given},
        files,
    },
};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Printed {
    #[serde(rename = "accessToken")]
    access_token: String,
    /// Since version 2.54.
    expires_on: u64,
}

pub fn read(file: &Path, host: &HostFiles) -> Result<Given, Fault> {
    let named = file.display();
    let anew = format!("write it anew: az account get-access-token --resource https://vault.azure.net > {named}");
    let bytes = files::read_named(host, file)
        .map_err(|why| Fault::new(ErrorKind::Misconfigured, format!("no token of the Azure CLI: {why}; {anew}")))?;
    let printed: Printed = serde_json::from_slice(&bytes).map_err(|_| {
        let text = format!("{named} is not what the Azure CLI (2.54 or newer) prints as JSON: {anew}");
        Fault::new(ErrorKind::Misconfigured, text)
    })?;
    let life = until(printed.expires_on);
    if life.is_zero() {
        return Err(Fault::new(ErrorKind::Unauthenticated, format!("the token in {named} has ended: {anew}")));
    }
    given_for(printed.access_token, life)
}
