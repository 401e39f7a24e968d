//! Who the host is: the identities that Azure gives tokens to.
//!
//! `azure_identity` has the exchange of an assertion for a token, and is used for it. Its managed identity is found by the
//! process's environment, which is the same for all instances and in the plugin has empty settings; its workload identity
//! reads the token's file once in ten minutes; its client certificate needs OpenSSL. So these are [`managed`]'s and
//! [`assertion`]'s.

mod assertion;
mod cli;
mod managed;

use super::{
    failure::{self, Fault},
    tokens::{Given, Source},
    transport::Only,
    trust::Trust,
};
use crate::{host::HostFiles, provider::ErrorKind};
use assertion::Assertion;
use async_trait::async_trait;
use azure_core::{
    cloud::CustomConfiguration,
    credentials::TokenCredential,
    http::{ClientOptions, Url},
    time::OffsetDateTime,
};
use azure_identity::{ClientAssertionCredential, ClientAssertionCredentialOptions};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use assertion::{Application, Proof};
pub use managed::{Header, Id, Managed, Place};

/// How the host proves itself, as it was configured.
pub enum Login {
    Managed(Managed),
    /// An application of a tenant, with a federated token or a certificate.
    Application(Application),
    /// What `az account get-access-token` wrote.
    Cli(PathBuf),
}

/// What may be told of a login.
pub struct LoginTold {
    pub who: String,
    /// Whether dso itself gets a new token before the old one ends.
    pub renewable: bool,
}

pub struct Identity {
    pub login: Login,
    /// Entra ID's address.
    pub authority: Url,
    pub trust: Arc<Trust>,
    pub host: HostFiles,
    pub timeout: Duration,
}

#[async_trait]
impl Source for Identity {
    async fn load(&self, scope: &str) -> Result<Given, Fault> {
        match &self.login {
            Login::Managed(managed) => managed.load(scope, &self.host, self.timeout).await,
            Login::Application(application) => self.exchange(application, scope).await,
            Login::Cli(file) => cli::read(file, &self.host),
        }
    }
}

// === impl Login ===

impl Login {
    pub fn told(&self) -> LoginTold {
        let who = match self {
            Self::Managed(managed) => managed.who(),
            Self::Application(application) => application.who(),
            Self::Cli(file) => format!("the Azure CLI's user, by {}", file.display()),
        };
        LoginTold { who, renewable: !matches!(self, Self::Cli(_)) }
    }
}

// === impl Identity ===

impl Identity {
    /// Made anew each time: the SDK's credential keeps what it got, and files may change.
    async fn exchange(&self, application: &Application, scope: &str) -> Result<Given, Fault> {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = self.authority.to_string();
        let client_options = ClientOptions {
            cloud: Some(Arc::new(cloud.into())),
            ..Only::authority(self.authority.clone(), Arc::clone(&self.trust))
        };
        let (tenant, client) = (application.tenant.clone(), application.client.clone());
        let assertion = Assertion::make(application, &self.authority, &self.host)?;
        let options = ClientAssertionCredentialOptions { client_options };
        let credential = ClientAssertionCredential::new(tenant, client, assertion, Some(options));
        let credential = credential.map_err(|_| {
            Fault::new(
                ErrorKind::Misconfigured,
                "no token can be asked for: check `auth.tenant_id` and `authority_host`",
            )
        })?;
        let given = credential.get_token(&[scope], None).await.map_err(|error| failure::of_entra(&error))?;
        let life = (given.expires_on - OffsetDateTime::now_utc()).try_into().unwrap_or_default();
        given_for(given.token.secret().to_owned(), life)
    }
}

/// A token, if it is one and lasts.
fn given_for(token: String, life: Duration) -> Result<Given, Fault> {
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || life.is_zero() {
        return Err(Fault::new(
            ErrorKind::Malformed,
            "whoever gives the host its token gave none, or one that has ended",
        ));
    }
    Ok(Given { token: token.into(), life })
}

/// How long it is until a moment that is told in seconds since 1970.
fn until(seconds: u64) -> Duration {
    Duration::from_secs(seconds).saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
