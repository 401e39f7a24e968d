//! Asking a person for a value that is not shown.
//!
//! Not the crate rpassword: it hides what is typed only after its prompt stands, so that a quick paste is
//! seen; it ends the process at Ctrl-C before it has set the terminal back; and its text grows unwiped.

use super::Failure;
use rustix::{
    io::Errno,
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
};
use zeroize::Zeroizing;

/// What a person can type or paste; the buffer never grows, and so leaves no copy behind.
const LIMIT: usize = 64 * 1024;

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;

/// A terminal that shows nothing of what is typed, and passes every key on at once, while this lives.
struct Hidden {
    terminal: File,
    before: Termios,
}

/// What a key did to a line.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    Taken,
    Enter,
    Abort,
    /// A key that is no text, such as an arrow.
    Strange,
    TooLong,
}

/// Asks twice for the value of `what`.
pub fn twice(what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut hidden = Hidden::open().map_err(failed)?;
    let first = hidden.ask(&format!("Value of {what} (not shown): "))?;
    let again = hidden.ask("Once more: ")?;
    if *first == *again { Ok(first) } else { Err(Failure::Failed("the two values differ; nothing was changed".into())) }
}

fn failed(error: io::Error) -> Failure {
    Failure::Failed(format!("cannot ask at the terminal: {error}; give the value on stdin"))
}

// === impl Hidden ===

impl Hidden {
    /// Also forgets what was typed before: it was seen.
    fn open() -> io::Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        // Line by line the kernel would cut a long paste at 4096 bytes; a signal would leave the terminal hidden.
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }

    fn ask(&mut self, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.terminal.write_all(prompt.as_bytes()).map_err(failed)?;
        let mut line = Zeroizing::new(Vec::with_capacity(LIMIT));
        let last = loop {
            match press(&mut line, self.key().map_err(failed)?) {
                Key::Taken => {}
                last => break last,
            }
        };
        self.terminal.write_all(b"\n").map_err(failed)?;
        match last {
            Key::Strange => Err(Failure::Failed(
                "a key that is no text was pressed; nothing was changed (give a value with control characters on stdin)"
                    .into(),
            )),
            Key::TooLong => Err(Failure::Failed("the value is too long to be typed; give it on stdin".into())),
            Key::Abort => Err(Failure::Failed("no value was given; nothing was changed".into())),
            Key::Enter | Key::Taken => Ok(line),
        }
    }

    /// The next byte; where the terminal went away, as if Ctrl-C was pressed.
    fn key(&self) -> io::Result<u8> {
        let mut byte = Zeroizing::new([0]);
        loop {
            match rustix::io::read(&self.terminal, &mut byte[..]) {
                Ok(0) => return Ok(CTRL_C),
                Ok(_) => return Ok(byte[0]),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Hidden {
    /// Drops what was typed and not read: the lines after the first of a paste would run in the shell.
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

fn press(line: &mut Vec<u8>, key: u8) -> Key {
    match key {
        b'\n' | b'\r' => return Key::Enter,
        CTRL_C => return Key::Abort,
        CTRL_D if line.is_empty() => return Key::Abort,
        CTRL_U => line.clear(),
        // A whole character of UTF-8: its first byte, and those that go on from it.
        BACKSPACE | DELETE => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
        // Control characters but for the tab.
        0..=8 | 10..=31 => return Key::Strange,
        _ if line.len() == LIMIT => return Key::TooLong,
        _ => line.push(key),
    }
    Key::Taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> (Vec<u8>, Key) {
        let mut line = Vec::new();
        let last = keys.bytes().map(|key| press(&mut line, key)).find(|key| *key != Key::Taken);
        (line, last.unwrap_or(Key::Taken))
    }

    #[test]
    fn keys_edit_the_line_as_a_terminal_does() {
        for (keys, line, last) in [
            ("pässwörd \tx\n", "pässwörd \tx", Key::Enter),
            ("aö\u{7f}\u{8}b\r", "b", Key::Enter),
            ("\u{7f}a\n", "a", Key::Enter),
            ("wrong\u{15}right\n", "right", Key::Enter),
            ("abc\u{3}", "abc", Key::Abort),
            ("\u{4}", "", Key::Abort),
            ("a\u{1b}[D\n", "a", Key::Strange),
        ] {
            assert_eq!(typed(keys), (line.as_bytes().to_vec(), last), "{keys:?}");
        }
    }

    #[test]
    fn a_line_past_the_limit_is_refused_rather_than_cut() {
        assert_eq!(typed(&"x".repeat(LIMIT + 1)).1, Key::TooLong);
        assert_eq!(typed(&("x".repeat(LIMIT) + "\n")).1, Key::Enter);
    }
}
