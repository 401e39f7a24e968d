use super::*;
use crate::driver::{InUse, Refreshed, State, workbench::Bench};
use std::{fs, time::Duration};
use tokio::time::{Instant, advance};

async fn mounted() -> (Bench, VolumeName) {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"one");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    (bench, "v".parse().unwrap())
}

async fn rotate(bench: &Bench, version: &str, text: &str) -> Refreshed {
    bench.provider.put("app", version, text.as_bytes());
    advance(Duration::from_secs(1)).await;
    bench.check_and_refresh("v").await
}

fn file(bench: &Bench) -> std::path::PathBuf {
    fs::canonicalize(bench.dir.path().join("v/x")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_not_shown_again_until_the_provider_has_another_version() {
    let (bench, name) = mounted().await;
    assert!(matches!(rotate(&bench, "2", "two").await, Refreshed::Rotated { generation: 2 }));
    bench.driver.revert(&name, "version 2 made `web` unhealthy").await.unwrap();
    assert_eq!(bench.read("v", "x"), "one");
    assert!(bench.driver.is_refusing(&name) && !bench.driver.is_behind(&name));
    for _ in 0..3 {
        advance(Duration::from_secs(60)).await;
        assert!(matches!(bench.check_and_refresh("v").await, Refreshed::Current));
    }
    let status = bench.status("v");
    assert_eq!((status.state, status.error.as_deref()), (State::Stale, Some("version 2 made `web` unhealthy")));
    assert_eq!(status.versions["x"], "1");
    assert!(matches!(rotate(&bench, "3", "three").await, Refreshed::Rotated { generation: 3 }));
    assert!(!bench.driver.is_refusing(&name));
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_shown_again_when_a_person_forgives_it() {
    let (bench, name) = mounted().await;
    rotate(&bench, "2", "two").await;
    bench.driver.revert(&name, "why").await.unwrap();
    bench.driver.forgive(&name).await.unwrap();
    assert!(bench.driver.is_behind(&name));
    assert!(matches!(bench.check_and_refresh("v").await, Refreshed::Rotated { .. }));
    assert_eq!((bench.read("v", "x"), bench.status("v").state), ("two".to_owned(), State::Current));
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_known_to_the_next_process() {
    let (bench, name) = mounted().await;
    rotate(&bench, "2", "two").await;
    bench.driver.revert(&name, "why").await.unwrap();
    let bench = bench.restart().await;
    advance(Duration::from_secs(60)).await;
    assert!(matches!(bench.check_and_refresh("v").await, Refreshed::Current));
    assert_eq!(bench.read("v", "x"), "one");
}

#[tokio::test(start_paused = true)]
async fn a_revert_goes_back_to_what_was_committed_over_all_that_came_after() {
    let (bench, name) = mounted().await;
    rotate(&bench, "2", "two").await;
    bench.driver.commit(&name).await.unwrap();
    for (version, text) in [("3", "three"), ("4", "four"), ("5", "five")] {
        rotate(&bench, version, text).await;
        assert_eq!(bench.driver.shown(&name).unwrap().base, Some(2));
    }
    assert_eq!(bench.driver.revert(&name, "why").await.unwrap().generation, 2);
    assert_eq!(bench.read("v", "x"), "two");
}

#[tokio::test(start_paused = true)]
async fn lost_files_are_written_again_and_that_is_no_rotation() {
    let (bench, name) = mounted().await;
    fs::remove_file(file(&bench)).unwrap();
    assert!(matches!(bench.driver.refresh(&name).await.unwrap(), Refreshed::Restored));
    assert_eq!((bench.read("v", "x"), bench.driver.shown(&name).unwrap().base), ("one".to_owned(), None));
    assert!(matches!(bench.driver.refresh(&name).await.unwrap(), Refreshed::Current));
}

#[tokio::test(start_paused = true)]
async fn altered_bytes_are_found_by_comparing_and_written_again_without_asking_anyone() {
    let (bench, name) = mounted().await;
    assert!(matches!(bench.driver.mend(&name).await.unwrap(), Refreshed::Current));
    fs::set_permissions(file(&bench), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(file(&bench), "eno").unwrap();
    bench.provider.calls();
    assert!(matches!(bench.driver.mend(&name).await.unwrap(), Refreshed::Restored));
    assert_eq!((bench.read("v", "x"), bench.provider.calls()), ("one".to_owned(), (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn what_is_on_trial_stays_on_trial_when_its_files_are_written_again() {
    let (bench, name) = mounted().await;
    rotate(&bench, "2", "two").await;
    fs::remove_file(file(&bench)).unwrap();
    bench.driver.refresh(&name).await.unwrap();
    assert_eq!(bench.driver.shown(&name).unwrap().base, Some(1));
    bench.driver.revert(&name, "why").await.unwrap();
    assert_eq!(bench.read("v", "x"), "one");
}

#[tokio::test(start_paused = true)]
async fn mounts_that_no_container_has_are_corrected_but_never_too_soon() {
    let (bench, name) = mounted().await;
    let mounts = || bench.status("v").mounts;
    let correct = |in_use| bench.driver.correct(&name, in_use, Instant::now());
    correct(InUse::No).await;
    assert_eq!(mounts(), 1, "its container may be on its way into the list");
    advance(Duration::from_secs(11)).await;
    correct(InUse::Down).await;
    assert_eq!(mounts(), 1, "its container may be about to start");
    advance(Duration::from_secs(600)).await;
    correct(InUse::Up).await;
    assert_eq!(mounts(), 1);
    correct(InUse::Down).await;
    assert_eq!((mounts(), bench.status("v").state), (0, State::Idle));
    bench.mount("v", "b").await.unwrap();
    advance(Duration::from_secs(11)).await;
    correct(InUse::No).await;
    assert_eq!(mounts(), 0);
    bench.driver.remove("v", "engine").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_mount_after_the_list_was_made_is_not_taken_for_nobodys() {
    let (bench, name) = mounted().await;
    advance(Duration::from_secs(600)).await;
    let listed = Instant::now();
    advance(Duration::from_secs(1)).await;
    bench.mount("v", "b").await.unwrap();
    bench.driver.correct(&name, InUse::No, listed).await;
    assert_eq!(bench.status("v").mounts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_probe_tells_whether_a_mount_would_succeed_and_mounts_nothing() {
    let (bench, name) = mounted().await;
    bench.unmount("v", "a").await;
    advance(Duration::from_secs(3601)).await;
    bench.provider.fail(crate::driver::workbench::down());
    assert!(bench.driver.probe(&name).await.is_err());
    bench.provider.fail(None);
    bench.driver.probe(&name).await.unwrap();
    assert_eq!(bench.status("v").state, State::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_kept_has_its_files_and_the_way_back_after_the_last_unmount_and_in_the_next_process() {
    let (bench, name) = mounted().await;
    rotate(&bench, "2", "two").await;
    assert!(bench.driver.keep(&name).await.unwrap());
    assert!(bench.driver.keep(&name).await.unwrap(), "twice is as once");
    bench.unmount("v", "a").await;
    assert_eq!(bench.read("v", "x"), "two");
    let bench = bench.restart().await;
    assert!(bench.driver.hold(&name, 1).await.unwrap());
    bench.driver.revert(&name, "why").await.unwrap();
    assert_eq!(bench.read("v", "x"), "one");
    bench.driver.let_go(&name).await.unwrap();
    assert_eq!((bench.status("v").state, bench.status("v").mounts), (State::Idle, 0));
    assert!(!bench.dir.path().join("v").exists());
    bench.driver.let_go(&name).await.unwrap();
    assert!(!bench.driver.keep(&name).await.unwrap(), "nobody has it mounted");
}

#[tokio::test(start_paused = true)]
async fn what_is_compared_with_files_that_were_replaced_meanwhile_does_not_take_their_place() {
    let (bench, name) = mounted().await;
    let volume = bench.driver.find(&name).unwrap();
    let (set, versions) = bench.driver.fetch(&volume, Duration::MAX).await.unwrap();
    rotate(&bench, "2", "second").await;
    let late = bench.driver.publish(&volume, set, versions.clone(), Some(versions)).await.unwrap();
    assert!(matches!(late, Refreshed::Current), "{late:?}");
    assert_eq!(bench.read(name.as_str(), "x"), "second");
}

#[tokio::test(start_paused = true)]
async fn a_person_who_asks_is_told_of_a_change_also_where_nothing_is_checked_by_itself() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"first");
    bench.volume("v", &[("file.x", "p://app"), ("refresh", "0")]).await;
    bench.mount("v", "a").await.unwrap();
    bench.provider.put("app", "2", b"second");
    bench.driver.ask("v", false, 1).await.unwrap();
    bench.driver.refresh(&"v".parse().unwrap()).await.unwrap();
    assert_eq!(bench.read("v", "x"), "second");
}

#[tokio::test(start_paused = true)]
async fn what_a_rotation_keeps_is_not_corrected_away_while_its_container_is_stopped() {
    let (bench, name) = mounted().await;
    assert!(bench.driver.keep(&name).await.unwrap());
    bench.unmount("v", "a").await;
    advance(Duration::from_secs(600)).await;
    for in_use in [InUse::Down, InUse::No] {
        bench.driver.correct(&name, in_use, Instant::now()).await;
    }
    assert_eq!((bench.read("v", "x").as_str(), bench.status("v").mounts), ("one", 1));
}
