//! What to do to a container once its files have changed: `dso.on-rotate`, `on-rotate` and the setting of that name.

use crate::faults;
use std::{fmt, str::FromStr};

/// The signals that a container may be sent, without `SIG`. signal(7); those that nobody can take notice of are left out.
const SIGNALS: [&str; 14] =
    ["HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "PIPE", "ALRM", "TERM", "CHLD", "CONT", "WINCH", "URG", "IO"];
const ACTIONS: [&str; 5] = ["none", "signal", "exec", "restart", "rolling"];

/// How a container learns of new files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnRotate {
    /// It reads them by itself.
    #[default]
    None,
    /// Its first process is sent this, as in `SIGHUP`.
    Signal(String),
    /// This is run in it. No shell: the words are an argument vector.
    Exec(Vec<String>),
    Restart,
    /// Another one takes its place once that is healthy.
    Rolling,
}

// === impl OnRotate ===

impl FromStr for OnRotate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (action, argument) = match text.split_once(':') {
            Some((action, argument)) => (action, Some(argument)),
            None => (text, None),
        };
        match (action, argument) {
            ("none", None) => Ok(Self::None),
            ("signal", None) => Ok(Self::Signal("SIGHUP".into())),
            ("signal", Some(name)) => signal(name).map(Self::Signal),
            ("exec", Some(command)) => command_of(command).map(Self::Exec),
            ("exec", None) => Err("`exec` needs a command: write it as `exec:nginx -s reload`".into()),
            ("restart", None) => Ok(Self::Restart),
            ("rolling", None) => Ok(Self::Rolling),
            ("none" | "restart" | "rolling", Some(_)) => {
                Err(format!("`{text}`: `{action}` takes nothing after a colon"))
            }
            _ => Err(faults::unknown("action", action, ACTIONS)),
        }
    }
}

impl fmt::Display for OnRotate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Signal(name) => write!(f, "signal:{name}"),
            Self::Exec(command) => write!(f, "exec:{}", shell_words::join(command)),
            Self::Restart => f.write_str("restart"),
            Self::Rolling => f.write_str("rolling"),
        }
    }
}

fn signal(name: &str) -> Result<String, String> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    match SIGNALS.contains(&short) {
        true => Ok(format!("SIG{short}")),
        false => Err(faults::unknown("signal", short, SIGNALS)),
    }
}

fn command_of(text: &str) -> Result<Vec<String>, String> {
    let words = shell_words::split(text).map_err(|_| format!("`exec:{text}`: a quote is not closed"))?;
    match words.first().is_some_and(|program| !program.is_empty()) {
        true => Ok(words),
        false => Err("`exec:` needs a command: write it as `exec:nginx -s reload`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_reads_back_as_it_was_written() {
        for text in ["none", "signal:SIGHUP", "signal:SIGUSR1", "exec:nginx -s reload", "restart", "rolling"] {
            assert_eq!(text.parse::<OnRotate>().map(|parsed| parsed.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("signal".parse(), Ok(OnRotate::Signal("SIGHUP".into())));
        assert_eq!("signal:hup".parse(), Ok(OnRotate::Signal("SIGHUP".into())));
        let words = ["sh", "-c", "kill -1 $(cat '/a b')", ""].map(str::to_owned).to_vec();
        assert_eq!("exec:sh -c \"kill -1 \\$(cat '/a b')\" ''".parse(), Ok(OnRotate::Exec(words)));
    }

    #[test]
    fn what_is_no_action_is_refused_with_the_nearest_one() {
        for (text, message) in [
            ("restrat", "unknown action `restrat`: did you mean `restart`?"),
            ("", "unknown action ``: known are `none`, `signal`, `exec`, `restart`, `rolling`"),
            ("restart:now", "`restart:now`: `restart` takes nothing after a colon"),
            ("signal:SIGHPU", "unknown signal `HPU`: did you mean `HUP`?"),
            ("exec", "`exec` needs a command: write it as `exec:nginx -s reload`"),
            ("exec:", "`exec:` needs a command: write it as `exec:nginx -s reload`"),
            ("exec:a 'b", "`exec:a 'b`: a quote is not closed"),
        ] {
            assert_eq!(text.parse::<OnRotate>(), Err(message.to_owned()), "{text}");
        }
    }
}
