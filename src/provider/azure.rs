//! Provider `azure`: Azure Key Vault, over Microsoft's own SDK.
//!
//! [`settings`] are what a person configured; [`vaults`] holds a client for each vault; [`identity`] asks for tokens, and
//! [`tokens`] keeps and renews them; [`checks`] compares versions with as few calls as the policy allows, by the [`lists`] of
//! a vault; [`examine`] tells a person how it stands. What goes over the network goes through [`transport`], with [`trust`]'s
//! certificates, and every failure through [`failure`].
//!
//! # Caveats
//! - The SDK reads tokens and values into texts of its own, which nobody wipes. Values are taken out of what it returns
//!   and wiped from there on; the answers' bytes are wiped.

mod attributes;
mod checks;
mod examine;
mod failure;
mod identity;
mod lists;
mod settings;
mod target;
mod tokens;
mod transport;
mod trust;
mod vaults;

use super::{ErrorKind, Observed, Provider, ProviderError, Pushes, refusals::Refusals};
use crate::{
    faults::Faults,
    findings::Finding,
    host::HostFiles,
    secret::{Secret, SecretId, SecretValue, SecretVersion},
};
use async_trait::async_trait;
use attributes::{Marks, usable};
use azure_core::http::{headers::Headers, pager::PagerContinuation};
use azure_security_keyvault_secrets::models::{self, SecretClientGetSecretOptions};
use base64::{Engine, engine::general_purpose::STANDARD};
use checks::Known;
use failure::{Asked, Fault};
use settings::AzureSettings;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};
use target::Target;
use tokio_util::sync::CancellationToken;
use vaults::Vaults;
use zeroize::Zeroizing;

/// The content type of a certificate with its key, as Key Vault makes it of a certificate of its own.
const PKCS12: &str = "application/x-pkcs12";

/// One identity at Azure, and the vaults that it may read.
pub struct Azure {
    inner: Arc<Inner>,
}

struct Inner {
    vaults: Vaults,
    refusals: Refusals,
    /// The version of each secret that was known last.
    known: Mutex<HashMap<SecretId, Known>>,
    /// By vault: the page of its list that it refused last.
    cut: Mutex<HashMap<String, PagerContinuation>>,
}

// === impl Azure ===

impl Azure {
    pub fn build(name: &str, table: toml::Table, host: &HostFiles) -> Result<Arc<dyn Provider>, Faults> {
        let vaults = Vaults::new(AzureSettings::parse(name, table, host)?, host);
        let (refusals, known, cut) = Default::default();
        Ok(Arc::new(Self { inner: Arc::new(Inner { vaults, refusals, known, cut }) }))
    }
}

#[async_trait]
impl Provider for Azure {
    fn validate(&self, id: &SecretId) -> Result<(), String> {
        Target::of(id, self.inner.vaults.suffix()).map(drop)
    }

    async fn read(&self, id: &SecretId) -> Result<Secret, ProviderError> {
        let target = self.inner.vaults.target(id)?;
        self.inner.vaults.bounded(&target, self.inner.read(id, &target)).await
    }

    fn batch(&self, id: &SecretId) -> Option<String> {
        self.inner.batch(id)
    }

    async fn versions(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        Inner::versions(&self.inner, ids).await
    }

    fn identity(&self) -> String {
        self.inner.vaults.login().who.clone()
    }

    async fn examine(&self) -> Vec<Finding> {
        self.inner.examine().await
    }

    /// Tokens are renewed by who needs them: between version checks nobody does.
    async fn run(&self, _pushes: Pushes, cancel: CancellationToken) {
        cancel.cancelled().await
    }
}

// === impl Inner ===

impl Inner {
    async fn read(&self, id: &SecretId, target: &Target) -> Result<Secret, ProviderError> {
        let asked = Asked { permission: "get", target };
        let (answer, headers) = self
            .vaults
            .call(asked, |client| async move {
                let options =
                    SecretClientGetSecretOptions { secret_version: target.version.clone(), ..Default::default() };
                let answer = client.get_secret(&target.name, Some(options)).await?;
                let headers = answer.headers().clone();
                Ok((answer.into_model()?, headers))
            })
            .await?;
        self.secret(id, asked, answer, &headers).map_err(|fault| self.vaults.error(Some(target), fault))
    }

    fn secret(
        &self,
        id: &SecretId,
        asked: Asked<'_>,
        mut answer: models::Secret,
        headers: &Headers,
    ) -> Result<Secret, Fault> {
        let value = answer.value.take().map(Zeroizing::new);
        usable(answer.attributes.as_ref(), asked.target, SystemTime::now())?;
        let version = answer.id.as_deref().and_then(target::parts).and_then(|(_, version)| version);
        let (Some(value), Some(version)) = (value, version) else { return Err(failure::malformed(asked)) };
        let value = match answer.content_type.as_deref() {
            Some(PKCS12) => SecretValue::new(decode(&value, asked.target)?),
            _ => SecretValue::from(value),
        };
        let version = SecretVersion::new(version, "");
        let marks = Marks::of(answer.attributes.as_ref()).filter(|marks| marks.settled(headers));
        if let (Some(marks), None) = (marks, &asked.target.version) {
            self.know(id, version.clone(), marks);
        }
        Ok(Secret { version, value })
    }
}

/// What Key Vault keeps of binary certificates is their Base64.
fn decode(value: &str, target: &Target) -> Result<Zeroizing<Vec<u8>>, Fault> {
    STANDARD.decode(value.trim()).map(Zeroizing::new).map_err(|_| {
        let text =
            format!("the content type of {} is {PKCS12}, and its value is no Base64: correct one of them", target.name);
        Fault::new(ErrorKind::Malformed, text)
    })
}
