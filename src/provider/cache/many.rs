//! Several secrets at once: read together where their provider has a call for that.
//!
//! A secret that somebody else asks for meanwhile is not asked for again: its outcome is waited for. So nobody who holds the
//! flight of one waits for that of another.

use super::{Cache, Entry};
use crate::{
    metrics::Served,
    provider::ProviderError,
    secret::{Secret, SecretId},
};
use futures_util::future::join_all;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::OwnedMutexGuard, task::JoinSet, time::Instant};

/// What was found of several secrets, and what was not.
#[derive(Debug, Default)]
pub struct Secrets {
    pub found: HashMap<Arc<SecretId>, Arc<Secret>>,
    pub failed: Vec<(Arc<SecretId>, ProviderError)>,
}

/// Which value of a secret is wanted.
#[derive(Clone, Copy)]
enum Wanted {
    /// As its provider has it now; what was confirmed within this is taken as it is.
    Confirmed(Duration),
    /// The newest that a check has told of.
    Newest,
    /// As its provider has it now, read in any case.
    Read,
}

type Outcome = (Arc<SecretId>, Result<Arc<Secret>, ProviderError>);

/// An entry, and the right to ask for it.
type Turn = (Arc<Entry>, OwnedMutexGuard<()>);

// === impl Cache ===

impl Cache {
    /// [`Cache::get`] for several; a failure of one does not keep the others from being found.
    pub async fn get_all(self: &Arc<Self>, ids: impl IntoIterator<Item = Arc<SecretId>>, fresh: Duration) -> Secrets {
        self.all(ids, Wanted::Confirmed(fresh)).await
    }

    /// [`Cache::current`] for several.
    pub async fn current_all(self: &Arc<Self>, ids: impl IntoIterator<Item = Arc<SecretId>>) -> Secrets {
        self.all(ids, Wanted::Newest).await
    }

    async fn all(self: &Arc<Self>, ids: impl IntoIterator<Item = Arc<SecretId>>, wanted: Wanted) -> Secrets {
        let mut reads = JoinSet::new();
        for lot in self.lots(ids) {
            let this = Arc::clone(self);
            reads.spawn(async move { this.together(&lot, wanted).await });
        }
        let mut secrets = Secrets::default();
        for (id, result) in reads.join_all().await.into_iter().flatten() {
            match result {
                Ok(secret) => drop(secrets.found.insert(id, secret)),
                Err(error) => secrets.failed.push((id, error)),
            }
        }
        secrets.failed.sort_by(|a, b| a.0.cmp(&b.0));
        secrets
    }

    /// Reads secrets that cannot be checked otherwise.
    pub(super) async fn read_anew(&self, ids: &[Arc<SecretId>]) {
        for lot in self.lots(ids.iter().cloned()) {
            self.together(&lot, Wanted::Read).await;
        }
    }

    /// Reads, where one call does it for several, what a check has found to be new. A lone one is left to who needs it.
    pub(super) async fn read_changed(&self, ids: &[Arc<SecretId>]) {
        for lot in self.lots(ids.iter().cloned()).iter().filter(|lot| lot.len() > 1) {
            self.together(lot, Wanted::Newest).await;
        }
    }

    /// What is read together.
    fn lots(&self, ids: impl IntoIterator<Item = Arc<SecretId>>) -> Vec<Vec<Arc<SecretId>>> {
        let (mut groups, mut lots) = (HashMap::<_, Vec<_>>::new(), Vec::new());
        let registry = self.registry();
        for id in ids {
            match registry.get(id.provider()).and_then(|provider| provider.read_group(&id)) {
                Some(group) => groups.entry((id.provider().to_owned(), group)).or_default().push(id),
                None => lots.push(vec![id]),
            }
        }
        lots.extend(groups.into_values());
        lots
    }

    async fn together(&self, lot: &[Arc<SecretId>], wanted: Wanted) -> Vec<Outcome> {
        if let [id] = lot {
            return vec![(id.clone(), self.one(id, wanted).await)];
        }
        let (mut done, mut turns, mut busy) = (Vec::new(), Vec::<Turn>::new(), Vec::new());
        for id in lot {
            let entry = self.entry(id);
            match Arc::clone(&entry.flight).try_lock_owned() {
                Ok(turn) => match entry.settled(wanted) {
                    Some(outcome) => done.push((id.clone(), outcome.map(|held| self.hit(held)))),
                    None => {
                        self.metrics.served(Served::Miss);
                        turns.push((entry, turn));
                    }
                },
                Err(_) => busy.push(id),
            }
        }
        let asked = join_all(turns.iter().map(|(entry, _)| self.confirmed_if(entry, wanted))).await;
        let mut read = Vec::new();
        for (turn, outcome) in turns.into_iter().zip(asked) {
            match outcome.transpose() {
                Some(outcome) => done.push((turn.0.id.clone(), turn.0.note(outcome))),
                None => read.push(turn),
            }
        }
        let ids: Vec<_> = read.iter().map(|(entry, _)| entry.id.clone()).collect();
        for ((entry, _turn), outcome) in read.into_iter().zip(self.read_lot(&ids).await) {
            done.push((entry.id.clone(), entry.note(outcome)));
        }
        let waited = busy.into_iter().map(async |id| (id.clone(), self.one(id, wanted).await));
        done.extend(join_all(waited).await);
        done
    }

    async fn one(&self, id: &Arc<SecretId>, wanted: Wanted) -> Result<Arc<Secret>, ProviderError> {
        match wanted {
            Wanted::Confirmed(fresh) => self.get(id, fresh).await,
            Wanted::Newest => self.current(id).await,
            Wanted::Read => {
                let entry = self.entry(id);
                let _flight = entry.flight.lock().await;
                entry.note(self.read(id).await)
            }
        }
    }

    async fn confirmed_if(&self, entry: &Entry, wanted: Wanted) -> Result<Option<Arc<Secret>>, ProviderError> {
        match wanted {
            Wanted::Confirmed(_) => self.confirmed(entry).await,
            Wanted::Newest | Wanted::Read => Ok(None),
        }
    }

    async fn read_lot(&self, ids: &[Arc<SecretId>]) -> Vec<Result<Arc<Secret>, ProviderError>> {
        let [first, _, ..] = ids else { return join_all(ids.iter().map(|id| self.read(id))).await };
        match self.provider(first) {
            Ok(provider) => {
                let began = Instant::now();
                let found = provider.read_many(ids).await;
                self.metrics.read(first.provider(), began.elapsed());
                let note = |error: &ProviderError| self.failed(first.provider(), error);
                found.into_iter().map(|found| Ok(self.versioned(found.inspect_err(note)?))).collect()
            }
            Err(error) => ids.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

// === impl Entry ===

impl Entry {
    /// What need not be asked for: it is known, or the server asked for a pause.
    fn settled(&self, wanted: Wanted) -> Option<Result<Arc<Secret>, ProviderError>> {
        let held = match wanted {
            Wanted::Confirmed(fresh) => self.newest_held(fresh),
            Wanted::Newest => self.newest_held(Duration::MAX),
            Wanted::Read => return None,
        };
        held.map(Ok).or_else(|| self.refuse_early_call().err().map(Err))
    }
}
