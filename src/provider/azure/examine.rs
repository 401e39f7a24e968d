//! What `docker dso doctor` is told of Azure: who the host is there and for how long, and what it may do in each vault that was
//! asked for something.
//!
//! No value is asked for: whether secrets may be read is seen by the answer to a version that no secret has.

use super::{
    Inner,
    failure::Asked,
    target::{NO_VERSION, Target},
};
use crate::{
    findings::{Finding, Level},
    provider::{ErrorKind, ProviderError},
};
use azure_security_keyvault_secrets::{
    SecretClient,
    models::{SecretClientGetSecretOptions, SecretClientListSecretPropertiesOptions},
};
use futures_util::{TryStreamExt, future::join_all};
use std::{sync::Arc, time::Duration};

/// A person is told of the end of what dso cannot renew when it is this near.
const SOON: Duration = Duration::from_secs(3600);

impl Inner {
    pub(super) async fn examine(&self) -> Vec<Finding> {
        let mut findings = join_all(self.vaults.scopes().iter().map(|scope| self.identity(scope))).await;
        // Without a token, each vault would say the same again.
        if findings.iter().all(|finding| finding.level != Level::Error) {
            let used = self.vaults.used();
            findings.extend(join_all(used.iter().map(|target| self.vault(target))).await.into_iter().flatten());
        }
        findings
    }

    async fn identity(&self, scope: &str) -> Finding {
        let login = self.vaults.login();
        let told = match self.vaults.token(scope).await {
            Ok(told) => told,
            Err(error) => return failed("identity", &error),
        };
        let message = format!("{}; its token: {} old, ends in {}", login.who, shown(told.age), shown(told.left));
        if let Some(fault) = told.failing {
            let message = format!("{message}, and no new one is given: {}", fault.text);
            return Finding::warning("identity", "", message, fault.kind.advice());
        }
        if !login.renewable && told.left < SOON {
            return Finding::warning("identity", "", message, "put a new token into the file before it ends");
        }
        Finding::ok("identity", "", message)
    }

    /// A vault, by a secret of it.
    async fn vault(&self, target: &Target) -> Vec<Finding> {
        let host = &target.host;
        let read = match self.vaults.bounded(target, self.may_get(target)).await {
            Ok(()) => Finding::ok("policy", "", format!("{} of {host} may be read", target.name)),
            Err(error) if error.kind() == ErrorKind::Forbidden => failed("policy", &error),
            Err(error) => return vec![failed("provider", &error)],
        };
        let mut findings = vec![Finding::ok("provider", "", format!("{host} answers")), read];
        if self.vaults.lists() {
            findings.push(match self.vaults.bounded(target, self.may_list(target)).await {
                Ok(()) => Finding::ok("policy", "", format!("the secrets of {host} may be listed")),
                Err(error) if error.kind() == ErrorKind::Forbidden => Finding::warning(
                    "policy",
                    "",
                    format!("the secrets of {host} may not be listed: each is asked for its version by itself"),
                    "give the role \"Key Vault Secrets User\" on the vault, or the permission `list`; or set `list = false`",
                ),
                Err(error) => failed("provider", &error),
            });
        }
        findings
    }

    async fn may_get(&self, target: &Target) -> Result<(), ProviderError> {
        let asked = Asked { permission: "get", target };
        let options = || SecretClientGetSecretOptions { secret_version: Some(NO_VERSION.into()), ..Default::default() };
        let get =
            |client: Arc<SecretClient>| async move { client.get_secret(&target.name, Some(options())).await.map(drop) };
        match self.vaults.call(asked, get).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            told => told,
        }
    }

    async fn may_list(&self, target: &Target) -> Result<(), ProviderError> {
        let asked = Asked { permission: "list", target };
        let options = || SecretClientListSecretPropertiesOptions { maxresults: Some(1), ..Default::default() };
        let list = |client: Arc<SecretClient>| async move {
            client.list_secret_properties(Some(options()))?.into_pages().try_next().await.map(drop)
        };
        self.vaults.call(asked, list).await
    }
}

fn failed(check: &str, error: &ProviderError) -> Finding {
    Finding::error(check, "", error.to_string(), error.kind().advice())
}

fn shown(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}
