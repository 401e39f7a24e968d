//! Secret providers: what dso asks of one, and which there are.
//!
//! A provider is one file that implements [`Provider`] and one line in [`registry`]. Single flight,
//! caching, back-off and the rules of provider traffic are the seam's ([`cache`]), not the providers'.

pub mod aws;
pub mod azure;
mod buffer;
pub mod cache;
mod each;
pub mod error;
mod files;
mod limits;
pub mod local;
mod refusals;
pub mod registry;
#[cfg(test)]
pub mod scripted;
mod trust;
pub mod vault;

use crate::{
    findings::Finding,
    secret::{Secret, SecretId, SecretVersion},
};
use async_trait::async_trait;
use futures_util::future::join_all;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use cache::Cache;
pub use error::{ErrorKind, ProviderError};
pub use registry::Registry;

/// What a version check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    Version(SecretVersion),
    /// The provider cannot tell without reading the value: the policy forbids metadata, or there are no versions.
    Unversioned,
}

/// Where a provider tells of changes that it learns of by itself; the item is its instance name.
pub type Pushes = mpsc::UnboundedSender<String>;

/// A place that holds secrets.
///
/// # Guarantees that the callers rely on
/// - Every call ends by itself: an implementation has its own time limits (5 s to connect, 10 s in all).
/// - A call that is dropped leaves nothing behind that another would trip over.
/// - No error, log line or `Debug` holds a value, a token or what a server echoed of them.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Faults of a reference that show without asking the server: an unknown parameter, an impossible path.
    fn validate(&self, id: &SecretId) -> Result<(), String>;

    /// Reads a whole secret. A secret without versions of its own gets one from [`Secret::version`]'s
    /// maker, the cache: return an empty label.
    async fn read(&self, id: &SecretId) -> Result<Secret, ProviderError>;

    /// The name of a group of secrets that [`Provider::read_many`] reads with fewer calls than one for each; `None` where that
    /// would be no gain. May change as [`Provider::batch`] does.
    fn read_group(&self, _id: &SecretId) -> Option<String> {
        None
    }

    /// Reads each of `ids`, all of one group; the outcomes are in their order, and one secret's fault is its own.
    async fn read_many(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Secret, ProviderError>> {
        join_all(ids.iter().map(|id| self.read(id))).await
    }

    /// The name of a group of secrets whose versions one call of [`Provider::versions`] can tell, or
    /// `None` where each has to be asked for alone. May change while the provider learns what its server can do.
    fn batch(&self, id: &SecretId) -> Option<String>;

    /// The current version of each of `ids`, in their order; all are of one batch.
    async fn versions(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>>;

    /// Whom it reads as, in a few words for a record: what its settings say, asking nobody.
    fn identity(&self) -> String;

    /// Looks at what it needs to do its work: the server, the identity in force, the clock. Whether each secret may be
    /// read is not asked here. Subjects are left empty.
    async fn examine(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// What the provider does beside answering, until `cancel`: renew a token, watch a file.
    async fn run(&self, pushes: Pushes, cancel: CancellationToken);
}
