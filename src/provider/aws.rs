//! Provider `aws`: AWS Secrets Manager, over Amazon's own SDK.
//!
//! [`settings`] are what a person configured; [`account`] holds the SDK's configuration and a client for each region;
//! [`credentials`] keeps what the SDK's chain finds of the host's identity and renews it ahead of its end; [`checks`]
//! compares versions with as few calls as the policy allows, and [`batch`] reads many secrets so. Every failure goes through [`failure`].
//!
//! # Caveats
//! - The SDK reads answers into buffers of its own, which nobody wipes. Values are taken out of what it returns and
//!   wiped from there on.

mod account;
mod batch;
mod caller;
mod checks;
mod credentials;
mod failure;
mod settings;
mod target;
mod trust;

use super::{Observed, Provider, ProviderError, Pushes, refusals::Refusals};
use crate::{
    faults::Faults,
    findings::Finding,
    host::HostFiles,
    secret::{Secret, SecretId, SecretValue, SecretVersion},
};
use account::Account;
use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sdk_secretsmanager::primitives::Blob;
use failure::Asked;
use settings::AwsSettings;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use target::{Target, Want};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use caller::Caller;

/// One identity at AWS, and the secrets that it may read.
pub struct Aws {
    inner: Arc<Inner>,
}

struct Inner {
    account: Account,
    refusals: Refusals,
    /// The version of each secret that was read last.
    read: Mutex<HashMap<SecretId, SecretVersion>>,
}

/// What AWS tells of a secret, however it was asked. No `Debug`: it holds the value.
struct Told {
    text: Option<String>,
    bytes: Option<Blob>,
    version: Option<String>,
    arn: Option<String>,
}

// === impl Aws ===

impl Aws {
    pub fn build(name: &str, table: toml::Table, host: &HostFiles) -> Result<Arc<dyn Provider>, Faults> {
        let settings = AwsSettings::parse(name, table, host)?;
        let account = Account::new(settings, host.clone());
        Ok(Arc::new(Self { inner: Arc::new(Inner { account, refusals: Refusals::default(), read: Mutex::default() }) }))
    }
}

#[async_trait]
impl Provider for Aws {
    fn validate(&self, id: &SecretId) -> Result<(), String> {
        Target::of(id).map(drop)
    }

    async fn read(&self, id: &SecretId) -> Result<Secret, ProviderError> {
        self.inner.account.bounded(self.inner.read(id)).await
    }

    fn read_group(&self, id: &SecretId) -> Option<String> {
        self.inner.read_group(id)
    }

    async fn read_many(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Secret, ProviderError>> {
        Inner::read_many(&self.inner, ids).await
    }

    fn batch(&self, id: &SecretId) -> Option<String> {
        self.inner.batch(id)
    }

    async fn versions(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        Inner::versions(&self.inner, ids).await
    }

    fn identity(&self) -> String {
        self.inner.account.who()
    }

    async fn examine(&self) -> Vec<Finding> {
        let account = &self.inner.account;
        vec![match account.bounded(account.identity()).await {
            Ok(identity) => Finding::ok("identity", "", describe(&identity)),
            Err(error) => Finding::error("identity", "", error.to_string(), error.kind().advice()),
        }]
    }

    /// Credentials are renewed by who needs them: between version checks nobody does.
    async fn run(&self, _pushes: Pushes, cancel: CancellationToken) {
        cancel.cancelled().await
    }
}

// === impl Inner ===

impl Inner {
    async fn read(&self, id: &SecretId) -> Result<Secret, ProviderError> {
        let target = self.account.target(id)?;
        let asked = Asked { action: "GetSecretValue", target: &target };
        let answer = self.account.call(asked, |client| {
            let request = client.get_secret_value().secret_id(&target.id);
            match &target.want {
                Want::Current => request,
                Want::Stage(stage) => request.version_stage(stage),
                Want::Version(version) => request.version_id(version),
            }
            .send()
        });
        let answer = answer.await?;
        let told = Told {
            text: answer.secret_string,
            bytes: answer.secret_binary,
            version: answer.version_id,
            arn: answer.arn,
        };
        self.take(id, told, asked)
    }

    /// The secret of an answer, which is now the one that was read last.
    fn take(&self, id: &SecretId, told: Told, asked: Asked<'_>) -> Result<Secret, ProviderError> {
        let text = told.text.map(|text| SecretValue::from(Zeroizing::new(text)));
        let bytes = || told.bytes.map(|bytes| SecretValue::new(bytes.into_inner()));
        let (Some(value), Some(version)) = (text.or_else(bytes), told.version) else {
            return Err(self.account.malformed(asked));
        };
        let version = SecretVersion::new(version, told.arn.unwrap_or_default());
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), version.clone());
        Ok(Secret { version, value })
    }
}

/// What may be told of credentials: not the key's id, which is half of them.
fn describe(identity: &Credentials) -> String {
    let account = identity.account_id().map(|id| format!(" of account {}", id.as_str())).unwrap_or_default();
    let left = identity.expiry().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default().as_secs());
    match left {
        Some(left) => {
            let left = humantime::format_duration(Duration::from_secs(left));
            format!("the host has credentials{account}, good for {left}")
        }
        None => format!("the host has credentials{account} without an end, as from a file"),
    }
}
