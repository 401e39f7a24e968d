//! Fields of secrets that are JSON. Works on the raw text, so that a number or an object reaches a
//! file with the digits and escapes that its provider sent.

use super::{reference::Field, value::SecretValue};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap};
use thiserror::Error;
use zeroize::Zeroizing;

type Object<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Why a field cannot be had. It names fields, never values.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FieldError {
    #[error("the secret is not a JSON object, so it has no fields")]
    NotAnObject,
    #[error("the secret has no field `{field}`; it has {known}")]
    Missing { field: String, known: String },
    #[error("the JSON Pointer `{0}` leads to nothing")]
    Nowhere(String),
}

pub(super) fn fields(bytes: &[u8]) -> Result<Vec<(String, SecretValue)>, FieldError> {
    Ok(object(bytes)?.into_iter().map(|(name, raw)| (name.into_owned(), text_of(raw))).collect())
}

pub(super) fn pick(bytes: &[u8], field: &Field) -> Result<SecretValue, FieldError> {
    match field {
        Field::Name(name) => {
            let object = object(bytes)?;
            let found = object.get(name.as_str());
            found.map(|raw| text_of(raw)).ok_or_else(|| missing(name, &object))
        }
        Field::Pointer(pointer) => {
            let mut at = root(bytes)?;
            for token in pointer.split('/').skip(1) {
                let token = token.replace("~1", "/").replace("~0", "~");
                at = step(at, &token).ok_or_else(|| FieldError::Nowhere(pointer.clone()))?;
            }
            Ok(text_of(at))
        }
    }
}

fn root(bytes: &[u8]) -> Result<&RawValue, FieldError> {
    serde_json::from_slice(bytes).map_err(|_| FieldError::NotAnObject)
}

fn object(bytes: &[u8]) -> Result<Object<'_>, FieldError> {
    serde_json::from_str(root(bytes)?.get()).map_err(|_| FieldError::NotAnObject)
}

fn missing(name: &str, object: &Object<'_>) -> FieldError {
    let known: Vec<_> = object.keys().take(20).map(|key| format!("`{key}`")).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    FieldError::Missing { field: name.into(), known }
}

/// One token of a JSON Pointer: RFC 6901 §4 refuses array indices with leading zeros.
fn step<'a>(at: &'a RawValue, token: &str) -> Option<&'a RawValue> {
    match at.get().as_bytes().first()? {
        b'{' => serde_json::from_str::<Object<'a>>(at.get()).ok()?.get(token).copied(),
        b'[' => {
            let plain = token == "0" || !token.starts_with(['0', '+']);
            let index: usize = token.parse().ok().filter(|_| plain)?;
            serde_json::from_str::<Vec<&RawValue>>(at.get()).ok()?.get(index).copied()
        }
        _ => None,
    }
}

fn text_of(raw: &RawValue) -> SecretValue {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => Zeroizing::new(text).into(),
        Err(_) => SecretValue::new(compact(raw.get())),
    }
}

/// JSON text without the white space between its tokens.
fn compact(text: &str) -> Vec<u8> {
    let (mut out, mut quoted, mut escaped) = (Vec::with_capacity(text.len()), false, false);
    for byte in text.bytes() {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            quoted = byte == b'"';
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = r#"{ "user": "app\n", "n": 12345678901234567890123, "nest": { "a": [ 1, {"b": "x y"} ], "/": "s", "~": "t" },
        "no": null, "q": "\"\\\" {", "": "empty" }"#;

    fn get(field: &str) -> Result<String, FieldError> {
        let picked = pick(DOC.as_bytes(), &field.parse().unwrap())?;
        Ok(String::from_utf8(picked.expose().to_vec()).unwrap())
    }

    #[test]
    fn a_string_is_written_as_it_is_and_the_rest_as_compact_json() {
        assert_eq!(get("user").unwrap(), "app\n");
        assert_eq!(get("n").unwrap(), "12345678901234567890123");
        assert_eq!(get("nest").unwrap(), r#"{"a":[1,{"b":"x y"}],"/":"s","~":"t"}"#);
        assert_eq!(get("no").unwrap(), "null");
        assert_eq!(get("q").unwrap(), "\"\\\" {");
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        assert_eq!(get("/nest/a/1/b").unwrap(), "x y");
        assert_eq!(get("/nest/a/0").unwrap(), "1");
        assert_eq!(get("/nest/~1").unwrap(), "s");
        assert_eq!(get("/nest/~0").unwrap(), "t");
        assert_eq!(get("/").unwrap(), "empty");
        for nowhere in ["/nest/a/2", "/nest/a/00", "/nest/a/-", "/user/0", "/none"] {
            assert_eq!(get(nowhere).unwrap_err(), FieldError::Nowhere(nowhere.into()));
        }
    }

    #[test]
    fn a_missing_field_names_those_there_are_and_no_value() {
        let error = pick(br#"{"user":"hunter2","pin":"1234"}"#, &"pass".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the secret has no field `pass`; it has `pin`, `user`");
    }

    #[test]
    fn what_is_not_an_object_has_no_fields() {
        for bytes in [&b"plain"[..], b"[1]", b"", b"\xff\xfe", b"{\"a\":1} x"] {
            assert_eq!(fields(bytes).unwrap_err(), FieldError::NotAnObject);
        }
    }
}
