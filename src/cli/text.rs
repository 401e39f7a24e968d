//! Text for people: how long ago, what colour, and nothing that would drive their terminal.

use std::{
    io::{self, IsTerminal},
    time::{Duration, SystemTime},
};

/// How stdout is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub terminal: bool,
    pub colour: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    None,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

// === impl Style ===

impl Style {
    /// Colour only on a terminal that has some, and never with `NO_COLOR`.
    pub fn of_stdout(env: fn(&str) -> Option<String>) -> Self {
        let terminal = io::stdout().is_terminal();
        let dumb = env("TERM").is_some_and(|term| term == "dumb");
        Self { terminal, colour: terminal && !dumb && env("NO_COLOR").is_none() }
    }

    pub fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            _ if !self.colour || text.is_empty() => return text.to_owned(),
            Colour::None => return text.to_owned(),
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// What others have written, in one line that a terminal shows as it is.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' | '\r' => shown.push(' '),
            _ if character.is_control() => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown.trim_end().to_owned()
}

/// `3 minutes ago`. What a clock that is ahead says is now.
pub fn ago(now: SystemTime, time: SystemTime) -> String {
    format!("{} ago", lasting(now.duration_since(time).unwrap_or_default()))
}

/// `in 3 minutes`, or `now` where it is due.
pub fn ahead(now: SystemTime, time: SystemTime) -> String {
    match time.duration_since(now) {
        Ok(wait) if wait >= Duration::from_secs(1) => format!("in {}", lasting(wait)),
        _ => "now".into(),
    }
}

/// A length of time in Docker's own words.
pub fn lasting(length: Duration) -> String {
    let seconds = length.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "less than a second".into(),
        (1, ..) => "1 second".into(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "about a minute".into(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "about an hour".into(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

pub fn time(rfc3339: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(rfc3339).ok()
}

/// `1 file`, `3 files`.
pub fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_in_dockers_words() {
        for (seconds, words) in [
            (0, "less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "about a minute"),
            (119, "about a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "about an hour"),
            (7200, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (15 * 86400, "2 weeks"),
            (70 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(lasting(Duration::from_secs(seconds)), words, "{seconds}");
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(ago(now, now + Duration::from_secs(5)), "less than a second ago");
        assert_eq!(ahead(now, now + Duration::from_secs(5)), "in 5 seconds");
        assert_eq!(ahead(now, now - Duration::from_secs(5)), "now");
    }

    #[test]
    fn what_would_drive_a_terminal_is_shown_instead() {
        assert_eq!(plain("a\x1b[31mb\nc\u{9b}"), "a\\u{1b}[31mb c\\u{9b}");
    }

    #[test]
    fn colour_is_for_terminals() {
        let style = |colour| Style { terminal: true, colour };
        assert_eq!(style(true).paint(Colour::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(style(false).paint(Colour::Red, "x"), "x");
    }
}
