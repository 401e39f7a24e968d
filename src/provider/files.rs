//! Small files that hold a credential or name a trust: read bounded, and told apart when they change.

use crate::host::HostFiles;
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};
use zeroize::Zeroizing;

const LIMIT: usize = 64 * 1024;

/// What changes when a file is written or replaced; `None` where there is no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Option<(u64, u64, i64, i64)>);

// === impl Stamp ===

impl Stamp {
    pub fn of(file: &Path) -> Self {
        // The time of change tells even an in-place write of the same length, which a copied mtime hides.
        Self(fs::metadata(file).ok().map(|meta| (meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec())))
    }

    /// Of a file that a person named by its path on the host.
    pub fn of_named(host: &HostFiles, named: &Path) -> Self {
        host.locate(named).map(|file| Self::of(&file)).unwrap_or_default()
    }
}

/// The one word that a credential's file holds, without the white space around it.
pub fn read_word(host: &HostFiles, named: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = read_named(host, named)?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(format!("{} is not a text", named.display()));
    };
    match text.trim() {
        "" => Err(format!("{} is empty", named.display())),
        word if word.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Zeroizing::new(word.to_owned())),
        _ => Err(format!("{} holds more than one word", named.display())),
    }
}

/// What a file holds that a person named by its path on the host.
pub fn read_named(host: &HostFiles, named: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    read(&host.locate(named)?).map_err(|error| format!("cannot read {}: {error}", named.display()))
}

fn read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // A pipe would block and a device would never end.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + 1));
    File::open(file)?.take(LIMIT as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LIMIT { Err(io::Error::other("it is larger than 64 KiB")) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(content: &[u8]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("t"), content).unwrap();
        let word = read_word(&HostFiles::on_host(dir.path()), Path::new("/etc/dso/t"));
        word.map(|word| word.to_string())
    }

    #[test]
    fn a_credential_is_one_word_and_white_space_around_it_is_not_part_of_it() {
        assert_eq!(word(b" \n s.abc\r\n").unwrap(), "s.abc");
        assert_eq!(word(b" \n").unwrap_err(), "/etc/dso/t is empty");
        assert_eq!(word(b"hunter2 x").unwrap_err(), "/etc/dso/t holds more than one word");
        assert_eq!(word(b"\xff").unwrap_err(), "/etc/dso/t is not a text");
        assert_eq!(word(&[b'x'; LIMIT + 1]).unwrap_err(), "cannot read /etc/dso/t: it is larger than 64 KiB");
    }

    #[test]
    fn a_folder_or_nothing_in_its_place_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostFiles::on_host(dir.path());
        let error = read_word(&host, Path::new("/etc/dso/none")).unwrap_err();
        assert_eq!(error, "cannot read /etc/dso/none: No such file or directory (os error 2)");
        fs::create_dir(dir.path().join("d")).unwrap();
        let error = read_word(&host, Path::new("/etc/dso/d")).unwrap_err();
        assert_eq!(error, "cannot read /etc/dso/d: it is not a regular file");
    }

    #[test]
    fn a_file_replaced_by_one_of_the_same_length_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        fs::write(&file, "a").unwrap();
        let before = Stamp::of(&file);
        assert_eq!(before, Stamp::of(&file));
        fs::write(dir.path().join("new"), "b").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert_ne!(before, Stamp::of(&file));
        assert_ne!(Stamp::of(&file), Stamp::of(&dir.path().join("none")));
    }
}
