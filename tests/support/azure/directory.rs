//! A tenant's directory: it signs tokens, and the vaults that trust it take them by audience, time and signature.

use super::super::bao::unique;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub const TENANT: &str = "11111111-2222-3333-4444-555555555555";

pub struct Directory {
    key: String,
    state: Mutex<State>,
}

struct State {
    life: Duration,
    issued: Vec<String>,
    revoked: Vec<String>,
}

// === impl Directory ===

impl Directory {
    pub fn new() -> Self {
        let state = State { life: Duration::from_secs(3600), issued: Vec::new(), revoked: Vec::new() };
        Self { key: unique(), state: Mutex::new(state) }
    }

    /// Tokens last this long from now on.
    pub fn last(&self, life: Duration) {
        self.state().life = life;
    }

    /// A token for an audience, and the second at which it ends.
    pub fn issue(&self, audience: &str) -> (String, u64) {
        let ends = now() + self.state().life.as_secs();
        let claims = json!({"aud": audience, "tid": TENANT, "exp": ends, "nbf": now() - 1, "jti": unique()});
        let token = self.sign(&claims);
        self.state().issued.push(token.clone());
        (token, ends)
    }

    /// A token of these very claims: a federated one, or one that ought to be refused.
    pub fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.mac(&signed).finalize().into_bytes()))
    }

    /// The claims of a token, if it is this directory's, of now and for `audience`.
    pub fn check(&self, token: &str, audience: &str) -> Result<Value, &'static str> {
        let (signed, signature) = token.rsplit_once('.').ok_or("no token")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "no signature")?;
        self.mac(signed).verify_slice(&signature).map_err(|_| "a wrong signature")?;
        let claims = signed.split_once('.').and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok());
        let claims: Value = serde_json::from_slice(&claims.ok_or("no claims")?).map_err(|_| "no claims")?;
        if claims["aud"].as_str() != Some(audience) {
            return Err("another audience");
        }
        if !(claims["nbf"].as_u64().unwrap_or(u64::MAX)..claims["exp"].as_u64().unwrap_or(0)).contains(&now()) {
            return Err("a token that has ended");
        }
        match self.state().revoked.iter().any(|revoked| revoked == token) {
            true => Err("a token that was revoked"),
            false => Ok(claims),
        }
    }

    /// None of the tokens that were given out is taken any more.
    pub fn revoke_all(&self) {
        let mut state = self.state();
        state.revoked = state.issued.clone();
    }

    /// Every token that was given out.
    pub fn issued(&self) -> Vec<String> {
        self.state().issued.clone()
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        mac
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
