//! A journal on disk.

use super::*;
use std::{fs, time::Duration};

fn name(name: &str) -> VolumeName {
    name.parse().unwrap()
}

fn trial() -> Trial {
    let published = Some((2, SystemTime::now()));
    Trial { base: 1, from: BTreeMap::new(), cause: "version changed".into(), published, told: Vec::new() }
}

fn decision(to: u64) -> Decision {
    Decision {
        from: 1,
        to,
        from_versions: BTreeMap::new(),
        to_versions: BTreeMap::new(),
        cause: "version changed".into(),
        result: "verified".into(),
        reason: None,
        containers: Vec::new(),
        began: String::new(),
        ended: String::new(),
    }
}

#[tokio::test]
async fn what_was_written_is_read_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let written = journal.write(&name("a.b"), |log| log.trial = Some(trial())).await.unwrap();
    journal.write(&name("done"), |log| log.remember(decision(2))).await.unwrap();
    let next = Journal::open(dir.path()).unwrap();
    assert_eq!(next.read(&name("a.b")), Some(written));
    assert_eq!(next.open_ones(), [name("a.b")]);
    next.forget(&name("a.b")).unwrap();
    assert_eq!(Journal::open(dir.path()).unwrap().read(&name("a.b")), None);
}

#[tokio::test]
async fn a_write_that_fails_leaves_the_log_as_it_was_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let before = journal.write(&name("v"), |log| log.remember(decision(2))).await.unwrap();
    fs::create_dir(dir.path().join("v.json.new")).unwrap();
    journal.write(&name("v"), |log| log.trial = Some(trial())).await.unwrap_err();
    assert_eq!(journal.read(&name("v")), Some(before.clone()));
    fs::remove_dir(dir.path().join("v.json.new")).unwrap();
    assert_eq!(Journal::open(dir.path()).unwrap().read(&name("v")), Some(before));
}

#[tokio::test]
async fn an_unreadable_file_is_set_aside_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    Journal::open(dir.path()).unwrap().write(&name("good"), |_| ()).await.unwrap();
    let good = fs::read(dir.path().join("good.json")).unwrap();
    fs::write(dir.path().join("half.json"), &good[..good.len() / 2]).unwrap();
    fs::write(dir.path().join("empty.json"), b"").unwrap();
    fs::write(dir.path().join("other.json"), &good).unwrap();
    let newer = String::from_utf8(good).unwrap().replace("\"format\":1", "\"format\":2").replace("good", "newer");
    fs::write(dir.path().join("newer.json"), newer).unwrap();
    fs::write(dir.path().join("crash.json.new"), b"half").unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.lock().keys().collect::<Vec<_>>(), [&name("good")]);
    let mut left: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    let aside = ["empty", "half", "newer", "other"].map(|name| format!("{name}.json.unreadable-1"));
    assert_eq!(left, [&aside[..1], &["good.json".to_owned()], &aside[1..]].concat());
}

#[tokio::test]
async fn the_last_twenty_decisions_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for generation in 0..30 {
        journal.write(&name("v"), |log| log.remember(decision(generation))).await.unwrap();
    }
    let kept: Vec<_> = journal.read(&name("v")).unwrap().decisions.iter().map(|decision| decision.to).collect();
    assert_eq!(kept, (10..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn restarts_are_counted_over_all_volumes_and_forgotten_after_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let (now, window) = (SystemTime::now(), Duration::from_secs(600));
    for (volume, age) in [("v", 700), ("v", 30), ("w", 20)] {
        let at = now - Duration::from_secs(age);
        journal.write(&name(volume), |log| log.count_restart("web", at, window)).await.unwrap();
    }
    let journal = Journal::open(dir.path()).unwrap();
    let ages = journal.restarts_of("web").into_iter().map(|at| now.duration_since(at).unwrap().as_secs());
    assert_eq!(ages.collect::<Vec<_>>(), [30, 20]);
    assert!(journal.restarts_of("we").is_empty());
}
