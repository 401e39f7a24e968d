//! Whose volumes they are: a random word, kept beside them for as long as the plugin's data are.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

const FILE: &str = "owner";
const NEW: &str = "owner.new";
const BYTES: usize = 16;

/// The word in `dir`, made if there is none that can be read.
///
/// Not synced: it is compared with what is in memory, which a crash of the machine takes as well.
pub(super) fn read_or_make(dir: &Path) -> io::Result<String> {
    let path = dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(word) if is_word(&word) => return Ok(word),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let word: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let new = dir.join(NEW);
    File::create(&new)?.write_all(word.as_bytes())?;
    fs::rename(&new, &path)?;
    Ok(word)
}

fn is_word(text: &str) -> bool {
    text.len() == 2 * BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_as_it_is_and_no_two_folders_have_the_same() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let word = read_or_make(one.path()).unwrap();
        assert!(is_word(&word));
        assert_eq!(read_or_make(one.path()).unwrap(), word);
        assert_ne!(read_or_make(other.path()).unwrap(), word);
        fs::write(one.path().join(FILE), &word[1..]).unwrap();
        assert_ne!(read_or_make(one.path()).unwrap(), word, "half of a word is none");
    }
}
