//! A token, and what is known of its life.

use super::{auth::Grant, files::Stamp};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// The shortest time between two looks at a token that is about to end.
pub const SHORTEST_WAIT: Duration = Duration::from_millis(200);

/// A token and its number, so that a later one can be told from it.
pub struct Token {
    value: Zeroizing<String>,
    pub number: u64,
}

/// The token in use.
pub struct Current {
    pub token: Arc<Token>,
    /// Of the files that the login depended on.
    pub stamp: Vec<Stamp>,
    /// `None` if it never ends.
    pub ends: Option<Instant>,
    /// When to renew it, or to log in anew.
    pub due: Option<Instant>,
    pub renewable: bool,
    /// Until when a refusal means that the path is forbidden, not that the token is dead.
    pub vouched_until: Option<Instant>,
}

// === impl Token ===

impl Token {
    pub fn value(&self) -> &Zeroizing<String> {
        &self.value
    }
}

// === impl Current ===

impl Current {
    pub fn new(grant: Grant, number: u64, stamp: Vec<Stamp>) -> Self {
        let token = Arc::new(Token { value: grant.token, number });
        let renewable = grant.renewable;
        let mut current = Self { token, stamp, ends: None, due: None, renewable, vouched_until: None };
        current.lives(grant.ttl);
        current
    }

    pub fn is_alive(&self) -> bool {
        self.ends.is_none_or(|ends| Instant::now() < ends)
    }

    pub fn is_vouched_for(&self) -> bool {
        self.vouched_until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes note of a renewal.
    pub fn renewed(&mut self, grant: &Grant) {
        let before = self.ends;
        self.lives(grant.ttl);
        // At its max_ttl a token is renewed for what is left of it: then only a new login helps.
        let grew = self.ends.zip(before).is_none_or(|(now, before)| now > before + Duration::from_secs(1));
        self.renewable = grant.renewable && grew;
    }

    /// How long it still lives; `None` if for ever.
    pub fn left(&self) -> Option<Duration> {
        self.ends.map(|ends| ends.saturating_duration_since(Instant::now()))
    }

    /// Sets the end of a token that lives for `ttl` from now, and acts on it after two thirds.
    fn lives(&mut self, ttl: Duration) {
        let now = Instant::now();
        self.ends = (!ttl.is_zero()).then(|| now + ttl);
        self.due = (!ttl.is_zero()).then(|| now + (ttl * 2 / 3).max(SHORTEST_WAIT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(ttl: u64) -> Grant {
        Grant { token: Zeroizing::new("t".into()), ttl: Duration::from_secs(ttl), renewable: true }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_due_after_two_thirds_of_its_life() {
        let current = Current::new(grant(30), 1, Vec::new());
        assert_eq!(current.due.map(|due| due - Instant::now()), Some(Duration::from_secs(20)));
        assert_eq!(current.left(), Some(Duration::from_secs(30)));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(!current.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_without_an_end_is_never_due() {
        let current = Current::new(grant(0), 1, Vec::new());
        assert!(current.is_alive() && current.due.is_none() && current.left().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_adds_no_life_is_the_last() {
        let mut current = Current::new(grant(30), 1, Vec::new());
        tokio::time::advance(Duration::from_secs(20)).await;
        current.renewed(&grant(30));
        assert!(current.renewable);
        tokio::time::advance(Duration::from_secs(20)).await;
        current.renewed(&grant(10));
        assert!(!current.renewable);
    }
}
