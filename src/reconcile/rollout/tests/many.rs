//! Several containers on one volume.

use super::*;

async fn with_many(on_rotate: &str, script: Script, count: usize) -> World {
    let world = World::new().await;
    for n in 0..count {
        world.engine.run(&format!("web{n:02}"), on_rotate, script);
    }
    world.settle().await;
    world
}

#[tokio::test(start_paused = true)]
async fn the_second_container_is_never_touched_when_the_first_fails() {
    for on_rotate in ["signal", "exec:reload", "restart", "rolling"] {
        let world = with_many(on_rotate, CHECKED, 2).await;
        let second = world.engine.look("web01").unwrap();
        world.rotate("2", "bad 2").await;
        assert_eq!(world.read(), pairs(&[("web00", "good 1"), ("web01", "good 1")]), "{on_rotate}");
        assert_eq!(world.engine.look("web01").unwrap().started, second.started);
        let passed = world.gate.passed();
        assert!(!passed.iter().any(|passed| passed.ends_with(&second.id)), "{on_rotate}: {passed:?}");
        assert_eq!(world.decision().containers[1].result, "not told");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_canary_twenty_are_told_four_at_a_time() {
    let world = with_many("restart", CHECKED, 20).await;
    let began = Instant::now();
    assert_eq!(world.rotate("2", "good 2").await, Action::Done);
    assert!(world.read().iter().all(|(_, read)| read == "good 2"));
    assert_eq!(world.engine.most_acting(), 4);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let first =
        world.gate.passed().iter().filter(|passed| passed.starts_with("restart")).take(2).cloned().collect::<Vec<_>>();
    assert_eq!(first, ["restart id1", "restart id1, done"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_the_canary_stops_the_rest_and_tells_again_those_that_were_told() {
    let world = World::new().await;
    for n in 0..10 {
        world.engine.run(&format!("web{n:02}"), "restart", CHECKED);
    }
    world.engine.run("web04-x", "exec:false", CHECKED);
    world.settle().await;
    world.rotate("2", "good 2").await;
    assert_eq!(world.decision().result, "rolled back");
    assert_eq!(world.file(), "good 1");
    assert!(world.read().iter().all(|(_, read)| read == "good 1"), "{:?}", world.read());
    let untold = world.decision().containers.iter().filter(|container| container.result == "not told").count();
    assert_eq!(untold, 2, "those after the four that were in hand");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_not_well_is_no_canary() {
    let world = World::new().await;
    world.engine.run("a", "restart", Script { sick: true, ..CHECKED });
    world.engine.run("b", "restart", CHECKED);
    world.settle().await;
    world.rotate("2", "bad 2").await;
    assert_eq!(world.decision().result, "rolled back");
    let restarted: Vec<_> =
        world.gate.passed().into_iter().filter(|passed| passed.starts_with("restart id1")).collect();
    assert_eq!(restarted, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn changes_that_arrive_during_a_rollout_wait_and_are_merged() {
    let world = with_many("restart", CHECKED, 3).await;
    world.put("2", "good 2").await;
    tokio::join!(world.reconcile(), async {
        for version in 3..7 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            world.put(&version.to_string(), &format!("good {version}")).await;
        }
    });
    assert_eq!(world.file(), "good 2");
    assert_eq!(world.reconcile().await, Action::Done);
    assert!(world.read().iter().all(|(_, read)| read == "good 6"));
    assert_eq!(world.calls("restart"), 6, "two rollouts of three");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_takes_too_long_is_undone() {
    let policy = Policy { limit: Duration::from_secs(30), parallel: 1, ..Policy::default() };
    let world = World::with(policy).await;
    for n in 0..20 {
        world.engine.run(&format!("web{n:02}"), "restart", CHECKED);
    }
    world.settle().await;
    let began = Instant::now();
    world.rotate("2", "good 2").await;
    assert!(began.elapsed() < Duration::from_secs(70), "{:?}", began.elapsed());
    assert_eq!(world.decision().result, "rolled back");
    assert!(world.read().iter().all(|(_, read)| read == "good 1"), "{:?}", world.read());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_started_while_bad_files_were_shown_is_told_that_they_were_taken_back() {
    let world = with_many("restart", CHECKED, 1).await;
    world.put("2", "bad 2").await;
    tokio::join!(world.reconcile(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.engine.run("late", "restart", CHECKED);
    });
    assert_eq!(world.read(), pairs(&[("late", "good 1"), ("web00", "good 1")]));
}

#[tokio::test(start_paused = true)]
async fn those_told_before_others_were_put_off_are_told_again_when_those_fail() {
    let world = World::new().await;
    world.engine.run("a", "signal", CHECKED);
    world.engine.run("b", "restart", CHECKED);
    world.settle().await;
    for version in 2..=4 {
        world.rotate(&version.to_string(), &format!("good {version}")).await;
    }
    let Action::After(wait) = world.rotate("5", "good 5").await else { panic!("it is not put off") };
    assert_eq!(world.read(), pairs(&[("a", "good 5"), ("b", "good 4")]));
    let world = world.restart(Arc::default()).await;
    world.check().await;
    world.engine.refuse(Some("restart"));
    tokio::time::sleep(wait).await;
    world.reconcile().await;
    assert_eq!(world.decision().result, "rolled back");
    assert_eq!((world.file().as_str(), world.read()), ("good 4", pairs(&[("a", "good 4"), ("b", "good 4")])));
}

/// Two volumes in one container.
async fn with_two_volumes(on_rotate: &str) -> (World, VolumeName) {
    let world = World::new().await;
    world.bench.provider.put("other", "1", b"good 1");
    world.bench.volume("w", &[("file.x", "p://other")]).await;
    world.bench.mount("w", "a").await.unwrap();
    world.engine.run("web", on_rotate, CHECKED);
    world.engine.edit("web", |web| {
        web.mounts.push(crate::docker::VolumeMount { volume: "w".into(), destination: "/w".into() });
    });
    world.settle().await;
    (world, "w".parse().unwrap())
}

async fn check_other(world: &World, other: &VolumeName) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (key, _) in world.bench.driver.checks(other, Wanted::Now) {
        world.bench.driver.check(&key).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_of_two_volumes_that_change_at_once_is_told_by_one_after_the_other_and_restarted_once() {
    for (on_rotate, restarts) in [("restart", 1), ("rolling", 1)] {
        let (world, other) = with_two_volumes(on_rotate).await;
        world.put("2", "good 2").await;
        world.bench.provider.put("other", "2", b"good 2");
        check_other(&world, &other).await;
        tokio::join!(world.reconcile(), world.rollouts.reconcile(&other, "version changed"));
        let call = if on_rotate == "restart" { "restart" } else { "replicate" };
        assert_eq!(world.calls(call), restarts, "{on_rotate}: {:?}", world.gate.passed());
        assert_eq!(world.read(), pairs(&[("web", "good 2")]));
        for volume in [volume(), other] {
            assert_eq!(world.rollouts.journal.read(&volume).unwrap().decisions.back().unwrap().result, "verified");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_another_volumes_rollout_left_half_replaced_is_not_touched_before_that_is_finished() {
    let (world, other) = with_two_volumes("rolling").await;
    let world = world.restart(Gate::deadly(12)).await;
    world.put("2", "good 2").await;
    tokio::select! {
        () = world.gate.died() => {}
        action = world.reconcile() => panic!("it did not die: {action:?}"),
    }
    let world = world.restart(Arc::default()).await;
    assert_eq!(world.engine.state().len(), 2, "the replacement is there");
    world.bench.provider.put("other", "2", b"good 2");
    check_other(&world, &other).await;
    assert_eq!(world.rollouts.reconcile(&other, "version changed").await, Action::Retry);
    assert_eq!(world.calls("replicate"), 0);
    assert_eq!(world.reconcile().await, Action::Done);
    assert_eq!(world.rollouts.reconcile(&other, "version changed").await, Action::Done);
    assert_eq!(world.read(), pairs(&[("web", "good 2")]));
    assert!(world.rollouts.unfinished().is_empty());
}

#[tokio::test(start_paused = true)]
async fn fifty_containers_that_were_not_well_are_told_in_time_or_after_and_condemn_nothing() {
    let world = with_many("signal", Script { sick: true, ..CHECKED }, 50).await;
    let mut action = world.rotate("2", "good 2").await;
    while action == Action::After(Duration::ZERO) {
        action = world.reconcile().await;
    }
    assert_eq!(action, Action::Done);
    assert_eq!(world.decision().result, "unverified");
    assert!(world.read().iter().all(|(_, read)| read == "good 2"));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_was_restarted_by_somebody_else_while_bad_files_were_shown_is_told_that_they_were_taken_back()
{
    let world = with_many("restart", CHECKED, 2).await;
    world.put("2", "bad 2").await;
    tokio::join!(world.reconcile(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.rollouts.runtime.restart("id2").await.unwrap();
    });
    assert_eq!(world.read(), pairs(&[("web00", "good 1"), ("web01", "good 1")]));
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_another_volumes_rollout_is_making_is_not_replaced_itself_before_it_has_taken_its_place() {
    let (world, other) = with_two_volumes("rolling").await;
    world.put("2", "good 2").await;
    tokio::join!(world.reconcile(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(world.engine.state().len(), 2, "the replacement is there");
        world.bench.provider.put("other", "2", b"good 2");
        check_other(&world, &other).await;
        world.rollouts.reconcile(&other, "version changed").await
    });
    assert_eq!(world.read(), pairs(&[("web", "good 2")]));
    assert_eq!(world.rollouts.journal.read(&other).unwrap().decisions[0].containers.len(), 1);
    assert_eq!(world.calls("replicate"), 2);
}
