//! Times, sizes, modes and owners as people write them. Stands beneath everything, and imports nothing.

use std::time::Duration;

/// A check more often than this is a load on the provider and no use to anyone.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// A check less often than this is `0`; and the time of the next one is still a date that can be shown.
const REFRESH_MAX: Duration = Duration::from_secs(365 * 86400);

/// `30s`, `1h30m`; `0` is zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|_| format!("`{text}` is no time: write it as `30s`, `5m` or `1h30m`"))
}

/// How often to check for a new version: `0` for never, else a second or more.
pub fn refresh(text: &str) -> Result<Duration, String> {
    let refresh = duration(text)?;
    if !refresh.is_zero() && refresh < REFRESH_MIN {
        return Err(format!("`{text}` is too often: at least `1s`, or `0` for never"));
    }
    if refresh > REFRESH_MAX {
        return Err(format!("`{text}` is too seldom: at most `365d`, or `0` for never"));
    }
    Ok(refresh)
}

/// Bytes with Docker's suffixes, powers of 1024: `512k`, `1m`, `64m`.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write it as `512k` or `1m`");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Permission bits in octal: `0440`.
pub fn mode(text: &str) -> Result<u32, String> {
    let octal = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(octal, 8).ok().filter(|mode| *mode <= 0o777 && !octal.starts_with('+'));
    mode.ok_or_else(|| format!("`{text}` is no mode: write it in octal, from `0000` to `0777`"))
}

/// A numeric user or group.
pub fn id(text: &str) -> Result<u32, String> {
    // 2^32-1 means "leave it as it is" to chown(2).
    let id = text.parse::<u32>().ok().filter(|id| *id != u32::MAX && !text.starts_with('+'));
    id.ok_or_else(|| format!("`{text}` is no numeric id: names are the container's own and unknown here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("1m"), Ok(1 << 20));
        assert_eq!(size("512K"), Ok(512 << 10));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("7"), Ok(7));
        for bad in ["", "m", "-1m", "1.5m", "1 m", "99999999999g"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn modes_are_octal_and_have_no_set_id_bits() {
        assert_eq!(mode("0440"), Ok(0o440));
        assert_eq!(mode("644"), Ok(0o644));
        assert_eq!(mode("0"), Ok(0));
        for bad in ["", "4755", "0x1", "rw-r--r--", "888", "+44"] {
            assert!(mode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_have_units_and_ids_are_numbers() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("30").is_err());
        assert_eq!(refresh("365d"), Ok(Duration::from_secs(365 * 86400)));
        for bad in ["999ms", "366d", "9999y", "10000000000000000000s"] {
            assert!(refresh(bad).is_err(), "{bad:?}");
        }
        assert_eq!(id("1000"), Ok(1000));
        for bad in ["root", "-1", "4294967295", "+1"] {
            assert!(id(bad).is_err(), "{bad:?}");
        }
    }
}
