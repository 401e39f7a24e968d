//! The life of the token: one login at a time, renewal in time, a new login when it is dead.
//!
//! # Guarantees
//! - However many calls need a token, one login is under way at a time, and a failed one is not tried
//!   again before its back-off has passed (1 s, doubled to 30 s, or what the server asks for), unless a
//!   file that it reads has changed.
//! - A login goes on though its caller is gone: a wrapped SecretID can be unwrapped only once.
//! - A token that works is not given up for a login that fails.

use super::{
    auth::{self, Grant, Login},
    failure::{self, Asked},
    files::Stamp,
    http::{Http, Request},
    token::{Current, SHORTEST_WAIT, Token},
};
use crate::provider::{ErrorKind, ProviderError};
use reqwest::Method;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A token that was just seen alive is not looked up again within this time.
const VOUCHED: Duration = Duration::from_secs(3);
/// The same where even a new token was refused: then the policy forbids the path, or the look-up too.
const VOUCHED_NEW: Duration = Duration::from_secs(30);
/// How often the file of a token is looked at while nobody asks for the token.
const FILE_LOOK: Duration = Duration::from_secs(30);

/// What an instance is logged in with.
pub struct Session {
    name: String,
    http: Arc<Http>,
    login: Login,
    state: Mutex<State>,
    /// Held by the one who logs in, renews or looks up.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
    logins: TaskTracker,
}

#[derive(Default)]
struct State {
    count: u64,
    current: Option<Current>,
    failure: Option<Failure>,
}

struct Failure {
    error: ProviderError,
    stamp: Vec<Stamp>,
    until: Instant,
    delay: Duration,
}

// === impl Session ===

impl Session {
    pub fn new(name: String, http: Arc<Http>, login: Login) -> Self {
        let (state, turn, changed, logins) = Default::default();
        Self { name, http, login, state, turn, changed, logins }
    }

    /// A token that is alive as far as is known here; logs in if there is none.
    pub async fn token(self: &Arc<Self>) -> Result<Arc<Token>, ProviderError> {
        if let Some(token) = self.usable() {
            return Ok(token);
        }
        let this = Arc::clone(self);
        let login = self.logins.spawn(async move {
            let _turn = this.turn.lock().await;
            match this.usable() {
                Some(token) => Ok(token),
                None => this.log_in().await,
            }
        });
        match login.await {
            Ok(result) => result,
            Err(_) => Err(self.http.error(ErrorKind::Unavailable, "the login was cut short")),
        }
    }

    /// How it logs in.
    pub fn method(&self) -> &'static str {
        self.login.method()
    }

    pub fn is_token_file(&self) -> bool {
        self.login.is_token_file()
    }

    /// Whether a token that was answered 403 is dead. Then the next [`Self::token`] is another one.
    pub async fn is_dead(&self, token: &Token) -> Result<bool, ProviderError> {
        let _turn = self.turn.lock().await;
        match &self.state().current {
            Some(current) if current.token.number == token.number => {
                if current.is_vouched_for() {
                    return Ok(false);
                }
            }
            _ => return Ok(true),
        }
        let path = "auth/token/lookup-self";
        let answer = self.http.send(Request { token: Some(token.value()), ..Request::get(path) }).await?;
        match answer.status.as_u16() {
            200 => {
                self.vouch(token, VOUCHED);
                Ok(false)
            }
            403 => {
                debug!(provider = self.name, "the token is dead, or may not look itself up");
                self.state().current = None;
                Ok(true)
            }
            _ => Err(failure::of_answer(&self.http, &answer, Asked { path, capability: "read" })),
        }
    }

    /// A token that was got anew was refused like the one before it: it is the path that is forbidden.
    pub fn vouch_for_new(&self, token: &Token) {
        self.vouch(token, VOUCHED_NEW);
    }

    /// Keeps the token alive until `cancel`.
    pub async fn run(self: &Arc<Self>, cancel: CancellationToken) {
        loop {
            let due = self.due();
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.changed.notified() => {}
                () = async { match due { Some(at) => time::sleep_until(at).await, None => std::future::pending().await } } => {
                    tokio::select! {
                        () = cancel.cancelled() => break,
                        () = self.maintain() => {}
                    }
                }
            }
        }
        self.logins.close();
        // A login has the client's time limits; this one holds if a server dawdles through several calls.
        let _ = time::timeout(self.http.timeout(), self.logins.wait()).await;
    }

    fn due(&self) -> Option<Instant> {
        let state = self.state();
        let look = self.login.is_token_file().then(|| Instant::now() + FILE_LOOK);
        let failed = state.failure.as_ref().map(|failure| failure.until);
        match &state.current {
            Some(current) => current.due.map(|due| due.max(failed.unwrap_or(due))).into_iter().chain(look).min(),
            // No token yet: one in a file has to be kept alive even if no volume asks for it.
            None => look.map(|look| failed.unwrap_or_else(Instant::now).min(look)),
        }
    }

    async fn maintain(self: &Arc<Self>) {
        let Some(token) = self.usable() else {
            // Its failure is remembered, logged, and told to whoever asks next.
            let _ = self.token().await;
            return;
        };
        let _turn = self.turn.lock().await;
        let (is_due, renewable) = match &self.state().current {
            Some(current) if current.token.number == token.number => {
                // A token is renewed by the certificate that it was given for, and by no other.
                let bound = self.login.key_pair().is_some() && current.stamp != self.stamp();
                (current.due.is_some_and(|due| due <= Instant::now()), current.renewable && !bound)
            }
            _ => return,
        };
        match (is_due, renewable) {
            (false, _) => {}
            (true, true) => self.renew(&token).await,
            (true, false) if self.login.is_token_file() => self.tell_of_the_end(),
            (true, false) => drop(self.log_in().await),
        }
    }

    /// Renews the token; the caller has the turn.
    async fn renew(&self, token: &Token) {
        let path = "auth/token/renew-self";
        let request = Request {
            method: Method::POST,
            token: Some(token.value()),
            body: Some(Zeroizing::new(b"{}".to_vec())),
            ..Request::get(path)
        };
        let outcome = match self.http.send(request).await {
            Ok(answer) if answer.is_success() => auth::grant(&self.http, &answer.body),
            Ok(answer) => Err(failure::of_answer(&self.http, &answer, Asked { path, capability: "update" })),
            Err(error) => Err(error),
        };
        let mut state = self.state();
        let Some(current) = state.current.as_mut().filter(|current| current.token.number == token.number) else {
            return;
        };
        match outcome {
            Ok(grant) => {
                current.renewed(&grant);
                info!(provider = self.name, ttl = grant.ttl.as_secs(), "renewed the token");
            }
            Err(error) if error.kind().is_transient() => {
                let left = current.left().unwrap_or(LONGEST_BACKOFF);
                let wait = error.delay().unwrap_or(left / 4).clamp(SHORTEST_WAIT, LONGEST_BACKOFF);
                current.due = Some(Instant::now() + wait);
                warn!(provider = self.name, %error, "cannot renew the token yet");
            }
            Err(error) => {
                current.renewable = false;
                current.due = Some(Instant::now());
                warn!(provider = self.name, %error, "cannot renew the token");
            }
        }
    }

    fn tell_of_the_end(&self) {
        if let Some(current) = &mut self.state().current {
            let left = current.left().map(|left| left.as_secs());
            warn!(
                provider = self.name,
                left, "the token in the file cannot be renewed: put a new one there before it ends"
            );
            current.due = None;
        }
    }

    /// Logs in; the caller has the turn.
    async fn log_in(&self) -> Result<Arc<Token>, ProviderError> {
        let stamp = self.stamp();
        if let Some(failure) = &self.state().failure
            && failure.stamp == stamp
            && Instant::now() < failure.until
        {
            return Err(failure.error.clone());
        }
        match self.login.log_in(&self.http).await {
            Ok(grant) => Ok(self.accept(grant, stamp)),
            Err(error) => self.back_off(error, stamp),
        }
    }

    fn accept(&self, grant: Grant, stamp: Vec<Stamp>) -> Arc<Token> {
        let mut state = self.state();
        state.count += 1;
        let (ttl, renewable) = (grant.ttl.as_secs(), grant.renewable);
        let current = Current::new(grant, state.count, stamp);
        let token = Arc::clone(&current.token);
        state.current = Some(current);
        state.failure = None;
        info!(provider = self.name, method = self.login.method(), ttl, renewable, "logged in");
        self.changed.notify_one();
        token
    }

    /// Remembers a failed login. A token that is still alive goes on in use.
    fn back_off(&self, error: ProviderError, stamp: Vec<Stamp>) -> Result<Arc<Token>, ProviderError> {
        let mut state = self.state();
        let before = state.failure.take().filter(|failure| failure.stamp == stamp);
        let delay = before.as_ref().map_or(FIRST_BACKOFF, |failure| (failure.delay * 2).min(LONGEST_BACKOFF));
        let until = Instant::now() + error.delay().map_or(delay, |asked| asked.max(delay));
        match before.is_some_and(|failure| failure.error.to_string() == error.to_string()) {
            true => debug!(provider = self.name, method = self.login.method(), %error, "still cannot log in"),
            false => warn!(provider = self.name, method = self.login.method(), %error, "cannot log in"),
        }
        state.failure = Some(Failure { error: error.clone(), stamp, until, delay });
        self.changed.notify_one();
        match state.current.as_ref().filter(|current| current.is_alive()) {
            Some(current) => Ok(Arc::clone(&current.token)),
            None => Err(error),
        }
    }

    fn usable(&self) -> Option<Arc<Token>> {
        let state = self.state();
        let current = state.current.as_ref().filter(|current| current.is_alive())?;
        if self.login.is_token_file() {
            let stamp = self.stamp();
            let failed = state.failure.as_ref();
            let waits = failed.is_some_and(|failure| failure.stamp == stamp && Instant::now() < failure.until);
            if stamp != current.stamp && !waits {
                return None;
            }
        }
        Some(Arc::clone(&current.token))
    }

    /// Changes with every file that a login depends on.
    fn stamp(&self) -> Vec<Stamp> {
        let mut stamp = self.login.stamp(self.http.host());
        stamp.extend(self.http.stamps());
        stamp
    }

    fn vouch(&self, token: &Token, time: Duration) {
        if let Some(current) = &mut self.state().current
            && current.token.number == token.number
        {
            current.vouched_until = Some(Instant::now() + time);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
