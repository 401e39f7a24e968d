//! Many processes at once, and processes that die at any point.

use super::{Host, words};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

#[test]
fn twenty_processes_at_once_lose_nothing_from_the_first_secret_on() {
    let host = Host::new();
    let mut children: Vec<_> =
        (0..20).map(|n| host.command(&["secret", "set", &format!("s{n}")]).spawn().unwrap()).collect();
    for (n, child) in children.iter_mut().enumerate() {
        child.stdin.take().unwrap().write_all(format!("value {n}").as_bytes()).unwrap();
    }
    let mut made = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        made += usize::from(!output.stderr.is_empty());
    }
    assert_eq!(made, 1, "the identity is made once");
    let listed = host.text("secret ls --format json");
    let versions: BTreeSet<u64> = listed
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["Version"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(versions, (1..=20).collect());
    for n in 0..20 {
        assert_eq!(host.text(&format!("secret get s{n}")), format!("value {n}"));
    }
}

#[test]
fn twenty_processes_set_one_field_each_of_one_secret() {
    let host = Host::new();
    let mut children: Vec<_> =
        (0..20).map(|n| host.command(&["secret", "set", &format!("app#f{n}")]).spawn().unwrap()).collect();
    for child in &mut children {
        child.stdin.take().unwrap().write_all(b"x").unwrap();
    }
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let object: serde_json::Value = serde_json::from_slice(&host.ok("secret get app", b"")).unwrap();
    assert_eq!(object.as_object().unwrap().len(), 20);
}

#[test]
fn stores_made_at_once_share_one_identity_and_none_is_shut_out() {
    for _ in 0..10 {
        let host = Host::new();
        fs::create_dir(host.config_dir()).unwrap();
        let instance = |n| format!("[provider.p{n}]\ntype = 'local'\nstore = '/etc/dso/{n}/store'\n");
        fs::write(host.file("dso.toml"), (0..8).map(instance).collect::<String>()).unwrap();
        let set = |n| host.command(&words(&format!("secret --provider p{n} set a"))).spawn().unwrap();
        let mut children: Vec<_> = (0..8).map(set).collect();
        for child in &mut children {
            child.stdin.take().unwrap().write_all(b"x").unwrap();
        }
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        for n in 0..8 {
            assert_eq!(host.text(&format!("secret --provider p{n} get a")), "x");
        }
    }
}

#[test]
fn who_has_the_old_store_open_goes_on_reading_the_old_one() {
    let host = Host::new();
    host.ok("secret set a", b"1");
    let before = fs::read(host.file("local.age")).unwrap();
    let mut open = fs::File::open(host.file("local.age")).unwrap();
    host.ok("secret set a", b"2");
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert!(read == before && fs::read(host.file("local.age")).unwrap() != before);
}

/// Kills fifty changes, ever nearer to the point at which the old store becomes the new one: a kill that came
/// before it makes the next come later, and one that came after it, sooner.
#[test]
fn a_kill_at_any_point_leaves_the_old_store_or_the_new_one() {
    const KILLS: u32 = 50;
    let host = Host::new();
    let value = |n: u32| format!("{n:08}").repeat(8192).into_bytes();
    host.ok("secret set other", b"kept");
    let started = Instant::now();
    host.ok("secret set a", &value(0));
    let mut delay = started.elapsed() / 2;

    let (mut current, mut old, mut new) = (0, 0, 0);
    for n in 1..=KILLS {
        let mut child = host.command(&words("secret set a")).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feeding = thread::spawn(move || drop(stdin.write_all(&value(n))));
        // Not a wait for something: the point at which the process is hit.
        thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        feeding.join().unwrap();
        let found = host.ok("secret get a", b"");
        if found == value(n) {
            (current, new) = (n, new + 1);
            delay = delay * 9 / 10;
        } else {
            assert!(found == value(current), "neither the old value nor the new one after kill {n}");
            old += 1;
            delay = delay * 11 / 10;
        }
        assert_eq!(host.text("secret get other"), "kept");
    }
    assert!(old > 0 && new > 0, "the kills hit nothing: {old} before, {new} after, {delay:?}");
    // The lock died with its holder, and what a killed writer left is cleared away.
    host.ok("secret set a", b"done");
    let left = fs::read_dir(host.config_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<BTreeSet<_>>(), ["identity", "local.age", "local.age.lock"].map(Into::into).into());
}

#[test]
fn what_a_killed_writer_left_does_not_stop_the_next() {
    let host = Host::new();
    host.ok("secret set a", b"1");
    fs::write(host.file("local.age.new"), "half a store").unwrap();
    assert_eq!(host.text("secret get a"), "1");
    host.ok("secret set a", b"2");
    assert!(!host.file("local.age.new").exists());
    assert_eq!(host.text("secret get a"), "2");
}

#[test]
fn a_change_waits_for_the_lock_and_reading_does_not() {
    let host = Host::new();
    host.ok("secret set a", b"1");
    let lock = fs::File::open(host.file("local.age.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut waiting = host.command(&words("secret set a")).spawn().unwrap();
    waiting.stdin.take().unwrap().write_all(b"2").unwrap();
    assert_eq!(host.text("secret get a"), "1");
    // It has its value and hangs at the lock: `flock` is what it sleeps in.
    let stat = format!("/proc/{}/syscall", waiting.id());
    let deadline = Instant::now() + Duration::from_secs(10);
    let flock = if cfg!(target_arch = "x86_64") { "73 " } else { "32 " };
    while !fs::read_to_string(&stat).unwrap_or_default().starts_with(flock) {
        assert!(waiting.try_wait().unwrap().is_none(), "it did not wait");
        assert!(Instant::now() < deadline, "it never came to the lock");
        thread::sleep(Duration::from_millis(2));
    }
    drop(lock);
    assert!(waiting.wait_with_output().unwrap().status.success());
    assert_eq!(host.text("secret get a"), "2");
}
