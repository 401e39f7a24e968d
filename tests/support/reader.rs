//! A container that reads a set of files again and again, and tells what it met: `probe same`.

use super::{SCRATCH, engine::Engine, until};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Removed when dropped.
pub struct Reader {
    engine: Engine,
    pub container: String,
}

/// What it has met so far.
#[derive(Debug)]
pub struct Said {
    /// What all files held at last.
    pub text: String,
    /// How many texts it has seen.
    pub generations: usize,
    pub reads: u64,
    /// Looks at one generation whose files were not all there, or not of one text.
    pub torn: u64,
    /// Generations that two rotations took away while they were read.
    pub lost: u64,
    pub failed: u64,
}

// === impl Reader ===

impl Reader {
    /// Of a volume with so many files; `mount` is the argument of `--mount`, at /s.
    #[track_caller]
    pub fn start(engine: &Engine, mount: &str, files: usize, words: &[&str]) -> Self {
        let start = ["run", "--detach", "--network=none", "--stop-timeout=0", "--mount", mount];
        let program = [SCRATCH, "same", "/s", &files.to_string(), "100000"];
        let container = engine.docker(&[&start[..], words, &program].concat());
        Self { engine: engine.clone(), container }
    }

    /// Waits until it has read `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> Said {
        until(&format!("a container to read `{text}`"), PATIENCE, || self.last().filter(|said| said.text == text))
    }

    /// Waits until it has read some more.
    #[track_caller]
    pub fn goes_on(&self) -> Said {
        let before = until("a container to read", PATIENCE, || self.last()).reads;
        until("a container to go on reading", PATIENCE, || self.last().filter(|said| said.reads > before))
    }

    pub fn last(&self) -> Option<Said> {
        let log = self.engine.docker(&["logs", &self.container]);
        let mut lines: Vec<_> = log.lines().filter_map(|line| line.split_once(" last=")).collect();
        let (counts, text) = *lines.last()?;
        lines.dedup_by_key(|(_, text)| *text);
        let count = |name: &str| counts.split(' ').find_map(|count| count.strip_prefix(name)?.parse().ok());
        Some(Said {
            text: text.to_owned(),
            generations: lines.len(),
            reads: count("reads=")?,
            torn: count("torn=")?,
            lost: count("lost=")?,
            failed: count("failed=")?,
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.engine.try_docker(&["rm", "--force", &self.container]);
    }
}
