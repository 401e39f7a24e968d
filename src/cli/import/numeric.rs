//! Values without quotes that Compose takes for numbers or dates, and hands to the container in another writing: `0123` as
//! `83`, `1.10` as `1.1`. Which of the two a person meant cannot be told.

/// Whether a plain word would come out of Compose otherwise than it stands there.
pub fn is_rewritten(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '_');
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    if digits(unsigned) {
        let plain = unsigned.len() <= 18 && !unsigned.contains('_') && (unsigned == "0" || !unsigned.starts_with('0'));
        return !plain || word.starts_with('+');
    }
    let based = |prefix: &str, radix: u32| {
        let rest = unsigned.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        rest.is_some_and(|rest| rest.chars().all(|c| c == '_' || c.is_digit(radix)))
    };
    based("0x", 16) || based("0o", 8) || based("0b", 2) || is_float(unsigned) || is_date(word)
}

fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '_');
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let of_digits = digits(whole) && digits(part) && (whole.len() + part.len() > 0);
    let raised = exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    let infinite = matches!(unsigned.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    infinite || of_digits && raised && (exponent.is_some() || mantissa.contains('.'))
}

fn is_date(word: &str) -> bool {
    let date = word.split(['T', 't', ' ']).next().unwrap_or_default();
    let parts: Vec<&str> = date.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let digits = parts.iter().all(|part| part.chars().all(|c| c.is_ascii_digit()));
    digits && matches!(lengths[..], [4, 1..=2, 1..=2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compose_would_write_otherwise_is_known() {
        for word in [
            "0123",
            "1.10",
            "1e3",
            "12345e6789",
            "0x10",
            "2020-01-01",
            "2020-01-01T00:00:00Z",
            "1_000",
            "123456789012345678901234567890",
            "0o17",
            "0b101",
            "+5",
            "012389",
            "1.",
            ".5",
            "-.5",
            "5e-7",
            ".inf",
        ] {
            assert!(is_rewritten(word), "{word}");
        }
        for word in [
            "12345678",
            "-5",
            "0",
            "1:30",
            "1.2.3",
            "abc",
            "0xg",
            "123e4567-e89b",
            "1e",
            "e3",
            "2020-01",
            "20-01-01",
            "",
            "10.0.0.1",
            "deadbeef",
            "1-2-3",
        ] {
            assert!(!is_rewritten(word), "{word}");
        }
    }
}
