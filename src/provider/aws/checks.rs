//! Version checks, with as few calls as the policy allows.
//!
//! The secrets of one region are one `ListSecrets`, where the policy allows it and the account is not so large that
//! asking for each is cheaper. A list may be some minutes behind: a change that it tells is confirmed by a
//! `DescribeSecret`, so that no older version is taken for a newer one. Otherwise each is one `DescribeSecret`; where that is forbidden too, the secret is
//! unversioned: it has to be read and compared. What was refused is remembered, so that a check stays one call, and
//! tried again now and then, since policies change.

use super::{
    Inner,
    failure::{self, Asked},
    target::{Target, Want},
};
use crate::{
    provider::{ErrorKind, Observed, ProviderError, each},
    secret::{SecretId, SecretVersion},
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

/// The most that one page may have.
const PAGE: i32 = 100;
/// Pages of one list; then a check for each secret is as good.
const PAGES: usize = 20;

/// What a list or a description tells of a secret's versions.
struct Described<'a> {
    arn: &'a str,
    deleted: bool,
    stages: Option<&'a HashMap<String, Vec<String>>>,
}

// === impl Inner ===

impl Inner {
    /// Secrets of one region are one batch, unless it is known that one call cannot tell their versions.
    pub(super) fn batch(&self, id: &SecretId) -> Option<String> {
        let target = Target::of(id).ok()?;
        let list = self.list_call(&target);
        (self.account.lists() && !self.refusals.has(&list)).then_some(list)
    }

    pub(super) async fn versions(this: &Arc<Self>, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        let targets: Vec<_> = ids.iter().map(|id| this.account.target(id)).collect();
        let Some(Ok(first)) = targets.iter().find(|target| target.is_ok()) else {
            return targets.into_iter().map(|target| target.map(|_| Observed::Unversioned)).collect();
        };
        // A lone secret is cheaper to ask for by itself, since an account may be large, unless that is forbidden.
        let alone = ids.len() == 1 && !this.refusals.has(&this.describe_call(first));
        if alone || !this.account.lists() || this.refusals.has(&this.list_call(first)) {
            return Self::one_by_one(this, ids).await;
        }
        let mut found = match this.account.bounded(this.list(first, &targets)).await {
            Ok(found) => found,
            // All of its pages are more than the time is for: each secret has that time for itself.
            Err(error) if error.kind() == ErrorKind::Timeout => {
                this.refusals.note(this.list_call(first));
                return Self::one_by_one(this, ids).await;
            }
            Err(error) => return ids.iter().map(|_| Err(error.clone())).collect(),
        };
        for (id, found) in ids.iter().zip(&mut found) {
            if matches!(found, Some(Ok(Observed::Version(version))) if this.contradicts(id, version)) {
                *found = None;
            }
        }
        let left: Vec<_> =
            ids.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(id, _)| Arc::clone(id)).collect();
        let mut left = Self::one_by_one(this, &left).await.into_iter();
        found.into_iter().map(|found| found.or_else(|| left.next()).unwrap_or_else(|| Err(this.cut_short()))).collect()
    }

    /// What a list tells of each of `targets`; `None` where it tells nothing, as of a secret that is new.
    async fn list(
        &self,
        first: &Target,
        targets: &[Result<Target, ProviderError>],
    ) -> Result<Vec<Option<Result<Observed, ProviderError>>>, ProviderError> {
        let mut found: Vec<_> = targets.iter().map(|_| None).collect();
        let asked = Asked { action: "ListSecrets", target: first };
        let mut token = None;
        // More pages than secrets are no gain.
        for _ in targets.iter().take(PAGES) {
            let page = self
                .account
                .call(asked, |client| client.list_secrets().max_results(PAGE).set_next_token(token.clone()).send());
            let page = match page.await {
                Ok(page) => page,
                Err(error) if error.kind() == ErrorKind::Forbidden => {
                    self.refusals.note(self.list_call(first));
                    return Ok(found);
                }
                Err(error) => return Err(error),
            };
            for entry in page.secret_list() {
                for (target, found) in targets.iter().zip(&mut found) {
                    let Ok(target) = target else { continue };
                    if target.is(entry.name(), entry.arn()) {
                        let (arn, deleted) = (entry.arn().unwrap_or_default(), entry.deleted_date().is_some());
                        let told = Described { arn, deleted, stages: entry.secret_versions_to_stages() };
                        *found = Some(self.observe(told, target));
                    }
                }
            }
            token = page.next_token;
            if token.is_none() || found.iter().all(Option::is_some) {
                return Ok(found);
            }
        }
        self.refusals.note(self.list_call(first));
        Ok(found)
    }

    async fn one_by_one(this: &Arc<Self>, ids: &[Arc<SecretId>]) -> Vec<Result<Observed, ProviderError>> {
        let version = |id: Arc<SecretId>| {
            let this = Arc::clone(this);
            async move { this.account.bounded(this.version(&id)).await }
        };
        each::of(ids, version, || this.cut_short()).await
    }

    pub(super) fn cut_short(&self) -> ProviderError {
        self.account.error(ErrorKind::Unavailable, None, "the call was cut short")
    }

    async fn version(&self, id: &SecretId) -> Result<Observed, ProviderError> {
        let target = self.account.target(id)?;
        let call = self.describe_call(&target);
        if self.refusals.has(&call) {
            return Ok(Observed::Unversioned);
        }
        let asked = Asked { action: "DescribeSecret", target: &target };
        match self.account.call(asked, |client| client.describe_secret().secret_id(&target.id).send()).await {
            Ok(told) => {
                let (arn, deleted) = (told.arn().unwrap_or_default(), told.deleted_date().is_some());
                self.observe(Described { arn, deleted, stages: told.version_ids_to_stages() }, &target)
            }
            Err(error) if error.kind() == ErrorKind::Forbidden => {
                self.refusals.note(call);
                Ok(Observed::Unversioned)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether another version was read last.
    fn contradicts(&self, id: &SecretId, version: &SecretVersion) -> bool {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.get(id).is_some_and(|read| read != version)
    }

    fn observe(&self, told: Described<'_>, target: &Target) -> Result<Observed, ProviderError> {
        let region = self.account.region(target);
        if told.deleted {
            let (kind, text) = failure::deleted(&target.id);
            return Err(self.account.error(kind, region, text));
        }
        // A version without a stage is in no list, and may be read all the same; what it is never changes.
        let version = match &target.want {
            Want::Version(version) => Some(version),
            want => told.stages.into_iter().flatten().find(|(_, stages)| has(stages, want.stage())).map(|(id, _)| id),
        };
        match version {
            Some(version) => Ok(Observed::Version(SecretVersion::new(version, told.arn))),
            None => {
                let text = failure::no_stage(&target.id, &target.want);
                Err(self.account.error(ErrorKind::NotFound, region, text))
            }
        }
    }

    fn list_call(&self, target: &Target) -> String {
        format!("list {}", self.account.region(target).unwrap_or_default())
    }

    fn describe_call(&self, target: &Target) -> String {
        format!("describe {} {}", self.account.region(target).unwrap_or_default(), target.id)
    }
}

fn has(stages: &[String], wanted: &str) -> bool {
    stages.iter().any(|stage| stage == wanted)
}
