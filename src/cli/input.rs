//! A secret's value from stdin.

use super::Failure;
use rustix::{fd::AsFd, io::Errno};
use zeroize::Zeroizing;

/// Reads stdin to its end, in buffers that are wiped, and no further than one byte past `limit`.
pub fn from_stdin(limit: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    read_all(rustix::stdio::stdin(), limit).map_err(|error| Failure::Failed(format!("cannot read the value: {error}")))
}

fn read_all(source: impl AsFd, limit: usize) -> Result<Zeroizing<Vec<u8>>, Errno> {
    let mut bytes = Zeroizing::new(vec![0; 4096]);
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            // Copied by hand: a vector that grows by itself leaves its old allocation unwiped.
            let mut larger = Zeroizing::new(vec![0; bytes.len() * 2]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
        match rustix::io::read(&source, &mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        if filled > limit {
            break;
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn stdin_is_read_whole_and_stops_soon_after_the_limit() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        let mut read = |limit| {
            file.rewind().unwrap();
            read_all(&file, limit).unwrap().len()
        };
        assert_eq!(read(1 << 20), 100_000);
        let stopped = read(10_000);
        assert!((10_001..100_000).contains(&stopped), "{stopped}");
    }
}
