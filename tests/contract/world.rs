//! What an adapter gives the contract's cases: a server with secrets, instances of the provider, and faults.

use dso::{
    provider::{ErrorKind, Observed, Provider, ProviderError},
    secret::{Secret, SecretId, SecretVersion},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// How long an instance's calls may take, where a case does not wait for that to pass.
pub const PATIENT: Duration = Duration::from_secs(20);

/// What happens on the wire to the next read of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Too many requests: come again in seven seconds.
    Throttled,
    /// The answer, but not before [`World::release`].
    Held,
    /// No answer, as long as the client waits.
    Hang,
    /// Half of the answer, then the end of the connection.
    Cut,
    /// The server's side of the connection ends as soon as a request is there.
    HalfClosed,
}

/// A provider with its server. Names that are given to it have lower-case letters, digits and `-` only, but for [`World::NAMES`].
///
/// Where a server cannot do a thing, the adapter says what its publisher promises instead; no case is left out.
pub trait World: Sized {
    /// The oddest names that the provider takes.
    const NAMES: &[&str];
    /// Whether names may have letters of any script.
    const UNICODE: bool;
    /// The largest value that the provider takes, where that is less than 64 KiB.
    const LARGEST: usize = 64 << 10;
    /// Whether a check tells the version of a secret that has ten thousand. Where it does not, a read does, and the next check
    /// tells it again.
    const TELLS_AMONG_MANY: bool = true;

    async fn start() -> Self;

    fn instance(&self, timeout: Duration) -> Arc<dyn Provider>;

    fn reference(&self, name: &str) -> String;

    /// Writes a new version of a secret that has these fields.
    async fn put(&self, name: &str, fields: &Value);

    /// Writes a binary value, in the way that the provider has for it; what a read gives.
    async fn put_binary(&self, name: &str, bytes: &[u8]) -> Vec<u8>;

    /// Makes a secret with nothing in it; what a read gives, or how it fails.
    async fn put_empty(&self, name: &str) -> Result<Vec<u8>, ErrorKind>;

    /// Gives the secret so many versions, the last of which has these fields.
    async fn put_versions(&self, name: &str, count: usize, fields: &Value);

    /// Removes the secret for good.
    async fn remove(&self, name: &str);

    /// Lets nobody read the secret any more, but others; how a read fails.
    async fn forbid(&self, name: &str) -> ErrorKind;

    /// How many reads of a value the server has seen.
    fn reads(&self) -> usize;

    /// Plans a fault for the next read of a value; `false` where there is no wire, and then [`World::without_wire`] says what
    /// holds instead.
    fn fail(&self, fault: Fault) -> bool;

    /// Lets the answer go that is held.
    fn release(&self);

    /// An instance that finds its server at another address.
    fn instance_at(&self, address: &str, timeout: Duration) -> Arc<dyn Provider>;

    /// Asserts what holds in place of a fault that there cannot be; `name` is a secret that can be read.
    async fn without_wire(&self, fault: Fault, _name: &str) {
        panic!("{fault:?} is a fault that this server can have");
    }

    /// A text that may be in no error and no log line.
    fn canary(&self) -> String;

    /// No canary and nothing of the host's identity is in the error.
    fn is_silent(&self, error: &ProviderError) -> bool;

    fn id(&self, name: &str) -> Arc<SecretId> {
        Arc::new(self.reference(name).parse().unwrap())
    }

    async fn read(&self, provider: &dyn Provider, name: &str) -> Secret {
        provider.read(&self.id(name)).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A read that must fail.
    async fn refused(&self, provider: &dyn Provider, name: &str) -> ProviderError {
        let error = provider.read(&self.id(name)).await.expect_err(name);
        assert!(self.is_silent(&error), "a secret is in an error");
        error
    }

    /// The version that a check of this secret alone tells.
    async fn version(&self, provider: &dyn Provider, name: &str) -> SecretVersion {
        version_of(provider.versions(&[self.id(name)]).await.remove(0))
    }
}

#[track_caller]
pub fn version_of(observed: Result<Observed, ProviderError>) -> SecretVersion {
    match observed.unwrap() {
        Observed::Version(version) => version,
        Observed::Unversioned => panic!("unversioned"),
    }
}

#[track_caller]
pub fn json_of(secret: &Secret) -> Value {
    serde_json::from_slice(secret.value.expose()).expect("JSON")
}
