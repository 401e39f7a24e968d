//! What an examination finds, and what to do about it. Stands beneath everything, and imports nothing.

use serde::{Deserialize, Serialize};

/// One thing that was looked at. Holds no value, token or key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, in a word: `engine`, `provider`, `volume`, …
    pub check: String,
    pub level: Level,
    /// Of which engine, provider, file or volume.
    pub subject: String,
    pub message: String,
    /// What to do; empty where nothing is to be done.
    pub advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, and could fail or protects less than it could.
    Warning,
    /// Something does not work.
    Error,
}

// === impl Finding ===

impl Finding {
    pub fn ok(check: &str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, subject, message, "")
    }

    pub fn warning(
        check: &str,
        subject: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(Level::Warning, check, subject, message, advice)
    }

    pub fn error(
        check: &str,
        subject: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(Level::Error, check, subject, message, advice)
    }

    fn new(
        level: Level,
        check: &str,
        subject: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (subject, message, advice) = (subject.into(), message.into(), advice.into());
        Self { check: check.into(), level, subject, message, advice }
    }
}

// === impl Level ===

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}
