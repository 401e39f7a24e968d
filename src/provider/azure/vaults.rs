//! The way to Key Vault: the SDK's clients with the host's identity, one for each vault.

use super::{
    failure::{self, Asked, Fault},
    identity::{Identity, LoginTold},
    settings::AzureSettings,
    target::{NO_VERSION, Target},
    tokens::{Token, Tokens},
    transport::Only,
    trust::Trust,
};
use crate::{
    host::HostFiles,
    provider::{ErrorKind, ProviderError},
    secret::SecretId,
};
use azure_core::{credentials::TokenCredential, http::Url};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time;

/// The vaults that one instance reaches.
pub struct Vaults {
    name: String,
    suffix: String,
    timeout: Duration,
    list: bool,
    login: LoginTold,
    tokens: Arc<Tokens>,
    trust: Arc<Trust>,
    /// By host: the client, and the secret that was asked for first.
    clients: Mutex<HashMap<String, (Arc<SecretClient>, String)>>,
}

// === impl Vaults ===

impl Vaults {
    pub fn new(settings: AzureSettings, host: &HostFiles) -> Self {
        let AzureSettings { name, suffix, authority, private_endpoint, ca_file, timeout, list, login } = settings;
        let trust = |address| Arc::new(Trust::new(ca_file.clone(), timeout, address, host.clone()));
        let told = login.told();
        let identity = Identity { login, authority, trust: trust(None), host: host.clone(), timeout };
        let tokens = Arc::new(Tokens::new(Box::new(identity), timeout));
        let (trust, clients) = (trust(private_endpoint), Mutex::default());
        Self { name, suffix, timeout, list, login: told, tokens, trust, clients }
    }

    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// Whether the versions of many secrets may be asked for together.
    pub fn lists(&self) -> bool {
        self.list
    }

    pub fn login(&self) -> &LoginTold {
        &self.login
    }

    /// What vaults have asked tokens for; before one has, what those of this cloud ask for.
    pub fn scopes(&self) -> Vec<String> {
        let host = self.suffix.split(':').next().unwrap_or_default();
        let asked = self.tokens.scopes();
        if asked.is_empty() { vec![format!("https://{host}/.default")] } else { asked }
    }

    /// The token in use for a scope, or a new one.
    pub async fn token(&self, scope: &str) -> Result<Token, ProviderError> {
        self.tokens.told(scope).await.map_err(|fault| self.error(None, fault))
    }

    /// A secret of each vault that was asked for one, of a version that it has not.
    pub fn used(&self) -> Vec<Target> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let used = clients.iter().map(|(host, (_, name))| (host.clone(), name.clone()));
        let targets = used.map(|(host, name)| Target { host, name, version: Some(NO_VERSION.into()) });
        let mut targets: Vec<_> = targets.collect();
        targets.sort_by(|a, b| a.host.cmp(&b.host));
        targets
    }

    pub fn target(&self, id: &SecretId) -> Result<Target, ProviderError> {
        Target::of(id, &self.suffix).map_err(|text| self.error(None, Fault::new(ErrorKind::Misconfigured, text)))
    }

    /// An error of this instance.
    pub fn error(&self, target: Option<&Target>, fault: Fault) -> ProviderError {
        let vault = target.map(|target| format!(" ({})", target.host)).unwrap_or_default();
        ProviderError::new(fault.kind, format!("{}{vault}: {}", self.name, fault.text)).retry_after(fault.delay)
    }

    /// A whole operation takes no longer than one request may, whatever it has to do before.
    pub async fn bounded<T>(
        &self,
        target: &Target,
        work: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let late = |_| {
            let text = format!("no answer of {} in time: is it reachable from this host?", target.host);
            self.error(Some(target), Fault::new(ErrorKind::Timeout, text))
        };
        time::timeout(self.timeout, work).await.map_err(late)?
    }

    /// Makes a call with the host's identity; where its token proves dead, once more with a new one.
    pub async fn call<T, F>(&self, asked: Asked<'_>, send: impl Fn(Arc<SecretClient>) -> F) -> Result<T, ProviderError>
    where
        F: Future<Output = azure_core::Result<T>>,
    {
        let client = self.client(asked.target)?;
        let mut fault = match send(Arc::clone(&client)).await {
            Ok(answer) => return Ok(answer),
            Err(error) => failure::of_call(&error, asked),
        };
        if fault.kind == ErrorKind::Unauthenticated && self.tokens.refused() {
            fault = match send(client).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure::of_call(&error, asked),
            };
        }
        Err(self.error(Some(asked.target), fault))
    }

    fn client(&self, target: &Target) -> Result<Arc<SecretClient>, ProviderError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((client, _)) = clients.get(&target.host) {
            return Ok(Arc::clone(client));
        }
        let impossible = || {
            let text = format!("{} is no address: correct the vault's name", target.host);
            self.error(Some(target), Fault::new(ErrorKind::Misconfigured, text))
        };
        let address = format!("https://{}/", target.host);
        let origin = Url::parse(&address).map_err(|_| impossible())?;
        let options = SecretClientOptions {
            client_options: Only::vault(origin, target.host.clone(), Arc::clone(&self.trust)),
            // Without it, a vault could ask for a token of another service, and use it there.
            verify_challenge_resource: Some(true),
            ..SecretClientOptions::default()
        };
        let credential: Arc<dyn TokenCredential> = Arc::clone(&self.tokens) as _;
        let client = Arc::new(SecretClient::new(&address, credential, Some(options)).map_err(|_| impossible())?);
        clients.insert(target.host.clone(), (Arc::clone(&client), target.name.clone()));
        Ok(client)
    }
}
