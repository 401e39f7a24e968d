//! The rule for a file's path within a volume. Stands beneath everything, and imports nothing.

use std::collections::BTreeMap;

/// What a Linux file system takes as one name.
const MAX_SEGMENT: usize = 255;
/// Leaves room for the mountpoint within the 4,096 bytes that the kernel takes as one path.
const MAX_PATH: usize = 2048;
const MAX_SEGMENTS: usize = 32;

/// Whether `path` can be a file's path relative to its volume; the fault is for a sentence that names the path.
pub fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("it is empty".into());
    }
    if path.starts_with('/') {
        return Err("it must be relative to the volume, without a `/` in front".into());
    }
    if path.contains('\0') {
        return Err("it has a NUL character".into());
    }
    if path.len() > MAX_PATH {
        return Err(format!("it is longer than {MAX_PATH} bytes"));
    }
    if path.split('/').count() > MAX_SEGMENTS {
        return Err(format!("it has more than {MAX_SEGMENTS} segments"));
    }
    path.split('/').try_for_each(check_segment)?;
    if path.starts_with("..") {
        return Err("names that start with `..` are dso's own at the top of a volume".into());
    }
    Ok(())
}

/// Whether `name` can be a file at the top of a volume.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.contains('/') { Err("it has a `/`".into()) } else { check_path(name) }
}

/// The directories that `path` lies in, outermost first: `a` and `a/b` for `a/b/c`.
pub fn directories(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// The path among `paths` with which `path` cannot stand in one volume: the same, a directory of it, or a file in it.
pub fn clash<'m, V>(paths: &'m BTreeMap<String, V>, path: &str) -> Option<&'m str> {
    let same_or_above = directories(path).chain([path]).find_map(|upper| paths.get_key_value(upper));
    let beneath = || {
        let prefix = format!("{path}/");
        paths.range(prefix.clone()..).next().filter(|(lower, _)| lower.starts_with(&prefix))
    };
    same_or_above.or_else(beneath).map(|(other, _)| other.as_str())
}

fn check_segment(segment: &str) -> Result<(), String> {
    match segment {
        "" => Err("it has an empty segment: two `/` in a row, or one at the end".into()),
        "." | ".." => Err(format!("it has a segment `{segment}`")),
        long if long.len() > MAX_SEGMENT => Err(format!("it has a segment of more than {MAX_SEGMENT} bytes")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_relative_paths_are_taken() {
        let long = "x".repeat(255);
        for path in ["a", "tls/key.pem", ".hidden", "a/..b", "größe", "a b", &long] {
            assert_eq!(check_path(path), Ok(()), "{path:?}");
        }
    }

    #[test]
    fn what_leaves_the_volume_or_cannot_be_a_name_is_refused() {
        let (long, longer, deep) = ("x".repeat(256), "x/".repeat(1200) + "x", "x/".repeat(32) + "x");
        for path in ["", "/a", "..", "a/../b", "../a", ".", "a/.", "a//b", "a/", "a\0b", "..data", "..1/a", "..."] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        for path in [long, longer, deep] {
            assert!(check_path(&path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_path_clashes_with_itself_its_directories_and_the_files_in_it_and_with_no_neighbour() {
        let paths: BTreeMap<_, _> = ["a/b", "a-c", "d"].map(|path| (path.to_owned(), ())).into();
        assert_eq!(clash(&paths, "a"), Some("a/b"));
        assert_eq!(clash(&paths, "a/b"), Some("a/b"));
        assert_eq!(clash(&paths, "a/b/c"), Some("a/b"));
        assert_eq!(clash(&paths, "d/e/f"), Some("d"));
        for free in ["a/c", "a-", "a/b-", "dd", "c"] {
            assert_eq!(clash(&paths, free), None, "{free}");
        }
    }
}
