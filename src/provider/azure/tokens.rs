//! The host's tokens at Azure, one for each service that a vault asks for, kept until shortly before their end.
//!
//! # Guarantees
//! - One load at a time for each service, however many ask. While the old token lasts, nobody but the one who loads waits.
//! - A token is renewed ahead of its end; a renewal that fails leaves the old one in use until then.
//! - Loads that fail are some time apart: 1 s, then up to 30 s.

use super::failure::Fault;
use crate::provider::ErrorKind;
use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions},
    error::ErrorKind as SdkKind,
    time::OffsetDateTime,
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{self, Instant},
};

/// How long before its end a token is renewed, unless it lives for less than three times that.
const AHEAD: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A token as it was given, and how long it lasts from now.
pub struct Given {
    pub token: Secret,
    pub life: Duration,
}

/// Where tokens come from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// A token for the service that `scope` names, such as `https://vault.azure.net/.default`.
    async fn load(&self, scope: &str) -> Result<Given, Fault>;
}

/// What may be told of a token.
pub struct Token {
    pub age: Duration,
    pub left: Duration,
    /// Why there is no younger one, where it ought to have been renewed.
    pub failing: Option<Fault>,
}

/// What a source gave last, for each scope.
pub struct Tokens {
    source: Box<dyn Source>,
    timeout: Duration,
    kept: Mutex<HashMap<String, Arc<Kept>>>,
}

#[derive(Default)]
struct Kept {
    state: Mutex<State>,
    /// Held by the one who loads.
    flight: AsyncMutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    failed: Option<Failed>,
}

#[derive(Clone)]
struct Held {
    token: Secret,
    loaded: Instant,
    renew: Instant,
    ends: Instant,
}

#[derive(Clone)]
struct Failed {
    fault: Fault,
    pause: Duration,
    until: Instant,
}

// === impl Tokens ===

impl Tokens {
    pub fn new(source: Box<dyn Source>, timeout: Duration) -> Self {
        Self { source, timeout, kept: Mutex::default() }
    }

    /// A vault does not take what it was shown: the next to ask loads a new one, unless it is so.
    pub fn refused(&self) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.values().filter(|kept| kept.drop_old()).count() > 0
    }

    /// The services that tokens were asked for.
    pub fn scopes(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scopes: Vec<_> = kept.keys().cloned().collect();
        scopes.sort();
        scopes
    }

    /// The token for a service; where there is none yet, it is loaded.
    pub async fn told(&self, scope: &str) -> Result<Token, Fault> {
        let held = self.get(scope).await?;
        let failing = self.kept(scope).state().failed.as_ref().map(|failed| failed.fault.clone());
        let now = Instant::now();
        Ok(Token { age: now - held.loaded, left: held.ends - now, failing })
    }

    fn kept(&self, scope: &str) -> Arc<Kept> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(scope.to_owned()).or_default())
    }

    async fn get(&self, scope: &str) -> Result<Held, Fault> {
        let kept = self.kept(scope);
        let held = match kept.held() {
            Some((held, true)) => return Ok(held),
            held => held.map(|(held, _)| held),
        };
        let _flight = match (kept.flight.try_lock(), held) {
            (Ok(flight), _) => flight,
            (Err(_), Some(held)) => return Ok(held),
            (Err(_), None) => kept.flight.lock().await,
        };
        if let Some((held, true)) = kept.held() {
            return Ok(held);
        }
        kept.refuse_early_load()?;
        let loaded = time::timeout(kept.limit(self.timeout), self.source.load(scope)).await;
        let late = || Fault::new(ErrorKind::Timeout, "whoever gives the host its token did not answer in time");
        kept.note(loaded.unwrap_or_else(|_| Err(late())))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

#[async_trait]
impl TokenCredential for Tokens {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let held = match scopes {
            [scope] => self.get(scope).await,
            _ => Err(Fault::new(ErrorKind::Malformed, "the vault asks for a token of no service")),
        };
        let held = held.map_err(|fault| fault.into_sdk(SdkKind::Credential))?;
        // The SDK keeps it too, by the wall's clock.
        Ok(AccessToken::new(held.token, OffsetDateTime::now_utc() + held.ends.duration_since(Instant::now())))
    }
}

// === impl Kept ===

impl Kept {
    /// A token that has not ended, and whether it is young enough.
    fn held(&self) -> Option<(Held, bool)> {
        let (state, now) = (self.state(), Instant::now());
        let held = state.held.as_ref().filter(|held| now < held.ends)?;
        Some((held.clone(), now < held.renew))
    }

    fn drop_old(&self) -> bool {
        let mut state = self.state();
        let old = state.held.as_ref().is_some_and(|held| held.loaded.elapsed() > FIRST_PAUSE);
        if old {
            state.held = None;
        }
        old
    }

    fn refuse_early_load(&self) -> Result<(), Fault> {
        match &self.state().failed {
            Some(failed) if Instant::now() < failed.until => Err(failed.fault.clone()),
            _ => Ok(()),
        }
    }

    /// Whoever renews ahead of the end still has use for the old one after a failure.
    fn limit(&self, most: Duration) -> Duration {
        let ends = self.state().held.as_ref().map(|held| held.ends);
        let left = ends.and_then(|ends| ends.checked_duration_since(Instant::now())).filter(|left| !left.is_zero());
        left.map_or(most, |left| most.min(left / 2))
    }

    fn note(&self, loaded: Result<Given, Fault>) -> Result<Held, Fault> {
        let (mut state, now) = (self.state(), Instant::now());
        match loaded {
            Ok(given) => {
                let held = Held::new(given, now);
                *state = State { held: Some(held.clone()), failed: None };
                Ok(held)
            }
            Err(fault) => {
                let pause = state.failed.as_ref().map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
                let until = now + fault.delay.unwrap_or_default().max(pause);
                state.failed = Some(Failed { fault: fault.clone(), pause, until });
                let Some(held) = state.held.as_mut().filter(|held| now < held.ends) else { return Err(fault) };
                held.renew = until.min(held.ends);
                Ok(held.clone())
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    fn new(Given { token, life }: Given, loaded: Instant) -> Self {
        let renew = life - AHEAD.min(life / 3);
        // What ends at once is asked for again, but not without a pause.
        Self { token, loaded, renew: loaded + renew.max(FIRST_PAUSE), ends: loaded + life }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        ops::Range,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    /// Gives tokens that live for some seconds, and fails at some loads.
    struct Plan {
        loads: AtomicUsize,
        fails: Range<usize>,
        life: Duration,
        slow: AtomicBool,
    }

    #[async_trait]
    impl Source for Arc<Plan> {
        async fn load(&self, scope: &str) -> Result<Given, Fault> {
            let load = self.loads.fetch_add(1, Ordering::Relaxed);
            time::sleep(Duration::from_millis(if self.slow.load(Ordering::Relaxed) { 60_000 } else { 50 })).await;
            if self.fails.contains(&load) {
                return Err(Fault::new(ErrorKind::Unavailable, "as planned"));
            }
            Ok(Given { token: Secret::new(format!("{scope}{load}")), life: self.life })
        }
    }

    fn tokens(life: u64, fails: Range<usize>) -> (Tokens, Arc<Plan>) {
        let (life, slow) = (Duration::from_secs(life), AtomicBool::new(false));
        let plan = Arc::new(Plan { loads: AtomicUsize::new(0), fails, life, slow });
        (Tokens::new(Box::new(Arc::clone(&plan)), Duration::from_secs(10)), plan)
    }

    async fn token(tokens: &Tokens) -> String {
        tokens.get("a").await.unwrap().token.secret().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_end_every_5_s_serve_10_minutes_of_load_with_a_load_for_each_two_thirds_of_their_life() {
        let (tokens, plan) = tokens(5, 0..0);
        let end = Instant::now() + Duration::from_secs(600);
        while Instant::now() < end {
            for asked in futures_util::future::join_all((0..10).map(|_| tokens.get("a"))).await {
                assert!(Instant::now() < asked.unwrap().ends);
            }
            time::sleep(Duration::from_millis(100)).await;
        }
        let loads = plan.loads.load(Ordering::Relaxed);
        assert!((160..=200).contains(&loads), "{loads} loads");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_or_hangs_leaves_the_old_one_in_use_until_its_end() {
        let (tokens, plan) = tokens(30, 1..100);
        assert_eq!(token(&tokens).await, "a0");
        time::advance(Duration::from_secs(21)).await;
        for _ in 0..8 {
            assert_eq!(token(&tokens).await, "a0", "still good");
            time::advance(Duration::from_millis(900)).await;
        }
        assert!((2..=5).contains(&plan.loads.load(Ordering::Relaxed)));
        time::advance(Duration::from_secs(2)).await;
        assert!(tokens.get("a").await.is_err(), "it has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_hangs_gives_up_while_the_old_one_is_good() {
        let (tokens, plan) = tokens(30, 0..0);
        assert_eq!(token(&tokens).await, "a0");
        plan.slow.store(true, Ordering::Relaxed);
        time::advance(Duration::from_secs(29)).await;
        assert_eq!(token(&tokens).await, "a0");
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_make_one_load_and_each_service_has_its_own() {
        let (tokens, plan) = tokens(60, 0..1);
        let asks = futures_util::future::join_all((0..50).map(|_| tokens.get("a")));
        assert!(asks.await.iter().all(Result::is_err));
        assert_eq!(plan.loads.load(Ordering::Relaxed), 1);
        assert_eq!(tokens.get("b").await.unwrap().token.secret(), "b1");
        time::advance(Duration::from_secs(1)).await;
        assert_eq!(token(&tokens).await, "a2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_a_vault_refuses_is_loaded_anew_once() {
        let (tokens, _) = tokens(3600, 0..0);
        assert_eq!(token(&tokens).await, "a0");
        assert!(!tokens.refused(), "a new one is what it is");
        time::advance(Duration::from_secs(10)).await;
        assert!(tokens.refused());
        assert_eq!(token(&tokens).await, "a1");
    }
}
