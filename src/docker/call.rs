//! One call to the engine: its limit in time, and what a failure of it is called.

use super::RuntimeError;
use bollard::errors::Error;
use std::{future::Future, time::Duration};
use tokio::time::timeout;

/// What the engine is asked for.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// Completes "the engine refused to …".
    pub(super) doing: &'a str,
    /// Whom it is about.
    pub(super) container: Option<&'a str>,
    pub(super) limit: Duration,
}

// === impl Call ===

impl<'a> Call<'a> {
    pub(super) fn new(doing: &'a str, limit: Duration) -> Self {
        Self { doing, container: None, limit }
    }

    pub(super) fn of(container: &'a str, doing: &'a str, limit: Duration) -> Self {
        Self { doing, container: Some(container), limit }
    }

    pub(super) async fn run<T>(self, work: impl Future<Output = Result<T, Error>>) -> Result<T, RuntimeError> {
        match timeout(self.limit, work).await {
            Ok(done) => done.map_err(|error| RuntimeError::of(error, self.doing, self.container)),
            Err(_) => Err(RuntimeError::TimedOut { doing: self.doing.to_owned(), seconds: self.limit.as_secs() }),
        }
    }
}
