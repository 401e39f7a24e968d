//! What `docker dso doctor` is told of a server: whether it serves, who dso is there, and whether the clocks agree.

use super::{
    Inner,
    http::{Answer, Request},
};
use crate::{findings::Finding, provider::ProviderError};
use serde::Deserialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Beyond this, tokens and signatures with a time in them begin to be refused.
const SKEW_WARNING: u64 = 30;
const SKEW_ERROR: u64 = 300;
/// A token that cannot be renewed and ends within this needs a person now.
const SOON: u64 = 3600;

/// Of the look-up's answer; its `id` is the token itself, and is not read.
#[derive(Deserialize)]
struct Looked {
    data: Token,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    policies: Vec<String>,
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    creation_time: u64,
    #[serde(default)]
    renewable: bool,
}

impl Inner {
    pub(super) async fn examine(&self) -> Vec<Finding> {
        let health = match self.http.send(Request::get("sys/health")).await {
            Ok(answer) => answer,
            Err(error) => return vec![failed("provider", &error)],
        };
        let mut findings = vec![self.health(&health)];
        findings.extend(clock(&health));
        findings.push(match self.identity().await {
            Ok(finding) => finding,
            Err(error) => failed("identity", &error),
        });
        findings
    }

    fn health(&self, answer: &Answer) -> Finding {
        let error = |message: &str, advice: &str| Finding::error("provider", "", message, advice);
        match answer.status.as_u16() {
            501 => error("the server is not initialized", "initialize it: `vault operator init`"),
            503 => error("the server is sealed", "unseal it: `vault operator unseal`"),
            404 => error("the server has no `sys/health`, so it is no Vault or OpenBao", "mend `address` in dso.toml"),
            _ if self.http.is_plain() && !self.http.is_loopback() => Finding::warning(
                "provider",
                "",
                "the server answers, over http: values and tokens go over the network in the clear",
                "give the server a certificate, and `address` https",
            ),
            _ => Finding::ok("provider", "", "the server answers"),
        }
    }

    async fn identity(&self) -> Result<Finding, ProviderError> {
        let method = self.session.method();
        let answer = self.call(|| Request::get("auth/token/lookup-self")).await?;
        let looked = serde_json::from_slice::<Looked>(&answer.body);
        let (Ok(Looked { data: token }), true) = (looked, answer.is_success()) else {
            let message = format!("logged in by {method}, and the token may not look itself up");
            let advice = "give it the policy `default`, or read on auth/token/lookup-self";
            return Ok(Finding::warning("identity", "", message, advice));
        };
        let life = match token.ttl {
            0 => "it never ends".to_owned(),
            ttl => format!("{} old, ends in {}", age(token.creation_time), shown(ttl)),
        };
        let policies = token.policies.join(", ");
        let message = format!(
            "logged in by {method} as `{}` with the policies {policies}; the token: {life}",
            token.display_name
        );
        let warning = |advice: &str| Ok(Finding::warning("identity", "", message.clone(), advice));
        if token.policies.iter().any(|policy| policy == "root") {
            return warning("a root token may do everything: log in with a policy that only reads what dso needs");
        }
        if token.ttl > 0 && token.ttl < SOON && !token.renewable && self.session.is_token_file() {
            return warning("it cannot be renewed: put a new token into the file before it ends");
        }
        Ok(Finding::ok("identity", "", message))
    }
}

fn failed(check: &str, error: &ProviderError) -> Finding {
    Finding::error(check, "", error.to_string(), error.kind().advice())
}

/// How far the server's clock is from this host's; `None` where it does not say.
fn clock(answer: &Answer) -> Option<Finding> {
    let theirs = httpdate::parse_http_date(answer.headers.get("date")?.to_str().ok()?).ok()?;
    Some(compare(theirs, SystemTime::now()))
}

fn compare(theirs: SystemTime, ours: SystemTime) -> Finding {
    let (ahead, apart) = match ours.duration_since(theirs) {
        Ok(apart) => ("ahead of", apart.as_secs()),
        Err(error) => ("behind", error.duration().as_secs()),
    };
    let message = format!("this host's clock is {apart} s {ahead} the server's");
    let advice = "set the clock: `timedatectl set-ntp true`, or whatever keeps it here";
    match apart {
        0..SKEW_WARNING => Finding::ok("clock", "", "this host's clock is the server's"),
        SKEW_WARNING..SKEW_ERROR => Finding::warning("clock", "", message, advice),
        _ => Finding::error("clock", "", message, advice),
    }
}

fn age(created: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    shown(now.saturating_sub(created))
}

fn shown(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Level;

    #[test]
    fn clocks_are_compared_both_ways() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (theirs, level, part) in [
            (now, Level::Ok, "is the server's"),
            (now + Duration::from_secs(40), Level::Warning, "40 s behind"),
            (now - Duration::from_secs(40), Level::Warning, "40 s ahead of"),
            (now + Duration::from_secs(4000), Level::Error, "4000 s behind"),
        ] {
            let finding = compare(theirs, now);
            assert!(finding.level == level && finding.message.contains(part), "{finding:?}");
        }
    }
}
