//! `${NAME:-default}`: interpolation as Compose does it, in its files and in `.env`.

use std::collections::BTreeSet;
use zeroize::Zeroizing;

/// Deeper defaults than anyone writes.
const DEEPEST: usize = 16;

/// Finds a variable's value.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<Zeroizing<String>>;

/// The text with its variables' values, and which variables it names. The fault names a variable and no value.
pub fn interpolate(text: &str, lookup: Lookup<'_>) -> Result<(Zeroizing<String>, BTreeSet<String>), String> {
    let mut named = BTreeSet::new();
    let value = expand(text, lookup, &mut named, 0)?;
    Ok((value, named))
}

fn expand(
    text: &str,
    lookup: Lookup<'_>,
    named: &mut BTreeSet<String>,
    depth: usize,
) -> Result<Zeroizing<String>, String> {
    if depth > DEEPEST {
        return Err("variables with defaults nest too deep".into());
    }
    let mut out = Zeroizing::new(String::with_capacity(text.len() * 2));
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let name = name(after);
        if let Some(more) = after.strip_prefix('$') {
            out.push('$');
            rest = more;
        } else if let Some(braced) = after.strip_prefix('{') {
            let end = closing(braced).ok_or("a `${` has no `}`")?;
            out.push_str(&braced_value(&braced[..end], lookup, named, depth)?);
            rest = &braced[end + 1..];
        } else if !name.is_empty() {
            named.insert(name.into());
            out.push_str(&lookup(name).unwrap_or_default());
            rest = &after[name.len()..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn braced_value(
    inner: &str,
    lookup: Lookup<'_>,
    named: &mut BTreeSet<String>,
    depth: usize,
) -> Result<Zeroizing<String>, String> {
    let name = name(inner);
    if name.is_empty() {
        return Err("a `${…}` names no variable".into());
    }
    named.insert(name.into());
    let (value, operator) = (lookup(name), &inner[name.len()..]);
    let filled = value.as_ref().is_some_and(|value| !value.is_empty());
    let mut other = |text: &str| expand(text, lookup, named, depth + 1);
    match operator.split_at(operator.len().min(if operator.starts_with(':') { 2 } else { 1 })) {
        ("", _) => Ok(value.unwrap_or_default()),
        (":-", default) if !filled => other(default),
        ("-", default) if value.is_none() => other(default),
        (":+", instead) => {
            if filled {
                other(instead)
            } else {
                Ok(Zeroizing::default())
            }
        }
        ("+", instead) => {
            if value.is_some() {
                other(instead)
            } else {
                Ok(Zeroizing::default())
            }
        }
        (":?", _) if !filled => Err(format!("the variable `{name}` is needed and has no value")),
        ("?", _) if value.is_none() => Err(format!("the variable `{name}` is needed and has no value")),
        (":-" | "-" | ":?" | "?", _) => Ok(value.unwrap_or_default()),
        _ => Err(format!("`${{{name}…}}` is no interpolation that Compose knows")),
    }
}

/// The variable's name at the start.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

/// Where the `}` is that closes what has been opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        match character {
            '{' if before == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        before = character;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_what_compose_makes_of_them() {
        let lookup = |name: &str| match name {
            "SET" => Some(Zeroizing::new("v".to_owned())),
            "EMPTY" => Some(Zeroizing::default()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("$SET-${SET}", "v-v"),
            ("$$SET a$ $1", "$SET a$ $1"),
            ("${NO:-d}${NO-d}${EMPTY:-d}[${EMPTY-d}]", "ddd[]"),
            ("${SET:+x}${EMPTY:+x}[${EMPTY+y}]${NO+z}", "x[y]"),
            ("${NO:-a${SET}b${NO:-{c}}}", "avb{c}"),
            ("postgres://u:${SET}@h/${NO:-db}", "postgres://u:v@h/db"),
            ("${SET:?needed}", "v"),
        ] {
            assert_eq!(&*interpolate(text, &lookup).unwrap().0, expected, "{text}");
        }
        let fault = |text| interpolate(text, &lookup).unwrap_err();
        assert_eq!(fault("${NO:?hunter2}"), "the variable `NO` is needed and has no value");
        assert!(fault("${NO").contains("no `}`") && fault("${}").contains("names no variable"));
        let (_, named) = interpolate("${A:-$B}$SET", &lookup).unwrap();
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["A", "B", "SET"]);
    }
}
