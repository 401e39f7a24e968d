//! Secret references: `<provider>://<where>[?<parameters>][#<field>]`.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};
use thiserror::Error;

/// One distinct secret: what a provider is asked for, whatever field of it is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretId {
    provider: String,
    path: String,
    params: BTreeMap<String, String>,
}

/// A secret, or one field of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRef {
    pub id: Arc<SecretId>,
    pub field: Option<Field>,
}

/// Which part of a secret a file gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// A key of the secret's top level.
    Name(String),
    /// A JSON Pointer (RFC 6901); starts with `/`.
    Pointer(String),
}

/// Why a text is not a secret reference. It names the fault, never the text: see [`RefError::of`].
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RefError {
    #[error("not a secret reference: expected <provider>://<where>[?<parameters>][#<field>]")]
    NoScheme,
    #[error("the provider's name `{0}` must be lower-case letters, digits and `-`, and start with a letter")]
    BadScheme(String),
    #[error("it names no secret after `://`")]
    NoPath,
    #[error("`..`, `.` and empty segments are not allowed in the secret's path")]
    BadPath,
    #[error("it has a control character")]
    Control,
    #[error("a reference carries no user name or password: dso logs in with the host's identity")]
    Credential,
    #[error("parameter `{0}` must be written <name>=<value>")]
    BadParam(String),
    #[error("parameter `{0}` is given twice")]
    TwiceParam(String),
    #[error("the field after `#` is empty")]
    NoField,
    #[error("the JSON Pointer has a `~` that is not `~0` or `~1`")]
    BadPointer,
}

// === impl RefError ===

impl RefError {
    /// The fault of `text`, with the text only if it looks like a reference without parameters and user: a
    /// value that was written where a reference belongs must not reach a message.
    pub fn of(&self, text: &str) -> String {
        if text.contains("://") && !text.contains(['@', '?']) { format!("`{text}`: {self}") } else { self.to_string() }
    }
}

// === impl SecretId ===

impl SecretId {
    /// The provider instance that holds the secret: the reference's scheme.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Where the secret is, in its provider's own terms.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn params(&self) -> &BTreeMap<String, String> {
        &self.params
    }

    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    /// The same secret, pinned to one version: a reference with `?version=`. Whether its provider has such, its
    /// `validate` says.
    pub fn pinned(&self, version: &str) -> Self {
        let mut pinned = self.clone();
        pinned.params.remove("stage");
        pinned.params.insert("version".into(), version.into());
        pinned
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider, self.path)?;
        for (n, (name, value)) in self.params.iter().enumerate() {
            write!(f, "{}{name}={value}", if n == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl FromStr for SecretId {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        if text.chars().any(char::is_control) {
            return Err(RefError::Control);
        }
        let (provider, rest) = text.split_once("://").ok_or(RefError::NoScheme)?;
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !provider.starts_with(|c: char| c.is_ascii_lowercase()) || !provider.chars().all(legal) {
            return Err(RefError::BadScheme(provider.into()));
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        check_path(path)?;
        Ok(Self { provider: provider.into(), path: path.into(), params: parse_params(query)? })
    }
}

fn check_path(path: &str) -> Result<(), RefError> {
    if path.is_empty() {
        return Err(RefError::NoPath);
    }
    let first = path.split('/').next().unwrap_or_default();
    if first.contains('@') && first.contains(':') {
        return Err(RefError::Credential);
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(RefError::BadPath);
    }
    Ok(())
}

fn parse_params(query: Option<&str>) -> Result<BTreeMap<String, String>, RefError> {
    let mut params = BTreeMap::new();
    for part in query.into_iter().flat_map(|q| q.split('&')) {
        match part.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                if params.insert(name.into(), value.into()).is_some() {
                    return Err(RefError::TwiceParam(name.into()));
                }
            }
            // The name alone: what follows a `=` may be anything, and is not for a message.
            _ => return Err(RefError::BadParam(part.split('=').next().unwrap_or_default().into())),
        }
    }
    Ok(params)
}

// === impl SecretRef ===

impl FromStr for SecretRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        let (id, field) = match text.split_once('#') {
            Some((id, field)) => (id, Some(field.parse()?)),
            None => (text, None),
        };
        Ok(Self { id: Arc::new(id.parse()?), field })
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            None => write!(f, "{}", self.id),
            Some(field) => write!(f, "{}#{field}", self.id),
        }
    }
}

// === impl Field ===

impl FromStr for Field {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        if text.is_empty() {
            return Err(RefError::NoField);
        }
        if text.chars().any(char::is_control) {
            return Err(RefError::Control);
        }
        if !text.starts_with('/') {
            return Ok(Self::Name(text.into()));
        }
        let escapes_end_well = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        escapes_end_well.then(|| Self::Pointer(text.into())).ok_or(RefError::BadPointer)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Pointer(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SecretRef, RefError> {
        text.parse()
    }

    #[test]
    fn a_reference_reads_back_as_it_was_written() {
        for text in [
            "vault://secret/app/db#password",
            "vault://secret/app/db?version=3",
            "aws://arn:aws:secretsmanager:eu-central-1:123456789012:secret:app-AbCdEf?region=eu-central-1&stage=AWSPREVIOUS#/a/b/0",
            "local://größe/ключ#feld",
            "vault-eu://a#x#y",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_field_is_not_part_of_the_distinct_secret() {
        let (a, b) = (parse("vault://s/a#x").unwrap(), parse("vault://s/a#/y/0").unwrap());
        assert_eq!(a.id, b.id);
        assert_eq!(b.field, Some(Field::Pointer("/y/0".into())));
        assert_ne!(a.id, parse("vault://s/a?version=1").unwrap().id);
    }

    #[test]
    fn every_malformed_reference_has_its_own_fault() {
        for (text, fault) in [
            ("secret/app", RefError::NoScheme),
            ("Vault://a", RefError::BadScheme("Vault".into())),
            ("://a", RefError::BadScheme(String::new())),
            ("vault://", RefError::NoPath),
            ("vault://#f", RefError::NoPath),
            ("vault://a/../b", RefError::BadPath),
            ("vault:///a", RefError::BadPath),
            ("vault://a/", RefError::BadPath),
            ("vault://a\n", RefError::Control),
            ("vault://user:pass@host/a", RefError::Credential),
            ("vault://a?version", RefError::BadParam("version".into())),
            ("vault://a?version=1&version=2", RefError::TwiceParam("version".into())),
            ("vault://a#", RefError::NoField),
            ("vault://a#/x~2", RefError::BadPointer),
            ("vault://a#/x~", RefError::BadPointer),
        ] {
            assert_eq!(parse(text).unwrap_err(), fault, "{text:?}");
        }
    }
}
