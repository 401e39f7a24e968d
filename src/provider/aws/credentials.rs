//! The host's identity: what the SDK's chain found, kept until shortly before its end.
//!
//! # Guarantees
//! - One load at a time, however many ask. While the old credentials last, nobody but the one who loads waits for new ones.
//! - Credentials are renewed ahead of their end; a renewal that fails leaves the old ones in use until then.
//! - Loads that fail are some time apart: 1 s, then up to 30 s.

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{self, Instant},
};

/// How long before their end credentials are renewed, unless they live for less than three times that: AWS has new
/// ones of an instance or a container ready five minutes ahead.
const AHEAD: Duration = Duration::from_secs(300);
/// Credentials without an end come from a file, which may change.
const ENDLESS: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a source of credentials gave last.
#[derive(Debug)]
pub struct Kept {
    source: SharedCredentialsProvider,
    timeout: Duration,
    state: Mutex<State>,
    /// Held by the one who loads.
    flight: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    failed: Option<Failed>,
}

#[derive(Clone, Debug)]
struct Held {
    credentials: Credentials,
    loaded: Instant,
    renew: Instant,
    ends: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Failed {
    error: Arc<CredentialsError>,
    pause: Duration,
    until: Instant,
}

/// [`Kept`] as the SDK's clients ask for credentials.
#[derive(Clone, Debug)]
pub struct Lent(pub Arc<Kept>);

// === impl Kept ===

impl Kept {
    pub fn new(source: SharedCredentialsProvider, timeout: Duration) -> Self {
        Self { source, timeout, state: Mutex::default(), flight: AsyncMutex::default() }
    }

    pub async fn get(&self) -> Result<Credentials, Arc<CredentialsError>> {
        let held = match self.held() {
            Some((held, true)) => return Ok(held),
            held => held.map(|(held, _)| held),
        };
        let _flight = match (self.flight.try_lock(), held) {
            (Ok(flight), _) => flight,
            (Err(_), Some(held)) => return Ok(held),
            (Err(_), None) => self.flight.lock().await,
        };
        if let Some((held, true)) = self.held() {
            return Ok(held);
        }
        self.refuse_early_load()?;
        self.load().await
    }

    /// AWS does not take these: the next to ask loads new ones, unless these are so.
    pub fn refused(&self, credentials: &Credentials) -> bool {
        let mut state = self.state();
        let old = |held: &Held| held.loaded.elapsed() > FIRST_PAUSE;
        let refused = state.held.as_ref().is_some_and(|held| same(&held.credentials, credentials) && old(held));
        if refused {
            state.held = None;
        }
        refused || state.held.as_ref().is_some_and(|held| !same(&held.credentials, credentials))
    }

    /// Credentials that have not ended, and whether they are young enough.
    fn held(&self) -> Option<(Credentials, bool)> {
        let (state, now) = (self.state(), Instant::now());
        let held = state.held.as_ref()?;
        let young = now < held.renew;
        (young || held.ends.is_none_or(|ends| now < ends)).then(|| (held.credentials.clone(), young))
    }

    fn refuse_early_load(&self) -> Result<(), Arc<CredentialsError>> {
        match &self.state().failed {
            Some(failed) if Instant::now() < failed.until => Err(Arc::clone(&failed.error)),
            _ => Ok(()),
        }
    }

    async fn load(&self) -> Result<Credentials, Arc<CredentialsError>> {
        let limit = self.limit();
        let loaded = time::timeout(limit, self.source.provide_credentials()).await;
        let mut state = self.state();
        match loaded.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(limit))) {
            Ok(credentials) => {
                *state = State { held: Some(Held::new(credentials.clone(), SystemTime::now())), failed: None };
                Ok(credentials)
            }
            Err(error) => {
                let pause = state.failed.as_ref().map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
                let error = Arc::new(error);
                state.failed = Some(Failed { error: Arc::clone(&error), pause, until: Instant::now() + pause });
                match state.held.as_mut().filter(|held| held.ends.is_none_or(|ends| Instant::now() < ends)) {
                    Some(held) => {
                        held.renew = Instant::now() + pause;
                        if let Some(ends) = held.ends {
                            held.renew = held.renew.min(ends);
                        }
                        Ok(held.credentials.clone())
                    }
                    None => Err(error),
                }
            }
        }
    }

    /// Whoever renews ahead of the end still has use for the old ones after a failure.
    fn limit(&self) -> Duration {
        let ends = self.state().held.as_ref().and_then(|held| held.ends);
        let left = ends.and_then(|ends| ends.checked_duration_since(Instant::now())).filter(|left| !left.is_zero());
        left.map_or(self.timeout, |left| self.timeout.min(left / 2))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    fn new(credentials: Credentials, wall: SystemTime) -> Self {
        let loaded = Instant::now();
        let life = credentials.expiry().map(|end| end.duration_since(wall).unwrap_or_default());
        let renew = life.map_or(ENDLESS, |life| life - AHEAD.min(life / 3));
        // What ends at once is asked for again, but not without a pause.
        Self { credentials, loaded, renew: loaded + renew.max(FIRST_PAUSE), ends: life.map(|life| loaded + life) }
    }
}

// === impl Lent ===

impl ProvideCredentials for Lent {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.0.get().await.map_err(|_| CredentialsError::not_loaded("no credentials"))
        })
    }
}

fn same(a: &Credentials, b: &Credentials) -> bool {
    (a.access_key_id(), a.session_token()) == (b.access_key_id(), b.session_token())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// Gives credentials that live for some seconds, and fails from the second load on for a while.
    #[derive(Debug)]
    struct Source {
        loads: AtomicUsize,
        fails: std::ops::Range<usize>,
        life: Duration,
        slow: AtomicBool,
    }

    impl ProvideCredentials for Source {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                let load = self.loads.fetch_add(1, Ordering::Relaxed);
                let slow = self.slow.load(Ordering::Relaxed);
                time::sleep(Duration::from_millis(if slow { 60_000 } else { 50 })).await;
                if self.fails.contains(&load) {
                    return Err(CredentialsError::not_loaded("as planned"));
                }
                Ok(Credentials::new(format!("key{load}"), "s", None, Some(SystemTime::now() + self.life), "test"))
            })
        }
    }

    fn kept(life: u64, fails: std::ops::Range<usize>) -> (Arc<Kept>, Arc<Source>) {
        let (life, slow) = (Duration::from_secs(life), AtomicBool::new(false));
        let source = Arc::new(Source { loads: AtomicUsize::new(0), fails, life, slow });
        let shared: Arc<dyn ProvideCredentials> = source.clone();
        let provider = SharedCredentialsProvider::new(shared);
        (Arc::new(Kept::new(provider, Duration::from_secs(10))), source)
    }

    async fn key(kept: &Kept) -> String {
        kept.get().await.unwrap().access_key_id().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_end_every_5_s_serve_10_minutes_of_load_with_a_load_for_each_two_thirds_of_their_life() {
        let (kept, source) = kept(5, 0..0);
        let end = Instant::now() + Duration::from_secs(600);
        while Instant::now() < end {
            let asks = (0..10).map(|_| kept.get());
            for asked in futures_util::future::join_all(asks).await {
                asked.unwrap();
            }
            time::sleep(Duration::from_millis(100)).await;
        }
        let loads = source.loads.load(Ordering::Relaxed);
        assert!((160..=200).contains(&loads), "{loads} loads");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_leaves_the_old_ones_in_use_until_their_end() {
        let (kept, source) = kept(30, 1..100);
        assert_eq!(key(&kept).await, "key0");
        time::advance(Duration::from_secs(21)).await;
        for _ in 0..8 {
            assert_eq!(key(&kept).await, "key0", "still good");
            time::advance(Duration::from_millis(900)).await;
        }
        assert!((2..=5).contains(&source.loads.load(Ordering::Relaxed)));
        time::advance(Duration::from_secs(2)).await;
        assert!(kept.get().await.is_err(), "they have ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_hangs_gives_up_while_the_old_ones_are_good() {
        let (kept, source) = kept(30, 0..0);
        assert_eq!(key(&kept).await, "key0");
        source.slow.store(true, Ordering::Relaxed);
        time::advance(Duration::from_secs(29)).await;
        assert_eq!(key(&kept).await, "key0");
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_make_one_load_and_share_its_failure() {
        let (kept, source) = kept(60, 0..1);
        let asks = (0..50).map(|_| kept.get());
        assert!(futures_util::future::join_all(asks).await.iter().all(Result::is_err));
        assert_eq!(source.loads.load(Ordering::Relaxed), 1);
        time::advance(Duration::from_secs(1)).await;
        assert_eq!(key(&kept).await, "key1");
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_aws_refuses_are_loaded_anew_once() {
        let (kept, _) = kept(3600, 0..0);
        let first = kept.get().await.unwrap();
        assert!(!kept.refused(&first), "new ones are what they are");
        time::advance(Duration::from_secs(10)).await;
        assert!(kept.refused(&first));
        assert_eq!(key(&kept).await, "key1");
        assert!(kept.refused(&first), "there are others by now");
    }
}
