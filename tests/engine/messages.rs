//! What a person is told when something is wrong, word for word: by `docker volume create`, `docker run` and
//! `docker volume inspect`. No value is in any of it, nor in the log.

mod creating;
mod mounting;
mod settings;

/// Compares all at once, so that one run shows every message that differs.
#[track_caller]
fn assert_all<const N: usize>(cases: [(String, &str); N]) {
    let differ = cases.iter().filter(|(told, expected)| told != expected);
    let shown: Vec<_> = differ.map(|(told, expected)| format!("told:     {told}\nexpected: {expected}\n")).collect();
    assert!(shown.is_empty(), "\n{}", shown.join("\n"));
}
