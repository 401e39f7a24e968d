//! The bytes of a secret, and the only ways to look at them.

use super::json::{self, FieldError};
use super::reference::Field;
use std::fmt;
use zeroize::Zeroizing;

/// The bytes of a secret: wiped when dropped, without `Display`, `Serialize` or a `Debug` that shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

// === impl SecretValue ===

impl SecretValue {
    /// Takes over `bytes`; the caller keeps no copy. Spare capacity is left as it is: the whole
    /// allocation is wiped on drop.
    pub fn new(bytes: impl Into<Zeroizing<Vec<u8>>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one who writes them where they belong.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One part of a secret that is a JSON object: a string as it is, anything else as compact JSON.
    pub fn field(&self, field: &Field) -> Result<Self, FieldError> {
        json::pick(&self.0, field)
    }

    /// Every top-level field of a secret that is a JSON object, by name.
    pub fn fields(&self) -> Result<Vec<(String, Self)>, FieldError> {
        json::fields(&self.0)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(redacted)")
    }
}

impl From<Zeroizing<String>> for SecretValue {
    fn from(mut text: Zeroizing<String>) -> Self {
        Self(Zeroizing::new(std::mem::take(&mut *text).into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_value() {
        let value = SecretValue::new(b"hunter2".to_vec());
        assert_eq!(format!("{value:?}"), "SecretValue(redacted)");
    }
}
