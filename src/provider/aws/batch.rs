//! Reads many secrets, with as few calls as the policy allows.
//!
//! `BatchGetSecretValue` reads up to twenty secrets of a region, each as it is now. What it does not tell (a secret with a fault
//! of its own, or one too many for the answer's size) is read by itself, and so is each where the policy forbids the batch or an
//! endpoint does not know it: that is remembered, and tried again now and then.

use super::{
    Inner, Told,
    failure::Asked,
    target::{Target, Want},
};
use crate::{
    provider::{ErrorKind, ProviderError, each},
    secret::{Secret, SecretId},
};
use std::sync::Arc;

/// The most that one call may ask for.
const LOT: usize = 20;

// === impl Inner ===

impl Inner {
    /// Secrets of one region are one group, but for those of which a version is named: a batch reads the current one.
    pub(super) fn read_group(&self, id: &SecretId) -> Option<String> {
        let target = Target::of(id).ok().filter(|target| target.want == Want::Current)?;
        let call = self.batch_call(&target);
        (!self.refusals.has(&call)).then_some(call)
    }

    pub(super) async fn read_many(this: &Arc<Self>, ids: &[Arc<SecretId>]) -> Vec<Result<Secret, ProviderError>> {
        let lots: Vec<_> = ids.chunks(LOT).map(<[_]>::to_vec).collect();
        let read = |lot: Vec<Arc<SecretId>>| {
            let this = Arc::clone(this);
            async move { this.account.bounded(this.read_lot(&lot)).await }
        };
        let found = each::of(&lots, read, || this.cut_short()).await;
        let mut found: Vec<_> = lots.iter().zip(found).flat_map(|(lot, found)| of_each(lot, found)).collect();
        let left: Vec<_> =
            ids.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(id, _)| id.clone()).collect();
        let alone = |id: Arc<SecretId>| {
            let this = Arc::clone(this);
            async move { this.account.bounded(this.read(&id)).await }
        };
        let mut left = each::of(&left, alone, || this.cut_short()).await.into_iter();
        found.drain(..).map(|found| found.or_else(|| left.next()).unwrap_or_else(|| Err(this.cut_short()))).collect()
    }

    /// What one call tells of each secret; `None` of those that have to be read by themselves.
    async fn read_lot(&self, lot: &[Arc<SecretId>]) -> Result<Found, ProviderError> {
        let mut found: Vec<_> = lot.iter().map(|_| None).collect();
        let targets: Vec<_> = lot.iter().map(|id| self.account.target(id).ok()).collect();
        let Some(first) = targets.iter().flatten().next().filter(|_| lot.len() > 1) else { return Ok(found) };
        let call = self.batch_call(first);
        if self.refusals.has(&call) {
            return Ok(found);
        }
        let asked = Asked { action: "BatchGetSecretValue", target: first };
        let names: Vec<_> = targets.iter().flatten().map(|target| target.id.clone()).collect();
        let answer = self
            .account
            .call(asked, |client| client.batch_get_secret_value().set_secret_id_list(Some(names.clone())).send());
        let entries = match answer.await {
            Ok(answer) => answer.secret_values.unwrap_or_default(),
            // A name that AWS does not take may spoil the whole call: then each tells by itself.
            Err(error) if error.kind() == ErrorKind::Misconfigured => return Ok(found),
            Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Malformed) => {
                self.refusals.note(call);
                return Ok(found);
            }
            Err(error) => return Err(error),
        };
        for entry in entries {
            let place = targets.iter().zip(&found).position(|(target, found)| {
                found.is_none() && target.as_ref().is_some_and(|target| target.is(entry.name(), entry.arn()))
            });
            let Some((n, target)) = place.and_then(|n| Some((n, targets[n].as_ref()?))) else { continue };
            let told = Told {
                text: entry.secret_string,
                bytes: entry.secret_binary,
                version: entry.version_id,
                arn: entry.arn,
            };
            found[n] = Some(self.take(&lot[n], told, Asked { target, ..asked }));
        }
        Ok(found)
    }

    fn batch_call(&self, target: &Target) -> String {
        format!("batch {}", self.account.region(target).unwrap_or_default())
    }
}

type Found = Vec<Option<Result<Secret, ProviderError>>>;

/// A lot that failed as a whole has failed for each of its secrets.
fn of_each(lot: &[Arc<SecretId>], found: Result<Found, ProviderError>) -> Found {
    found.unwrap_or_else(|error| lot.iter().map(|_| Some(Err(error.clone()))).collect())
}
