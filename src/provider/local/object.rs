//! Setting one field of a secret that is a JSON object. Every other field stays as it was written.

use crate::secret::SecretValue;
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap};
use zeroize::Zeroizing;

/// `old`, or an empty object, with `field` set to the text `value`.
pub fn with_field(old: Option<&SecretValue>, field: &str, value: &SecretValue) -> Result<SecretValue, &'static str> {
    let Ok(text) = std::str::from_utf8(value.expose()) else {
        return Err(
            "the value is not text (UTF-8), which a field of a JSON object must be; set it as a secret of its own",
        );
    };
    let bytes = old.map_or(&b"{}"[..], SecretValue::expose);
    let Ok(mut fields) = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(bytes) else {
        return Err("the secret is not a JSON object; set it whole, or remove it first");
    };
    fields.remove(field);
    // Escaping makes a byte six at most, so the buffer never grows.
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() * 6 + field.len() * 6 + text.len() * 6 + 64));
    out.push(b'{');
    for (name, raw) in &fields {
        push_text(&mut out, name);
        out.push(b':');
        out.extend_from_slice(raw.get().as_bytes());
        out.push(b',');
    }
    push_text(&mut out, field);
    out.push(b':');
    push_text(&mut out, text);
    out.push(b'}');
    Ok(SecretValue::new(out))
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    // Writing a text to memory cannot fail.
    let done = serde_json::to_writer(out, text);
    debug_assert!(done.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(old: Option<&str>, field: &str, value: &[u8]) -> Result<String, &'static str> {
        let old = old.map(|text| SecretValue::new(text.as_bytes().to_vec()));
        let new = with_field(old.as_ref(), field, &SecretValue::new(value.to_vec()))?;
        Ok(String::from_utf8(new.expose().to_vec()).unwrap())
    }

    #[test]
    fn the_other_fields_keep_their_digits_and_the_object_is_made_if_new() {
        assert_eq!(set(None, "a", b"x\n\"").unwrap(), r#"{"a":"x\n\""}"#);
        let old = r#"{ "a": 1, "n": 12345678901234567890123, "o": {"b": 1.0} }"#;
        assert_eq!(set(Some(old), "a", b"2").unwrap(), r#"{"n":12345678901234567890123,"o":{"b": 1.0},"a":"2"}"#);
    }

    #[test]
    fn what_is_no_object_or_no_text_is_refused() {
        for old in ["plain", "[1]", ""] {
            assert!(set(Some(old), "a", b"x").unwrap_err().starts_with("the secret is not a JSON object"));
        }
        assert!(set(None, "a", b"\xff").unwrap_err().starts_with("the value is not text"));
    }
}
