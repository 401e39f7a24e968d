//! Signature Version 4, checked: the algorithm as AWS publishes it, not the SDK's.

use crate::support::server::Seen;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// AWS takes requests this far from its own clock.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// What a signed request says of itself.
#[derive(Debug)]
pub struct Signed {
    pub access_key: String,
    pub region: String,
    pub service: String,
    date: String,
    headers: Vec<String>,
    pub signature: String,
}

// === impl Signed ===

impl Signed {
    pub fn of(seen: &Seen) -> Result<Self, &'static str> {
        let text = seen.header("authorization").ok_or("no Authorization")?;
        let rest = text.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
        let field = |name: &str| rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        let scope: Vec<_> = field("Credential").ok_or("no Credential")?.split('/').collect();
        let [access_key, date, region, service, "aws4_request"] = scope[..] else { return Err("a malformed scope") };
        Ok(Self {
            access_key: access_key.into(),
            region: region.into(),
            service: service.into(),
            date: date.into(),
            headers: field("SignedHeaders").ok_or("no SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: field("Signature").ok_or("no Signature")?.into(),
        })
    }

    /// Whether whoever has `secret` has signed this very request, now.
    pub fn check(&self, seen: &Seen, secret: &str, now: SystemTime) -> Result<(), &'static str> {
        let mut needed: Vec<_> = ["host", "x-amz-date"].into();
        needed.extend(["x-amz-target", "x-amz-security-token"].iter().filter(|name| seen.header(name).is_some()));
        if needed.iter().any(|name| !self.headers.iter().any(|signed| signed == name)) {
            return Err("a header that must be signed is not");
        }
        if !self.headers.is_sorted() {
            return Err("the signed headers are not in their order");
        }
        let time = seen.header("x-amz-date").ok_or("no X-Amz-Date")?;
        if !time.starts_with(&self.date) {
            return Err("the scope is of another day");
        }
        let at = seconds(time).ok_or("a malformed X-Amz-Date")?;
        let now = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
        if at.abs_diff(now) > SKEW.as_secs() {
            return Err("a signature of another time");
        }
        if self.signature == self.compute(seen, secret, time) { Ok(()) } else { Err("a wrong signature") }
    }

    fn compute(&self, seen: &Seen, secret: &str, time: &str) -> String {
        let mut query: Vec<_> = seen.query.split('&').filter(|part| !part.is_empty()).collect();
        query.sort_unstable();
        let headers: String = self
            .headers
            .iter()
            .map(|name| {
                let words: Vec<_> = seen.header(name).unwrap_or_default().split_whitespace().collect();
                format!("{name}:{}\n", words.join(" "))
            })
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            seen.method,
            seen.path,
            query.join("&"),
            self.headers.join(";"),
            hex(&Sha256::digest(&seen.body))
        );
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let mut key = hmac(format!("AWS4{secret}").as_bytes(), &self.date);
        for part in [self.region.as_str(), self.service.as_str(), "aws4_request"] {
            key = hmac(&key, part);
        }
        hex(&hmac(&key, &to_sign))
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20150830T123600Z` as seconds since 1970.
pub fn seconds(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    // Days before a month, from March on: a leap day is the last day of such a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + number(9..11)? * 3600 + number(11..13)? * 60 + number(13..15)?)
}
