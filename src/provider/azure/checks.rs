//! Version checks, with as few calls as the policy allows, and without reading a value.
//!
//! Key Vault has no call that tells the current version of a secret alone. It has
//! - the list of a vault's secrets, 25 a page, which tells for each when its current version was made and changed, and
//!   not which it is;
//! - the list of one secret's versions, in no order, 25 a page;
//! - the read of a value.
//!
//! So many secrets of a vault are one list of it, where the policy allows that and the vault is not so large that asking
//! for each is cheaper. A secret whose times are those at which its version was known has that version still; of
//! the others, as of a lone secret, the versions are listed. One with more than four pages of them is read instead, and so
//! is one whose last two versions are of the same second, and all where the policy does not allow lists. What was refused
//! is remembered, so that a check stays one call, and tried again now and then, since policies change.
//!
//! A vault that throttles may never let a long list through. What was listed until it refused is an answer, and the next check
//! begins with the page that was refused: each secret has its turn.

use super::{
    Inner,
    attributes::{Marks, usable},
    failure::{self, Fault},
    lists::{End, Entry, Lines},
    target::Target,
};
use crate::{
    provider::{ErrorKind, Observed, ProviderError, each},
    secret::{SecretId, SecretVersion},
};
use azure_core::http::pager::{PagerContinuation, PagerOptions};
use azure_security_keyvault_secrets::{
    SecretClient,
    models::{SecretClientListSecretPropertiesOptions, SecretClientListSecretPropertiesVersionsOptions},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, MutexGuard, PoisonError},
    time::SystemTime,
};

/// The most that one page may have.
const PAGE: i32 = 25;
/// Of one secret's versions; then a read is cheaper.
const VERSION_PAGES: usize = 4;
/// Of a vault's secrets; then a check for each secret is as good, and none keeps the others from being told.
const LIST_PAGES: usize = 20;

/// A version that a secret was known to have, and what its vault said of it then.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub version: SecretVersion,
    pub marks: Marks,
}

/// What a vault's list tells of one secret.
enum Listed {
    /// It has the version still that it had.
    Same(SecretVersion),
    /// It may have another; these are its marks, if no change can hide behind them.
    Changed(Option<Marks>),
    Refused(Fault),
}

type Observation = Result<Observed, ProviderError>;

// === impl Inner ===

impl Inner {
    /// Secrets of one vault are one batch, unless it is known that one call cannot tell of them.
    pub(super) fn batch(&self, id: &SecretId) -> Option<String> {
        let target = Target::of(id, self.vaults.suffix()).ok()?;
        let list = list_call(&target);
        (self.vaults.lists() && target.version.is_none() && !self.refusals.has(&list)).then_some(list)
    }

    pub(super) async fn versions(this: &Arc<Self>, ids: &[Arc<SecretId>]) -> Vec<Observation> {
        let targets: Vec<_> = ids.iter().map(|id| this.vaults.target(id).ok()).collect();
        let nothing = Arc::new(HashMap::new());
        let Some(first) = targets.iter().flatten().next() else { return Self::one_by_one(this, ids, nothing).await };
        // A lone secret is cheaper to ask for by itself, since a vault may be large, unless that is forbidden.
        let alone = ids.len() == 1 && !this.refusals.has(&versions_call(first));
        if alone || ids.iter().any(|id| this.batch(id).is_none()) {
            return Self::one_by_one(this, ids, nothing).await;
        }
        let listed = match this.vaults.bounded(first, this.list(first, ids, &targets)).await {
            Ok(listed) => listed,
            // All of its pages are more than the time is for: each secret has that time for itself.
            Err(error) if error.kind() == ErrorKind::Timeout => {
                this.refusals.note(list_call(first));
                return Self::one_by_one(this, ids, nothing).await;
            }
            Err(error) => return ids.iter().map(|_| Err(error.clone())).collect(),
        };
        let (mut left, mut marks) = (Vec::new(), HashMap::new());
        let mut answers: Vec<Option<Observation>> = Vec::new();
        for ((id, target), listed) in ids.iter().zip(&targets).zip(listed) {
            let answer = match listed {
                Some(Listed::Same(version)) => Some(Ok(Observed::Version(version))),
                Some(Listed::Refused(fault)) => Some(Err(this.vaults.error(target.as_ref(), fault))),
                Some(Listed::Changed(told)) => {
                    marks.extend(told.map(|told| (Arc::clone(id), told)));
                    None
                }
                None => None,
            };
            if answer.is_none() {
                left.push(Arc::clone(id));
            }
            answers.push(answer);
        }
        let mut left = Self::one_by_one(this, &left, Arc::new(marks)).await.into_iter();
        answers
            .into_iter()
            .map(|answer| answer.or_else(|| left.next()).unwrap_or_else(|| Err(this.cut_short())))
            .collect()
    }

    /// What the vault's list tells of each of `ids`; `None` where it tells nothing.
    async fn list(
        &self,
        first: &Target,
        ids: &[Arc<SecretId>],
        targets: &[Option<Target>],
    ) -> Result<Vec<Option<Listed>>, ProviderError> {
        let wanted: HashSet<_> = targets.iter().flatten().map(|target| target.name.to_ascii_lowercase()).collect();
        let open = |client: &SecretClient, continuation| {
            let method_options = PagerOptions { continuation, ..Default::default() };
            let options = SecretClientListSecretPropertiesOptions { maxresults: Some(PAGE), method_options };
            client.list_secret_properties(Some(options))
        };
        let enough =
            |found: &[Entry]| found.iter().filter(|entry| wanted.contains(&entry.name)).count() >= wanted.len();
        // One that is asked for alone has one page, which is the first.
        let start = if ids.len() > 1 { self.cut().remove(&first.host) } else { None };
        // More pages than secrets are no gain.
        let pages = |start| self.vaults.pages(first, ids.len().min(LIST_PAGES), start, open, enough);
        let mut read = pages(start.clone()).await;
        if start.is_some() && read.as_ref().is_err_and(|error| error.kind() != ErrorKind::Forbidden) {
            // Where the last check ended is no place to begin any more.
            read = pages(None).await;
        }
        let (entries, end) = match read {
            Ok(Lines { found, end }) => (found, end),
            Err(error) if error.kind() == ErrorKind::Forbidden => (Vec::new(), End::More),
            Err(error) => return Err(error),
        };
        let cut = match end {
            End::Whole => None,
            End::More => {
                self.refusals.note(list_call(first));
                None
            }
            End::Cut(fault, page) => {
                page.and_then(|page| self.cut().insert(first.host.clone(), page));
                Some(fault)
            }
        };
        let entries: HashMap<_, _> = entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        let told = ids.iter().zip(targets).map(|(id, target)| {
            let target = target.as_ref()?;
            match entries.get(&target.name.to_ascii_lowercase()) {
                Some(entry) => Some(self.compare(id, target, entry)),
                None => cut.clone().map(Listed::Refused),
            }
        });
        Ok(told.collect())
    }

    fn cut(&self) -> MutexGuard<'_, HashMap<String, PagerContinuation>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compare(&self, id: &SecretId, target: &Target, entry: &Entry) -> Listed {
        if let Err(fault) = usable(entry.attributes.as_ref(), target, SystemTime::now()) {
            return Listed::Refused(fault);
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(id) {
            Some(known) if Some(known.marks) == entry.marks => Listed::Same(known.version.clone()),
            _ => Listed::Changed(entry.marks.filter(|_| entry.settled)),
        }
    }

    /// `marks` are what a list told of some of them a moment ago.
    async fn one_by_one(
        this: &Arc<Self>,
        ids: &[Arc<SecretId>],
        marks: Arc<HashMap<Arc<SecretId>, Marks>>,
    ) -> Vec<Observation> {
        let version = |id: Arc<SecretId>| {
            let (this, marks) = (Arc::clone(this), Arc::clone(&marks));
            async move {
                let target = this.vaults.target(&id)?;
                let (observed, of) = this.vaults.bounded(&target, this.version(&target)).await?;
                // Only where both speak of the same state.
                if let (Observed::Version(version), Some(marks)) = (&observed, marks.get(&id))
                    && of.as_ref() == Some(marks)
                {
                    this.know(&id, version.clone(), *marks);
                }
                Ok(observed)
            }
        };
        each::of(ids, version, || this.cut_short()).await
    }

    pub(super) fn know(&self, id: &SecretId, version: SecretVersion, marks: Marks) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Known { version, marks });
    }

    fn cut_short(&self) -> ProviderError {
        self.vaults.error(None, Fault::new(ErrorKind::Unavailable, "the check was cut short"))
    }

    /// The version of one secret by the list of all that it has, and that version's marks.
    async fn version(&self, target: &Target) -> Result<(Observed, Option<Marks>), ProviderError> {
        let (call, unversioned) = (versions_call(target), (Observed::Unversioned, None));
        if self.refusals.has(&call) {
            return Ok(unversioned);
        }
        let open = |client: &SecretClient, continuation| {
            let method_options = PagerOptions { continuation, ..Default::default() };
            let options = SecretClientListSecretPropertiesVersionsOptions { maxresults: Some(PAGE), method_options };
            client.list_secret_properties_versions(&target.name, Some(options))
        };
        let pinned = |entry: &Entry| target.version.is_some() && entry.version == target.version;
        let read = self.vaults.pages(target, VERSION_PAGES, None, open, |found| found.iter().any(pinned));
        let (entries, whole) = match read.await {
            Ok(Lines { end: End::Cut(fault, _), .. }) => return Err(self.vaults.error(Some(target), fault)),
            Ok(Lines { found, end }) => (found, matches!(end, End::Whole)),
            Err(error) if error.kind() == ErrorKind::Forbidden => {
                self.refusals.note(call);
                return Ok(unversioned);
            }
            Err(error) => return Err(error),
        };
        let refused = |fault| self.vaults.error(Some(target), fault);
        let missing = || refused(Fault::new(ErrorKind::NotFound, failure::missing(target)));
        let found = match &target.version {
            Some(_) => entries.iter().find(|entry| pinned(entry)),
            None if whole => latest(&entries),
            None => None,
        };
        match found {
            Some(entry) => {
                usable(entry.attributes.as_ref(), target, SystemTime::now()).map_err(refused)?;
                let version = SecretVersion::new(entry.version.as_deref().unwrap_or_default(), "");
                Ok((Observed::Version(version), entry.marks))
            }
            None if whole && (entries.is_empty() || target.version.is_some()) => Err(missing()),
            None => {
                // The next checks are one call, a read; a second later the versions may be told apart.
                if !whole {
                    self.refusals.note(call);
                }
                Ok(unversioned)
            }
        }
    }
}

/// The version that was made last, if that is one.
fn latest(entries: &[Entry]) -> Option<&Entry> {
    let made = |entry: &Entry| entry.marks.map(|marks| marks.created());
    let last = entries.iter().max_by_key(|entry| made(entry))?;
    let alone = entries.iter().filter(|entry| made(entry) == made(last)).count() == 1;
    (alone && last.marks.is_some() && last.version.is_some()).then_some(last)
}

fn list_call(target: &Target) -> String {
    format!("list {}", target.host)
}

fn versions_call(target: &Target) -> String {
    format!("versions {} {}", target.host, target.name.to_ascii_lowercase())
}
