//! Asking before anything is changed.

use super::{Failure, say};
use std::io::{self, BufRead, IsTerminal, Write};

/// Goes on if a person says so, or `--yes` did. Without either nothing is done: a script that forgot `--yes` shall not hang.
pub fn go_on(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Failed(
            "nothing was changed: there is no terminal to ask at; look at what is listed above, and give `--yes`"
                .into(),
        ));
    }
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if !answer.ends_with('\n') {
        say("");
    }
    match read {
        Ok(_) if is_yes(&answer) => Ok(()),
        Ok(_) => Err(Failure::Failed("nothing was changed".into())),
        Err(error) => Err(Failure::Failed(format!("cannot ask at the terminal: {error}; nothing was changed"))),
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_a_yes() {
        assert!(is_yes("y\n") && is_yes(" YES \n"));
        for answer in ["", "\n", "n\n", "yy\n", "no yes\n"] {
            assert!(!is_yes(answer), "{answer:?}");
        }
    }
}
