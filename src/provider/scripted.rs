//! A provider for unit tests: holds secrets in memory, counts calls, and fails when told to.

use super::{ErrorKind, Observed, Provider, ProviderError, Pushes};
use crate::{
    findings::Finding,
    secret::{Secret, SecretId, SecretValue, SecretVersion},
};
use async_trait::async_trait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub struct Scripted {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    secrets: HashMap<String, (String, Vec<u8>)>,
    /// By path and version, if older ones are kept.
    older: Option<HashMap<(String, String), Vec<u8>>>,
    failure: Option<ProviderError>,
    latency: Duration,
    versioned: bool,
    batched: bool,
    grouped: bool,
    /// How many secrets each call that read many was for.
    lots: Vec<usize>,
    panics: bool,
    failing_reads: Option<ProviderError>,
    reads: usize,
    checks: usize,
    findings: Vec<Finding>,
}

impl Scripted {
    pub fn versioned() -> Arc<Self> {
        let scripted = Self::default();
        scripted.state.lock().unwrap().versioned = true;
        Arc::new(scripted)
    }

    pub fn unversioned() -> Arc<Self> {
        Arc::default()
    }

    pub fn put(&self, path: &str, version: &str, value: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.secrets.insert(path.into(), (version.into(), value.into()));
        if let Some(older) = &mut state.older {
            older.insert((path.into(), version.into()), value.into());
        }
    }

    /// What is put from now on is there by its version for ever.
    pub fn keep_versions(&self) {
        self.state.lock().unwrap().older = Some(HashMap::new());
    }

    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().secrets.remove(path);
    }

    pub fn fail(&self, failure: Option<ProviderError>) {
        self.state.lock().unwrap().failure = failure;
    }

    /// What an examination is to find.
    pub fn finds(&self, finding: Finding) {
        self.state.lock().unwrap().findings.push(finding);
    }

    pub fn delay(&self, latency: Duration) {
        self.state.lock().unwrap().latency = latency;
    }

    pub fn batch_all(&self) {
        self.state.lock().unwrap().batched = true;
    }

    /// The server turns out to have no call for a whole batch.
    pub fn batch_none(&self) {
        self.state.lock().unwrap().batched = false;
    }

    /// One call reads any number of secrets from now on.
    pub fn group_all(&self) {
        self.state.lock().unwrap().grouped = true;
    }

    /// How many secrets each call that read many was for, since the last call of this.
    pub fn lots(&self) -> Vec<usize> {
        std::mem::take(&mut self.state.lock().unwrap().lots)
    }

    /// The next call ends in a panic.
    pub fn panic_once(&self) {
        self.state.lock().unwrap().panics = true;
    }

    /// Lets reads fail, and checks succeed.
    pub fn fail_reads(&self, failure: Option<ProviderError>) {
        self.state.lock().unwrap().failing_reads = failure;
    }

    /// Reads and checks since the last call of this.
    pub fn calls(&self) -> (usize, usize) {
        let mut state = self.state.lock().unwrap();
        (std::mem::take(&mut state.reads), std::mem::take(&mut state.checks))
    }

    async fn answer(&self, count: impl Fn(&mut State)) -> Result<(), ProviderError> {
        let (latency, failure) = {
            let mut state = self.state.lock().unwrap();
            count(&mut state);
            let panics = std::mem::take(&mut state.panics);
            if panics {
                drop(state);
                panic!("as the test asked for");
            }
            (state.latency, state.failure.clone())
        };
        tokio::time::sleep(latency).await;
        failure.map_or(Ok(()), Err)
    }

    fn read_now(&self, id: &SecretId) -> Result<Secret, ProviderError> {
        let failure = self.state.lock().unwrap().failing_reads.clone();
        failure.map_or(Ok(()), Err)?;
        let (version, value) = self.find(id)?;
        let version = if self.state.lock().unwrap().versioned { version } else { String::new() };
        Ok(Secret { version: SecretVersion::new(version, ""), value: SecretValue::new(value) })
    }

    fn find(&self, id: &SecretId) -> Result<(String, Vec<u8>), ProviderError> {
        let state = self.state.lock().unwrap();
        let found = match (&state.older, id.param("version")) {
            (Some(older), Some(version)) => {
                let found = older.get(&(id.path().to_owned(), version.to_owned()));
                found.map(|value| (version.to_owned(), value.clone()))
            }
            _ => state.secrets.get(id.path()).cloned(),
        };
        found.ok_or_else(|| ProviderError::new(ErrorKind::NotFound, format!("there is no `{id}`")))
    }
}

#[async_trait]
impl Provider for Scripted {
    fn validate(&self, _: &SecretId) -> Result<(), String> {
        Ok(())
    }

    async fn read(&self, id: &SecretId) -> Result<Secret, ProviderError> {
        self.answer(|state| state.reads += 1).await?;
        self.read_now(id)
    }

    fn read_group(&self, _: &SecretId) -> Option<String> {
        self.state.lock().unwrap().grouped.then(|| "all".into())
    }

    async fn read_many(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Secret, ProviderError>> {
        let answer = self.answer(|state| state.lots.push(ids.len())).await;
        ids.iter().map(|id| answer.clone().and_then(|()| self.read_now(id))).collect()
    }

    fn identity(&self) -> String {
        "a script".into()
    }

    fn batch(&self, _: &SecretId) -> Option<String> {
        self.state.lock().unwrap().batched.then(|| "all".into())
    }

    async fn versions(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        if !self.state.lock().unwrap().versioned {
            return ids.iter().map(|_| Ok(Observed::Unversioned)).collect();
        }
        let answer = self.answer(|state| state.checks += 1).await;
        let version = |(version, _)| Observed::Version(SecretVersion::new(version, ""));
        ids.iter().map(|id| answer.clone().and_then(|()| self.find(id).map(version))).collect()
    }

    async fn examine(&self) -> Vec<Finding> {
        self.state.lock().unwrap().findings.clone()
    }

    async fn run(&self, _: Pushes, cancel: CancellationToken) {
        cancel.cancelled().await;
    }
}
