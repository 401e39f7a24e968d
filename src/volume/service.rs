//! What a Swarm secret of driver `dso` is made of: its labels, since the engine sends those and no options. Pure.

use super::{options::Source, template};
use crate::{
    faults::{self, Faults},
    secret::{RefError, SecretId, SecretRef, SecretVersion},
    units,
    volume::template::Template,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

/// Labels as Docker sends and stores them.
pub type Labels = BTreeMap<String, String>;

/// Labels that begin with this are dso's.
const PREFIX: &str = "dso.";
const REF: &str = "dso.ref";
const TEMPLATE: &str = "dso.template";
const DELIMITERS: &str = "dso.delimiters";
const ENCODING: &str = "dso.encoding";
const MAX_STALE: &str = "dso.max-stale";
/// Whether services are updated after a change: `none` opts out. On a secret, or on a service for all of its secrets.
pub const ON_ROTATE: &str = "dso.on-rotate";
/// On a service, written by dso alone: the versions that its tasks get. On a secret: those that every service has which
/// follows it.
pub const VERSIONS: &str = "dso.versions";
/// On a service, written by dso alone, before [`VERSIONS`] becomes it: what the service is about to be rotated to. After a
/// rollback by Swarm the two differ, and what differs is refused.
pub const NEXT: &str = "dso.next";
/// On a service, written by dso alone: versions that Swarm has rolled back, while others of the service are rotated.
pub const REFUSED: &str = "dso.refused";
const KNOWN: [&str; 7] = [REF, TEMPLATE, DELIMITERS, ENCODING, MAX_STALE, ON_ROTATE, VERSIONS];
/// On a service: the references that it may be given.
const ALLOW: &str = "dso.allow";
const MAX_STALE_DEFAULT: Duration = Duration::from_secs(3600);

/// A Swarm secret whose value dso gives.
#[derive(Clone, Debug)]
pub struct ServiceSecret {
    pub source: Source,
    pub encoding: Encoding,
    /// How long a last known value may serve while its provider is out of reach.
    pub max_stale: Duration,
    /// Whether the services that use it are updated after a change.
    pub rotates: bool,
}

/// Which version of which secret, in the words of [`SecretId`]'s and [`SecretVersion`]'s texts: no value, and small enough for a
/// label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions(pub BTreeMap<String, String>);

/// What the value must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Anything, byte for byte.
    #[default]
    Bytes,
    /// UTF-8.
    Text,
}

// === impl ServiceSecret ===

impl ServiceSecret {
    /// Parses a secret's labels; every fault is in the one error.
    pub fn parse(labels: &Labels) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        for name in labels.keys().filter(|name| name.starts_with(PREFIX) && !KNOWN.contains(&name.as_str())) {
            faults.push(faults::unknown("label", name, KNOWN));
        }
        let label = |name: &str| labels.get(name).map(String::as_str);
        let source = faults.note(source(&label), "labels").flatten();
        let encoding = label(ENCODING).map(encoding).transpose();
        let max_stale = label(MAX_STALE).map(units::duration).transpose();
        let rotates = label(ON_ROTATE).map(rotates).transpose();
        let encoding = faults.note(encoding, named(ENCODING)).flatten().unwrap_or_default();
        let max_stale = faults.note(max_stale, named(MAX_STALE)).flatten().unwrap_or(MAX_STALE_DEFAULT);
        let rotates = faults.note(rotates, named(ON_ROTATE)).flatten().unwrap_or(true);
        match source {
            Some(source) => faults.or(Self { source, encoding, max_stale, rotates }),
            None => Err(faults),
        }
    }

    /// The distinct secrets of its providers.
    pub fn secrets(&self) -> BTreeSet<Arc<SecretId>> {
        self.source.references().into_iter().map(|reference| reference.id.clone()).collect()
    }

    /// Whether every reference names one version for ever.
    pub fn is_pinned(&self) -> bool {
        self.source.references().iter().all(|reference| reference.id.param("version").is_some())
    }

    /// The versions that a service with these labels is on; none where it is not rotated, and so gets the newest.
    pub fn versions_for(&self, service: &Labels) -> Versions {
        match self.rotates && service_rotates(service).unwrap_or(false) {
            true => Versions::of(service, VERSIONS),
            false => Versions::default(),
        }
    }

    /// Why a service with these labels may not have it. `dso.allow` names references, separated by spaces or commas, each
    /// with `*` for any text; without the label every service may have what it names in its spec.
    pub fn refused_to(&self, service: &Labels) -> Option<String> {
        let allowed: Vec<_> = service.get(ALLOW)?.split([' ', ',']).filter(|pattern| !pattern.is_empty()).collect();
        let is_allowed = |reference: &SecretRef| allowed.iter().any(|pattern| matches(pattern, &reference.to_string()));
        let refused = self.source.references().into_iter().find(|reference| !is_allowed(reference))?;
        Some(format!("the service's label `{ALLOW}` does not name `{}://{}`", refused.id.provider(), refused.id.path()))
    }
}

// === impl Versions ===

impl Versions {
    /// As a label says; what is not of dso's writing says nothing.
    pub fn of(labels: &Labels, name: &str) -> Self {
        Self(labels.get(name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    }

    pub fn get(&self, id: &SecretId) -> Option<&String> {
        self.0.get(&id.to_string())
    }

    /// As a person knows them.
    pub fn told(&self) -> String {
        let labels = self.0.iter().map(|(id, version)| (id, SecretVersion::label_of(version)));
        serde_json::json!(labels.collect::<BTreeMap<_, _>>()).to_string()
    }

    pub fn note(&mut self, id: &SecretId, version: &SecretVersion) {
        self.0.insert(id.to_string(), version.key());
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::json!(self.0).to_string())
    }
}

/// Whether a service with these labels is updated after a change of its secrets.
pub fn service_rotates(labels: &Labels) -> Result<bool, String> {
    match labels.get(ON_ROTATE) {
        Some(text) => rotates(text).map_err(|fault| format!("{}: {fault}", named(ON_ROTATE))),
        None => Ok(true),
    }
}

fn source<'a>(label: &impl Fn(&str) -> Option<&'a str>) -> Result<Option<Source>, Faults> {
    let mut faults = Faults::default();
    let syntax = faults.note(template::syntax(label(DELIMITERS)), named(DELIMITERS));
    let source = match (label(REF), label(TEMPLATE)) {
        (Some(text), None) => {
            let reference = text.parse().map(Source::Secret).map_err(|fault: RefError| fault.of(text));
            faults.note(reference, named(REF))
        }
        (None, Some(text)) => {
            syntax.and_then(|syntax| faults.note(Template::parse(text, syntax).map(Source::Template), named(TEMPLATE)))
        }
        (Some(_), Some(_)) => {
            faults.push(format!("two sources: `{REF}` and `{TEMPLATE}`"));
            None
        }
        (None, None) => {
            faults.push(format!(
                "`{REF}` or `{TEMPLATE}` is needed: `docker secret create -d dso -l {REF}=vault://… NAME`"
            ));
            None
        }
    };
    faults.or(source)
}

fn encoding(text: &str) -> Result<Encoding, String> {
    match text {
        "bytes" => Ok(Encoding::Bytes),
        "text" => Ok(Encoding::Text),
        _ => Err("must be `bytes` or `text`".into()),
    }
}

fn rotates(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "update" => Ok(true),
        _ => {
            Err("must be `update` or `none`: Swarm replaces its tasks itself, as the service's `update_config` says"
                .into())
        }
    }
}

fn named(label: &str) -> String {
    format!("label `{label}`")
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn fault(pairs: &[(&str, &str)]) -> String {
        ServiceSecret::parse(&labels(pairs)).unwrap_err().to_string()
    }

    #[test]
    fn labels_say_what_a_secret_is_made_of() {
        let secret = ServiceSecret::parse(&labels(&[("dso.ref", "v://app#pin"), ("com.example", "theirs")])).unwrap();
        assert_eq!(secret.secrets().iter().map(ToString::to_string).collect::<Vec<_>>(), ["v://app"]);
        assert_eq!((secret.encoding, secret.max_stale, secret.rotates), (Encoding::Bytes, MAX_STALE_DEFAULT, true));
        assert!(!secret.is_pinned());
        let template = [
            ("dso.template", "[[ secret('v://app?version=3#pin') ]]"),
            ("dso.delimiters", "[[ ]]"),
            ("dso.encoding", "text"),
            ("dso.max-stale", "5m"),
            ("dso.on-rotate", "none"),
        ];
        let secret = ServiceSecret::parse(&labels(&template)).unwrap();
        assert_eq!((secret.encoding, secret.max_stale.as_secs(), secret.rotates), (Encoding::Text, 300, false));
        assert!(secret.is_pinned());
    }

    #[test]
    fn every_fault_is_told_at_once_and_names_its_label() {
        assert_eq!(
            fault(&[]),
            "labels: `dso.ref` or `dso.template` is needed: `docker secret create -d dso -l dso.ref=vault://… NAME`"
        );
        assert_eq!(
            fault(&[("dso.ref", "v://app"), ("dso.template", "x"), ("dso.encodng", "text"), ("dso.max-stale", "soon")]),
            "unknown label `dso.encodng`: did you mean `dso.encoding`?; labels: two sources: `dso.ref` and `dso.template`; \
             label `dso.max-stale`: `soon` is no time: write it as `30s`, `5m` or `1h30m`"
        );
        assert!(fault(&[("dso.ref", "v://app"), ("dso.on-rotate", "rolling")]).contains("must be `update` or `none`"));
        assert_eq!(
            fault(&[("dso.ref", "canary")]),
            "labels: label `dso.ref`: not a secret reference: expected <provider>://<where>[?<parameters>][#<field>]"
        );
    }

    #[test]
    fn a_service_is_given_what_its_label_names() {
        let secret = ServiceSecret::parse(&labels(&[("dso.ref", "v://team/app/db#password")])).unwrap();
        for (allow, refused) in [
            ("v://team/app/db#password", false),
            ("v://other/*, v://team/app/*", false),
            ("v://*/db#*", false),
            ("*", false),
            ("", true),
            ("v://team/app/d", true),
            ("v://team/ap", true),
            ("*v://team/app/db", true),
            ("v://team/*/db", true),
        ] {
            assert_eq!(secret.refused_to(&labels(&[("dso.allow", allow)])).is_some(), refused, "{allow}");
        }
        assert_eq!(secret.refused_to(&labels(&[])), None);
        assert_eq!(
            secret.refused_to(&labels(&[("dso.allow", "v://x")])).unwrap(),
            "the service's label `dso.allow` does not name `v://team/app/db`"
        );
    }
}
