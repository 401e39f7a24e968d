//! The way to AWS: the SDK's configuration with the host's identity, and a client for each region.

use super::{
    credentials::{Kept, Lent},
    failure::{self, Asked},
    settings::AwsSettings,
    target::Target,
    trust,
};
use crate::{
    host::HostFiles,
    provider::{ErrorKind, ProviderError, files::Stamp, limits},
    secret::SecretId,
};
use aws_config::{
    BehaviorVersion, Region, SdkConfig, retry::RetryConfig, sts::AssumeRoleProvider, timeout::TimeoutConfig,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_secretsmanager::{
    Client,
    config::IdentityCache,
    error::{ProvideErrorMetadata, SdkError},
};
use std::{
    collections::HashMap,
    error::Error,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{self, Instant},
};

const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// One instance's account at AWS.
pub struct Account {
    settings: AwsSettings,
    host: HostFiles,
    opened: AsyncMutex<Option<(Vec<Stamp>, Arc<Opened>)>>,
}

/// The SDK, ready to be called.
struct Opened {
    config: SdkConfig,
    credentials: Arc<Kept>,
    clients: Mutex<HashMap<Region, Client>>,
    /// A region that the instance's metadata did not tell may be told later.
    look_again: Option<Instant>,
}

// === impl Account ===

impl Account {
    pub fn new(settings: AwsSettings, host: HostFiles) -> Self {
        Self { settings, host, opened: AsyncMutex::default() }
    }

    /// Whom the settings name.
    pub fn who(&self) -> String {
        self.settings.who()
    }

    /// Which region a secret is in, if that is known without asking anyone.
    pub fn region<'a>(&'a self, target: &'a Target) -> Option<&'a str> {
        target.region.as_deref().or(self.settings.region.as_deref())
    }

    /// Whether the versions of many secrets may be asked for together.
    pub fn lists(&self) -> bool {
        self.settings.list
    }

    pub fn target(&self, id: &SecretId) -> Result<Target, ProviderError> {
        Target::of(id).map_err(|fault| self.error(ErrorKind::Misconfigured, None, fault))
    }

    /// An error of this instance.
    pub fn error(&self, kind: ErrorKind, region: Option<&str>, text: impl AsRef<str>) -> ProviderError {
        let region = region.map(|region| format!(" ({region})")).unwrap_or_default();
        ProviderError::new(kind, format!("{}{region}: {}", self.settings.name, text.as_ref()))
    }

    pub fn malformed(&self, asked: Asked<'_>) -> ProviderError {
        let text =
            format!("the answer to {} for {} is not what AWS answers: check `endpoint`", asked.action, asked.target.id);
        self.error(ErrorKind::Malformed, self.region(asked.target), text)
    }

    /// A whole operation takes no longer than one request may, whatever it has to do before.
    pub async fn bounded<T>(&self, work: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
        let late = |_| {
            let text = "no answer in time: is the endpoint reachable from this host?";
            self.error(ErrorKind::Timeout, self.settings.region.as_deref(), text)
        };
        time::timeout(self.settings.timeout, work).await.map_err(late)?
    }

    /// Makes a call with the host's identity; where that proves dead, once more with a new one.
    pub async fn call<T, E, F>(&self, asked: Asked<'_>, send: impl Fn(Client) -> F) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let opened = self.open().await?;
        let (client, region) = self.client(&opened, asked.target)?;
        let error = |(kind, text): (ErrorKind, String)| self.error(kind, Some(&region), text);
        for last in [false, true] {
            let lent = opened.credentials.get().await;
            let lent = lent.map_err(|why| error(failure::of_credentials(&why, self.settings.role.is_some())))?;
            match send(client.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(why) => {
                    let (kind, text) = failure::of_answer(&why, asked);
                    if kind == ErrorKind::Unauthenticated && !last && opened.credentials.refused(&lent) {
                        continue;
                    }
                    return Err(error((kind, text)).retry_after(failure::retry_after(&why)));
                }
            }
        }
        Err(error((ErrorKind::Unauthenticated, "AWS refuses the host's credentials".into())))
    }

    /// The files of the host that the identity may come from.
    pub fn files(&self) -> Vec<PathBuf> {
        self.settings.profile_files(&self.host)
    }

    /// The host's identity, for whoever signs something else with it than a call of this account.
    pub async fn identity(&self) -> Result<Credentials, ProviderError> {
        let opened = self.open().await?;
        let (role, region) = (self.settings.role.is_some(), self.settings.region.as_deref());
        let error = |(kind, text): (ErrorKind, String)| self.error(kind, region, text);
        opened.credentials.get().await.map_err(|why| error(failure::of_credentials(&why, role)))
    }

    fn client(&self, opened: &Opened, target: &Target) -> Result<(Client, String), ProviderError> {
        let region = target.region.clone().map(Region::new).or_else(|| opened.config.region().cloned());
        let Some(region) = region else {
            let text = "the region is not known: set `region` (or AWS_REGION), or add `?region=` to the reference";
            return Err(self.error(ErrorKind::Misconfigured, None, text));
        };
        let mut clients = opened.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(region.clone()).or_insert_with(|| {
            let config = aws_sdk_secretsmanager::config::Builder::from(&opened.config).region(region.clone());
            Client::from_conf(config.build())
        });
        Ok((client.clone(), region.to_string()))
    }

    /// Sets up the SDK at the first use, and again when a file that it has read is another.
    async fn open(&self) -> Result<Arc<Opened>, ProviderError> {
        let fault = |(kind, text): trust::Fault| self.error(kind, self.settings.region.as_deref(), text);
        let bundle = trust::bundle(self.settings.ca_file.as_deref(), &self.host).map_err(fault)?;
        let files = self.settings.profile_files(&self.host).into_iter().chain(bundle.clone());
        let stamps: Vec<_> = files.map(|file| Stamp::of(&file)).collect();
        let mut opened = self.opened.lock().await;
        if let Some((of, opened)) = &*opened
            && *of == stamps
            && opened.look_again.is_none_or(|time| Instant::now() < time)
        {
            return Ok(Arc::clone(opened));
        }
        let http = trust::client(bundle.as_deref(), self.settings.ca_file.as_deref()).map_err(fault)?;
        let environment =
            self.settings.environment(&self.host).map_err(|why| fault((ErrorKind::Misconfigured, why)))?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .env(environment.into())
            .http_client(http)
            .identity_cache(IdentityCache::no_cache())
            .timeout_config(self.limits())
            // The seam tries again, and knows for how many secrets.
            .retry_config(RetryConfig::disabled());
        if let Some(region) = &self.settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let base = loader.load().await;
        let Some(source) = self.source(&base).await else {
            return Err(fault((ErrorKind::Misconfigured, "the SDK has no chain of credentials".into())));
        };
        let credentials = Arc::new(Kept::new(source, self.settings.timeout));
        let lent = SharedCredentialsProvider::new(Lent(Arc::clone(&credentials)));
        let config = base.into_builder().credentials_provider(lent).build();
        let look_again = config.region().is_none().then(|| Instant::now() + LOOK_AGAIN);
        let made = Arc::new(Opened { config, credentials, clients: Mutex::default(), look_again });
        *opened = Some((stamps, Arc::clone(&made)));
        Ok(made)
    }

    async fn source(&self, base: &SdkConfig) -> Option<SharedCredentialsProvider> {
        let Some(role) = &self.settings.role else { return base.credentials_provider() };
        let mut assume = AssumeRoleProvider::builder(&role.arn).session_name(&role.session_name).configure(base);
        if let Some(id) = &role.external_id {
            assume = assume.external_id(id);
        }
        Some(SharedCredentialsProvider::new(assume.build().await))
    }

    fn limits(&self) -> TimeoutConfig {
        let timeout = self.settings.timeout;
        TimeoutConfig::builder().connect_timeout(timeout.min(limits::CONNECT)).operation_timeout(timeout).build()
    }
}
