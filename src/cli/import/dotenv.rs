//! `.env` and `env_file`: the grammar of Compose.

use super::variables::{Lookup, interpolate};
use zeroize::Zeroizing;

/// One variable of a file.
pub struct Entry {
    pub name: String,
    /// `None` where only the name stands: the value is the caller's own environment's.
    pub value: Option<Zeroizing<String>>,
    /// Where it begins, from 1.
    pub line: usize,
}

/// Reads a file. A variable may use those before it; `lookup` goes before them, as the shell does. Faults name a line and no value.
pub fn parse(text: &str, lookup: Lookup<'_>) -> Result<Vec<Entry>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut rest, mut entries) = (text, Vec::<Entry>::new());
    while !rest.is_empty() {
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let statement = rest[..length].trim();
        if statement.is_empty() || statement.starts_with('#') {
            rest = &rest[length..];
            continue;
        }
        let fault = |what: &str| format!("line {line}: {what}");
        let start = rest.trim_start_matches([' ', '\t']);
        let start = start.strip_prefix("export").filter(|more| more.starts_with([' ', '\t'])).unwrap_or(start);
        let start = start.trim_start_matches([' ', '\t']);
        let end = start.find(['=', ':', '\n']).unwrap_or(start.len());
        let name = start[..end].trim();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-[]".contains(c)) {
            return Err(fault("a variable's name is expected, then `=` and its value"));
        }
        let (value, after) = match start[end..].chars().next() {
            None | Some('\n') => (None, &start[end..]),
            Some(_) => {
                let known = |wanted: &str| {
                    let before = entries.iter().rev().find(|entry| entry.name == wanted);
                    lookup(wanted).or_else(|| before.and_then(|entry| entry.value.clone()))
                };
                let (value, after) = value(&start[end + 1..], &known).map_err(|what| fault(&what))?;
                (Some(value), after)
            }
        };
        entries.push(Entry { name: name.into(), value, line });
        rest = after.split_once('\n').map_or("", |(_, more)| more);
    }
    Ok(entries)
}

/// The value at the start, and what follows it.
fn value<'a>(text: &'a str, lookup: Lookup<'_>) -> Result<(Zeroizing<String>, &'a str), String> {
    let text = text.trim_start_matches([' ', '\t']);
    match text.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            let inner = &text[1..];
            let end = quote_end(inner, quote).ok_or("a quote has no end")?;
            let raw = &inner[..end];
            let value = match quote {
                '\'' => Zeroizing::new(raw.replace("\\'", "'")),
                _ => interpolate(&unescape(raw), lookup)?.0,
            };
            Ok((value, &inner[end + 1..]))
        }
        _ => {
            let line = text.find('\n').unwrap_or(text.len());
            let plain = &text[..line];
            let comment = plain.match_indices('#').find(|(at, _)| *at == 0 || plain[..*at].ends_with([' ', '\t']));
            let plain = plain[..comment.map_or(plain.len(), |(at, _)| at)].trim();
            Ok((interpolate(plain, lookup)?.0, &text[line..]))
        }
    }
}

fn quote_end(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, character)| {
        let ends = character == quote && !escaped;
        escaped = character == '\\' && !escaped;
        ends.then_some(at)
    })
}

/// What a backslash says in double quotes; an escaped `$` is none for the interpolation either.
fn unescape(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len() * 2));
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(plain @ ('"' | '\\')) => out.push(plain),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Option<String>, usize)> {
        let entries = parse(text, &|name| (name == "SHELL_SAYS").then(|| Zeroizing::new("so".into()))).unwrap();
        entries.into_iter().map(|entry| (entry.name, entry.value.map(|v| v.to_string()), entry.line)).collect()
    }

    #[test]
    fn the_grammar_is_that_of_compose() {
        for (text, value) in [
            ("A=b", "b"),
            ("A = b ", "b"),
            ("export A=b", "b"),
            ("A: b", "b"),
            ("A=", ""),
            ("A=b#c", "b#c"),
            ("A=b # c", "b"),
            ("A= # c", ""),
            ("A='b # $c' # d", "b # $c"),
            ("A='it\\'s'", "it's"),
            ("A=\"b\\n\\\"c\\\" \\$d \\\\\" # e", "b\n\"c\" $d \\"),
            ("A=\"${NO:-x}$SHELL_SAYS\"", "xso"),
            ("A=x$SHELL_SAYS", "xso"),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A=b\r", "b"),
            ("A={\"json\": \"x\"}", "{\"json\": \"x\"}"),
        ] {
            assert_eq!(read(text), [("A".to_owned(), Some(value.to_owned()), 1)], "{text:?}");
        }
    }

    #[test]
    fn variables_follow_one_another_and_may_use_those_before() {
        let text = "\u{feff}# one\n\nA=1\nB='x\ny'\nexport C=${A}2\nD\nE=$B\n";
        let expected =
            [("A", Some("1"), 3), ("B", Some("x\ny"), 4), ("C", Some("12"), 6), ("D", None, 7), ("E", Some("x\ny"), 8)];
        let expected = expected.map(|(name, value, line)| (name.to_owned(), value.map(str::to_owned), line));
        assert_eq!(read(text), expected);
    }

    #[test]
    fn faults_name_a_line_and_no_value() {
        for (text, fault) in [
            ("A=1\nB='hunter2", "line 2: a quote has no end"),
            ("hunter2 and=x", "line 1: a variable's name is expected, then `=` and its value"),
            ("A=${hunter2", "line 1: a `${` has no `}`"),
        ] {
            assert_eq!(parse(text, &|_| None).err().unwrap(), fault);
        }
    }
}
