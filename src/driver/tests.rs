use super::{
    workbench::{BLIND_ENGINE, Bench, down, read},
    *,
};
use crate::{
    provider::{ErrorKind, ProviderError},
    volume::MountId,
};
use std::fs;

#[tokio::test(start_paused = true)]
async fn a_mounted_volume_has_its_files_and_the_last_unmount_takes_them_away() {
    let bench = Bench::new().await;
    bench.provider.put("app", "7", br#"{"user":"u","pass":"s"}"#);
    bench.volume("v", &[("from", "p://app")]).await;
    assert_eq!(bench.status("v").state, State::Idle);
    let at = bench.mount("v", "a").await.unwrap();
    assert_eq!(read(&at, "pass"), "s");
    let status = bench.status("v");
    assert_eq!((status.state, status.generation, status.mounts), (State::Current, 1, 1));
    assert_eq!(status.versions["user"], "7");
    assert!(status.checked.is_some() && status.rotated.is_some() && status.error.is_none());
    bench.mount("v", "b").await.unwrap();
    bench.unmount("v", "a").await;
    assert!(at.exists());
    bench.unmount("v", "b").await;
    assert!(!at.exists());
    assert_eq!((bench.status("v").state, bench.provider.calls()), (State::Idle, (1, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_unmount_of_docker_cp_leaves_the_containers_own_mount() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"{\"a\":1}");
    bench.volume("v", &[("from", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    bench.mount("v", "a").await.unwrap();
    bench.unmount("v", "a").await;
    assert_eq!((bench.status("v").state, bench.status("v").mounts), (State::Current, 1));
    bench.unmount("v", "never seen").await;
    assert_eq!(bench.status("v").mounts, 1);
}

#[tokio::test(start_paused = true)]
async fn docker_run_makes_one_call_and_a_container_after_one_that_ran_gets_what_was_rotated_meanwhile() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"{\"a\":1}");
    bench.volume("v", &[("from", "p://app")]).await;
    bench.mount("v", "create").await.unwrap();
    bench.unmount("v", "create").await;
    tokio::time::advance(Duration::from_millis(50)).await;
    bench.mount("v", "start").await.unwrap();
    assert_eq!(bench.provider.calls(), (1, 0));
    tokio::time::advance(Duration::from_millis(200)).await;
    bench.unmount("v", "start").await;
    bench.provider.put("app", "2", b"{\"a\":2}");
    bench.mount("v", "next").await.unwrap();
    assert_eq!((bench.read("v", "a"), bench.provider.calls()), ("2".into(), (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_mount_that_the_engine_does_not_see_fails_and_leaves_nothing() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"{\"a\":1}");
    bench.volume("v", &[("from", "p://app")]).await;
    let blind = format!("{BLIND_ENGINE}:100");
    let error = bench.driver.mount("v", MountId::new("a"), &blind).await.unwrap_err();
    assert!(matches!(error, DriverError::OutOfSight { .. }), "{error}");
    assert!(!bench.driver.parts.mounter.mountpoint("v").exists());
    assert_eq!((bench.status("v").state, bench.status("v").mounts), (State::Failed, 0));
    bench.mount("v", "a").await.unwrap();
    assert_eq!(bench.status("v").state, State::Current);
}

#[tokio::test(start_paused = true)]
async fn simultaneous_mounts_of_many_volumes_read_each_secret_once() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"{\"a\":1}");
    bench.provider.delay(Duration::from_secs(2));
    for n in 0..20 {
        bench.volume(&format!("v{n}"), &[("from", "p://app")]).await;
    }
    let mounts: Vec<_> = (0..40)
        .map(|n| {
            let driver = bench.driver.clone();
            tokio::spawn(async move { driver.mount(&format!("v{}", n % 20), MountId::new(n.to_string()), "e").await })
        })
        .collect();
    for mount in mounts {
        mount.await.unwrap().unwrap();
    }
    assert_eq!(bench.provider.calls(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_changed_secret_reaches_every_volume_that_uses_it_by_one_check_and_one_read() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"old");
    for name in ["v", "w"] {
        bench.volume(name, &[("file.x", "p://app"), ("template.y", "<{{ secret('p://app') }}>")]).await;
        bench.mount(name, "a").await.unwrap();
    }
    tokio::time::advance(Duration::from_secs(5)).await;
    bench.provider.calls();
    bench.provider.put("app", "2", b"new");
    let key = bench.driver.checks(&"v".parse().unwrap(), Wanted::Soon).remove(0).0;
    let Checked { volumes, next } = bench.driver.check(&key).await;
    assert_eq!((volumes.len(), next.len(), &next[0].0), (2, 1, &key));
    let delay = next[0].1;
    assert!(delay <= Duration::from_secs(30) && delay >= Duration::from_secs(27));
    for name in &volumes {
        assert!(matches!(bench.driver.refresh(name).await.unwrap(), Refreshed::Rotated { generation: 2 }));
        assert!(matches!(bench.driver.refresh(name).await.unwrap(), Refreshed::Current));
    }
    assert_eq!(bench.provider.calls(), (1, 1));
    assert_eq!((bench.read("v", "x"), bench.read("w", "y")), ("new".into(), "<new>".into()));
    assert_eq!(bench.status("w").versions["y"], "2");
}

#[tokio::test(start_paused = true)]
async fn the_same_content_under_a_new_version_is_no_rotation() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"same");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    bench.provider.put("app", "2", b"same");
    assert!(matches!(bench.check_and_refresh("v").await, Refreshed::Current));
    assert_eq!((bench.status("v").generation, bench.status("v").versions["x"].as_str()), (1, "2"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_a_deletion_and_a_lost_field_leave_the_files_and_say_so() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", br#"{"k":"v"}"#);
    bench.volume("v", &[("file.x", "p://app#k")]).await;
    bench.mount("v", "a").await.unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;

    bench.provider.fail(down());
    bench.check_and_refresh("v").await;
    let status = bench.status("v");
    assert_eq!((status.state, status.error.as_deref()), (State::Stale, Some("`p://app`: connection refused")));
    bench.provider.fail(None);
    bench.check_and_refresh("v").await;
    assert_eq!((bench.status("v").state, bench.status("v").error), (State::Current, None));

    bench.provider.remove("app");
    bench.check_and_refresh("v").await;
    assert_eq!((bench.status("v").state, bench.read("v", "x")), (State::Stale, "v".into()));

    bench.provider.put("app", "2", br#"{"other":"v"}"#);
    let name: VolumeName = "v".parse().unwrap();
    for (key, _) in bench.driver.checks(&name, Wanted::Soon) {
        bench.driver.check(&key).await;
    }
    bench.driver.refresh(&name).await.unwrap_err();
    assert_eq!((bench.status("v").state, bench.read("v", "x")), (State::Stale, "v".into()));
    bench.provider.calls();
    bench.driver.refresh(&name).await.unwrap_err();
    assert_eq!(bench.provider.calls(), (0, 0), "what cannot be rendered is not read again and again");
}

#[tokio::test(start_paused = true)]
async fn a_new_mount_during_an_outage_gets_the_last_known_value_within_max_stale() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"good");
    bench.volume("v", &[("file.x", "p://app"), ("max-stale", "1h")]).await;
    bench.volume("strict", &[("file.x", "p://app"), ("max-stale", "0")]).await;
    bench.mount("v", "a").await.unwrap();
    bench.unmount("v", "a").await;
    bench.provider.fail(down());
    tokio::time::advance(Duration::from_secs(3000)).await;
    bench.driver.evict();
    bench.mount("v", "b").await.unwrap();
    assert_eq!((bench.read("v", "x"), bench.status("v").state), ("good".into(), State::Stale));
    let error = bench.mount("strict", "c").await.unwrap_err();
    assert_eq!(error.to_string(), "volume `strict`: option `file.x`: `p://app`: connection refused");
    assert_eq!(bench.status("strict").state, State::Failed);
    bench.unmount("v", "b").await;
    tokio::time::advance(Duration::from_secs(601)).await;
    bench.driver.evict();
    assert!(bench.mount("v", "d").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_secret_is_not_served_from_memory_to_a_new_mount() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"good");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    bench.unmount("v", "a").await;
    tokio::time::advance(Duration::from_secs(5)).await;
    bench.provider.fail(Some(ProviderError::new(ErrorKind::Forbidden, "403")));
    assert!(bench.mount("v", "b").await.is_err());
    assert!(!bench.dir.path().join("v").exists());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_ends_the_mount_within_its_limit_and_delays_no_other_volume() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.provider.delay(Duration::from_secs(3600));
    let began = Instant::now();
    let error = bench.mount("v", "a").await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(25));
    assert_eq!(
        error.to_string(),
        "volume `v`: no answer from provider `p` within 25 s: the mount was given up, and nothing was mounted"
    );
    assert_eq!(bench.status("v").mounts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_mount_whose_caller_is_gone_is_taken_back_and_can_be_asked_for_again() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    bench.provider.delay(Duration::from_secs(5));
    bench.volume("v", &[("file.x", "p://app")]).await;
    tokio::time::timeout(Duration::from_secs(1), bench.mount("v", "a")).await.unwrap_err();
    bench.mount("v", "a").await.unwrap();
    assert_eq!(bench.status("v").mounts, 1);
    bench.unmount("v", "a").await;
    assert_eq!(bench.status("v").state, State::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_new_process_takes_over_what_is_mounted_and_rotates_nothing_that_did_not_change() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    let rotated = bench.status("v").rotated;
    let mut bench = bench.restart().await;
    bench.provider.calls();
    assert_eq!((bench.status("v").state, bench.status("v").mounts), (State::Current, 1));
    assert_eq!(bench.told.try_recv().unwrap(), Event::Joined("v".parse().unwrap()));
    assert!(matches!(bench.check_and_refresh("v").await, Refreshed::Current));
    assert_eq!((bench.status("v").rotated, bench.provider.calls()), (rotated, (0, 1)));
    bench.provider.put("app", "2", b"y");
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(matches!(bench.check_and_refresh("v").await, Refreshed::Rotated { generation: 2 }));
    assert_eq!(bench.read("v", "x"), "y");
    bench.unmount("v", "a").await;
    assert_eq!(bench.driver.list(), [("v".parse().unwrap(), None)]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_unmounted_at_the_start_and_what_is_out_of_reach_is_orphaned() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    for name in ["used", "lost"] {
        bench.volume(name, &[("file.x", "p://app")]).await;
        bench.mount(name, "a").await.unwrap();
    }
    fs::create_dir(bench.dir.path().join("stray")).unwrap();
    fs::remove_dir_all(bench.dir.path().join("lost")).unwrap();
    let bench = bench.restart().await;
    assert!(!bench.dir.path().join("stray").exists());
    assert_eq!(bench.status("used").state, State::Current);
    let lost = bench.status("lost");
    assert_eq!((lost.state, lost.mounts), (State::Orphaned, 1));
    assert!(lost.error.unwrap().ends_with("restart the containers"));
    bench.unmount("lost", "a").await;
    assert_eq!(bench.status("lost").state, State::Idle);
}

#[tokio::test(start_paused = true)]
async fn refresh_never_means_never() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    bench.volume("still", &[("file.x", "p://app"), ("refresh", "0")]).await;
    bench.volume("quick", &[("file.x", "p://app"), ("refresh", "1s")]).await;
    bench.mount("still", "a").await.unwrap();
    assert!(bench.driver.checks(&"still".parse().unwrap(), Wanted::Soon).is_empty());
    bench.mount("quick", "a").await.unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    let (key, _) = bench.driver.checks(&"quick".parse().unwrap(), Wanted::Soon).remove(0);
    let volumes = bench.driver.check(&key).await.volumes;
    assert_eq!(volumes.into_iter().collect::<Vec<_>>(), ["quick".parse().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn another_refresh_holds_for_what_is_mounted_where_the_volume_does_not_say() {
    let mut bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    bench.provider.put("own", "1", b"x");
    bench.volume("plain", &[("file.x", "p://app")]).await;
    bench.volume("own", &[("file.x", "p://own"), ("refresh", "20s")]).await;
    let delay = |bench: &Bench, name: &str| {
        let due = bench.driver.checks(&name.parse().unwrap(), Wanted::AsPlanned);
        due.first().map(|(_, delay)| delay.as_secs_f64().ceil() as u64)
    };
    bench.driver.set_refresh(Duration::ZERO);
    for name in ["plain", "own"] {
        bench.mount(name, "a").await.unwrap();
    }
    assert_eq!(delay(&bench, "plain"), None, "never");
    while bench.told.try_recv().is_ok() {}
    bench.driver.set_refresh(Duration::from_secs(5));
    assert_eq!(bench.told.try_recv(), Ok(Event::Joined("own".parse().unwrap())));
    assert_eq!(bench.told.try_recv(), Ok(Event::Joined("plain".parse().unwrap())), "it is looked at now");
    assert_eq!(bench.told.try_recv(), Ok(Event::Interval), "and so are services");
    assert_eq!(delay(&bench, "plain"), Some(5));
    assert!(delay(&bench, "own").is_some_and(|delay| delay > 5));
}

#[tokio::test(start_paused = true)]
async fn a_mounted_volume_cannot_be_removed_or_given_other_options() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    let other = [("file.y".to_owned(), "p://app".to_owned())].into();
    assert!(matches!(bench.driver.create("v", other).await, Err(DriverError::OtherOptions { .. })));
    let error = bench.driver.remove("v", "engine").await.unwrap_err();
    assert_eq!(error.to_string(), "volume `v` is in use by 1 mount(s): stop its containers first");
    bench.driver.remove("v", "a later run of the engine").await.unwrap();
    assert!(!bench.dir.path().join("v").exists());
    assert!(matches!(bench.mount("v", "b").await, Err(DriverError::NoSuchVolume { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_take_down_left_does_not_keep_the_next_container_from_starting() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    bench.volume("v", &[("file.x", "p://app")]).await;
    fs::create_dir(bench.dir.path().join("v")).unwrap();
    bench.mount("v", "a").await.unwrap();
    assert_eq!(bench.read("v", "x"), "x");
}

#[tokio::test(start_paused = true)]
async fn mounts_that_are_out_of_reach_keep_no_volume_from_being_removed_or_unmounted() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    for name in ["lost", "again"] {
        bench.volume(name, &[("file.x", "p://app")]).await;
        bench.mount(name, "a").await.unwrap();
        fs::remove_dir_all(bench.dir.path().join(name)).unwrap();
    }
    // The plugin was disabled by force, the containers were removed meanwhile, and no unmount could be told.
    let bench = bench.restart().await;
    bench.driver.remove("lost", "engine").await.unwrap();
    bench.mount("again", "b").await.unwrap();
    assert_eq!(bench.status("again").mounts, 1);
    bench.unmount("again", "b").await;
    assert_eq!(bench.status("again").state, State::Idle);
    assert!(!bench.dir.path().join("again").exists());
    bench.driver.remove("again", "engine").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_failed_is_forgotten_with_the_last_unmount() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", br#"{"k":"v"}"#);
    bench.volume("v", &[("file.x", "p://app#k")]).await;
    bench.mount("v", "a").await.unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    bench.provider.put("app", "2", br#"{"other":"v"}"#);
    let name: VolumeName = "v".parse().unwrap();
    for (key, _) in bench.driver.checks(&name, Wanted::Soon) {
        bench.driver.check(&key).await;
    }
    bench.driver.refresh(&name).await.unwrap_err();
    bench.unmount("v", "a").await;
    assert_eq!((bench.status("v").state, bench.status("v").error), (State::Idle, None));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_does_not_keep_the_last_known_value_from_a_new_mount() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"good");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    bench.unmount("v", "a").await;
    tokio::time::advance(Duration::from_secs(5)).await;
    bench.provider.delay(Duration::from_secs(3600));
    bench.mount("v", "b").await.unwrap();
    assert_eq!(bench.read("v", "x"), "good");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_as_a_reference_is_not_repeated_since_it_may_be_a_secret() {
    let bench = Bench::new().await;
    for wrong in ["hunter2", "p://user:hunter2@host/app", "p://app?token=hunter2&token=x"] {
        for option in ["file.x", "from", "template.y"] {
            let text = if option == "template.y" { format!("{{{{ secret('{wrong}') }}}}") } else { wrong.to_owned() };
            let error = bench.driver.create("v", [(option.to_owned(), text)].into()).await.unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_slow_disk_under_a_new_volume_does_not_stop_the_others() {
    let (go, wait) = std::sync::mpsc::channel();
    let wait = Mutex::new(wait);
    let disk = move || wait.lock().unwrap().recv_timeout(Duration::from_secs(10)).map_err(std::io::Error::other);
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let bench = Bench::with(dir, crate::provider::scripted::Scripted::versioned(), disk).await;
    let driver = bench.driver.clone();
    let create = tokio::spawn(async move { driver.create("v", [("from".into(), "p://app".into())].into()).await });
    tokio::task::yield_now().await;
    assert!(bench.driver.list().is_empty());
    go.send(()).unwrap();
    create.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_files_cannot_be_taken_away_is_not_forgotten_and_can_be_removed_later() {
    let bench = Bench::new().await;
    bench.volume("v", &[("file.x", "p://app")]).await;
    let obstacle = bench.dir.path().join("v");
    fs::write(&obstacle, "not a folder").unwrap();
    bench.driver.remove("v", "engine").await.unwrap_err();
    assert_eq!(bench.driver.list().len(), 1);
    fs::remove_file(&obstacle).unwrap();
    bench.driver.remove("v", "engine").await.unwrap();
    assert!(bench.driver.list().is_empty());
}
