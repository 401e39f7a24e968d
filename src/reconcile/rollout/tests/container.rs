//! One container: each action, and what each failure leads to.

use super::*;

async fn with_one(on_rotate: &str, script: Script) -> World {
    let world = World::new().await;
    world.engine.run("web", on_rotate, script);
    world.settle().await;
    world
}

#[tokio::test(start_paused = true)]
async fn each_action_makes_the_process_read_the_new_files_and_is_verified_and_committed() {
    for on_rotate in ["signal", "exec:reload", "restart", "rolling"] {
        for script in [CHECKED, Script::default(), Script { exclusive: true, ..CHECKED }] {
            let world = with_one(on_rotate, script).await;
            assert_eq!(world.rotate("2", "good 2").await, Action::Done, "{on_rotate}");
            let state = ("web".to_owned(), State::Running, "good 2".to_owned(), true);
            assert_eq!(world.engine.state(), [state], "{on_rotate} {script:?}");
            let decision = world.decision();
            assert_eq!((decision.result.as_str(), decision.from, decision.to), ("verified", 1, 2), "{on_rotate}");
            assert_eq!(decision.containers[0].result, "verified");
            assert_eq!(decision.from_versions["p://app"], "1");
            assert_eq!(decision.to_versions["p://app"], "2");
            let shown = world.bench.driver.shown(&volume()).unwrap();
            assert_eq!((shown.generation, shown.base), (2, None));
            assert_eq!(world.bench.status(VOLUME).mounts, 1, "what kept it mounted is gone");
            assert!(world.rollouts.unfinished().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_fail_are_taken_back_the_container_is_told_again_and_the_version_is_not_tried_twice() {
    for on_rotate in ["signal", "exec:reload", "restart", "rolling"] {
        for script in [
            CHECKED,
            Script { crashes: true, ..Script::default() },
            Script { crashes: true, restarted: true, ..Script::default() },
            Script { exclusive: true, ..CHECKED },
        ] {
            let what = format!("{on_rotate} {script:?}");
            let world = with_one(on_rotate, script).await;
            let before = world.engine.look("web").unwrap();
            assert_eq!(world.rotate("2", "bad 2").await, Action::Done, "{what}");
            assert_eq!(world.file(), "good 1", "{what}");
            let state = ("web".to_owned(), State::Running, "good 1".to_owned(), true);
            assert_eq!(world.engine.state(), [state], "{what}");
            assert_eq!(world.engine.look("web").unwrap().id, before.id, "{what}: it is the same container");
            let decision = world.decision();
            assert_eq!(decision.result, "rolled back", "{what}");
            let why = decision.reason.unwrap();
            assert!(why.starts_with(&format!("container `web`, {}", before_colon(on_rotate))), "{why}");
            let error = world.bench.status(VOLUME).error.unwrap();
            assert!(error.starts_with("the last change was taken back: container `web`"), "{error}");

            let calls = world.gate.passed().len();
            world.check().await;
            assert_eq!(world.reconcile().await, Action::Done);
            assert_eq!(world.gate.passed().len(), calls, "{what}: nothing is tried again");
            assert_eq!(world.rotate("3", "good 3").await, Action::Done);
            assert_eq!(world.read(), pairs(&[("web", "good 3")]), "{what}");
            assert_eq!(world.bench.status(VOLUME).error, None);
        }
    }
}

fn before_colon(on_rotate: &str) -> &str {
    on_rotate.split(':').next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_is_told_with_its_exit_code_and_what_it_said() {
    let world = with_one("exec:false", CHECKED).await;
    world.rotate("2", "good 2").await;
    let decision = world.decision();
    assert_eq!(decision.result, "rolled back");
    assert_eq!(decision.reason.unwrap(), "container `web`, exec:false: the command ended with 1: went wrong");
}

#[tokio::test(start_paused = true)]
async fn where_a_container_says_keep_its_failure_leaves_the_files_and_a_replacement_is_still_withdrawn() {
    for on_rotate in ["restart", "rolling"] {
        let world = with_one(on_rotate, CHECKED).await;
        world.engine.edit("web", |web| drop(web.labels.insert("dso.on-failure".into(), "keep".into())));
        assert_eq!(world.rotate("2", "bad 2").await, Action::Done);
        assert_eq!(world.file(), "bad 2");
        assert_eq!(world.decision().result, "kept");
        let read = if on_rotate == "restart" { "bad 2" } else { "good 1" };
        assert_eq!(world.read(), pairs(&[("web", read)]));
        assert!(world.bench.status(VOLUME).error.unwrap().starts_with("the new files stay, but container `web`"));
        assert_eq!(world.bench.driver.shown(&volume()).unwrap().base, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_was_not_well_before_condemns_nothing() {
    for on_rotate in ["signal", "restart", "rolling"] {
        let world = with_one(on_rotate, Script { sick: true, ..CHECKED }).await;
        assert_eq!(world.rotate("2", "good 2").await, Action::Done);
        assert_eq!((world.file().as_str(), world.decision().result.as_str()), ("good 2", "unverified"), "{on_rotate}");
        assert!(world.decision().containers[0].result.starts_with("failed"));
        assert_eq!(world.engine.state().len(), 1, "{on_rotate}: a replacement that failed is withdrawn");
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_gone_or_does_not_run_condemns_nothing() {
    let world = with_one("restart", CHECKED).await;
    world.put("2", "good 2").await;
    let (_, _) = tokio::join!(world.reconcile(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.engine.kill_off("web");
    });
    assert_eq!((world.file().as_str(), world.decision().result.as_str()), ("good 2", "unverified"));
    assert_eq!(world.decision().containers[0].result, "left alone; it is gone");
}

#[tokio::test(start_paused = true)]
async fn an_old_container_that_is_removed_while_its_replacement_proves_itself_takes_that_with_it() {
    let world = with_one("rolling", CHECKED).await;
    world.put("2", "good 2").await;
    let (_, _) = tokio::join!(world.reconcile(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.engine.kill_off("web");
    });
    assert_eq!(world.file(), "good 2");
    assert_eq!(world.engine.state(), []);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_goes_away_in_the_middle_is_waited_for_and_not_for_ever() {
    for (away, result) in [(30, "verified"), (700, "rolled back")] {
        let world = with_one("restart", CHECKED).await;
        world.put("2", "good 2").await;
        let (action, _) = tokio::join!(
            async {
                loop {
                    match world.reconcile().await {
                        Action::Retry => tokio::time::sleep(Duration::from_secs(60)).await,
                        action => return action,
                    }
                }
            },
            async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                world.engine.set_down(true);
                tokio::time::sleep(Duration::from_secs(away)).await;
                world.engine.set_down(false);
            }
        );
        assert_eq!((action, world.decision().result.as_str()), (Action::Done, result));
        let value = if result == "verified" { "good 2" } else { "good 1" };
        assert_eq!((world.file().as_str(), world.read()), (value, pairs(&[("web", value)])));
    }
}

#[tokio::test(start_paused = true)]
async fn restarts_beyond_the_budget_are_put_off_with_the_files_on_trial_and_done_when_it_allows() {
    let world = with_one("restart", CHECKED).await;
    for version in 2..=4 {
        assert_eq!(world.rotate(&version.to_string(), &format!("good {version}")).await, Action::Done);
    }
    let Action::After(wait) = world.rotate("5", "good 5").await else { panic!("it is not put off") };
    assert_eq!((world.file().as_str(), world.read()), ("good 5", pairs(&[("web", "good 4")])));
    assert_eq!(world.bench.status(VOLUME).last_rotation.unwrap().result, "deferred");
    assert!(world.bench.status(VOLUME).error.unwrap().contains("used up its budget"));
    let writes = world.calls("journal write");
    assert!(matches!(world.reconcile().await, Action::After(_)));
    assert_eq!(world.calls("journal write"), writes, "to look again costs nothing");
    // A later version takes its place, also after the process died.
    let world = world.restart(Arc::default()).await;
    world.check().await;
    assert!(matches!(world.rotate("6", "good 6").await, Action::After(_)));
    tokio::time::sleep(wait).await;
    assert_eq!(world.reconcile().await, Action::Done);
    assert_eq!(world.read(), pairs(&[("web", "good 6")]));
    let decision = world.decision();
    assert_eq!((decision.from, decision.to, decision.result.as_str()), (4, 6, "verified"));
}

#[tokio::test(start_paused = true)]
async fn a_fault_in_a_label_leaves_the_container_alone() {
    let world = with_one("restart", CHECKED).await;
    world.engine.edit("web", |web| drop(web.labels.insert("dso.verify-timeout".into(), "soon".into())));
    world.rollouts.table.set(world.engine.list());
    world.rotate("2", "good 2").await;
    assert_eq!((world.file().as_str(), world.read()), ("good 2", pairs(&[("web", "good 1")])));
    let (action, fault) = world.rollouts.describe(&volume(), &world.engine.look("web").unwrap());
    assert_eq!(action, OnRotate::None);
    assert!(fault.unwrap().contains("label `dso.verify-timeout`"));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_written_holds_a_change_back_before_it_is_published() {
    let world = with_one("restart", CHECKED).await;
    let dir = world.journal.path().to_owned();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(world.rotate("2", "good 2").await, Action::Retry);
    assert_eq!(world.file(), "good 1");
    assert!(world.bench.status(VOLUME).error.unwrap().contains("its journal cannot be written"));
    std::fs::create_dir(&dir).unwrap();
    assert_eq!(world.reconcile().await, Action::Done);
    assert_eq!(world.read(), pairs(&[("web", "good 2")]));
}

#[tokio::test(start_paused = true)]
async fn a_replacement_in_place_that_fails_stays_where_somebody_removed_what_it_replaces() {
    let world = with_one("rolling", Script { exclusive: true, ..CHECKED }).await;
    world.put("2", "bad 2").await;
    let (_, _) = tokio::join!(world.reconcile(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let aside = world.engine.state().into_iter().find(|(name, ..)| name.contains("-dso-old-"));
        world.engine.kill_off(&aside.unwrap().0);
    });
    let left: Vec<_> = world.engine.state().into_iter().map(|(name, state, ..)| (name, state)).collect();
    assert_eq!(left, [("web".to_owned(), State::Running)]);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_in_place_is_undone_also_where_its_name_was_taken_meanwhile() {
    let world = with_one("rolling", Script { exclusive: true, ..CHECKED }).await;
    world.put("2", "bad 2").await;
    let (_, _) = tokio::join!(world.reconcile(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.engine.edit("web", |new| new.name = "renamed".into());
        world.engine.run("web", "none", Script::default());
    });
    let state = world.engine.state();
    let old = state.iter().find(|(name, ..)| name.contains("-dso-old-")).unwrap();
    assert_eq!((state.len(), old.1, old.2.as_str()), (2, State::Running, "good 1"), "{state:?}");
    assert!(world.decision().containers[0].result.contains("could not be put back: "));
}

/// The engine unmounts a volume with its only container, and mounts it again with the next.
#[tokio::test(start_paused = true)]
async fn the_files_to_go_back_to_outlive_the_stop_of_the_only_container_and_of_the_process() {
    for dies in [false, true] {
        let world = with_one("restart", CHECKED).await;
        world.put("2", "bad 2").await;
        let unmounted = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            world.bench.unmount(VOLUME, "a").await;
        };
        // In the middle of the engine's restart of the container.
        let middle = tokio::time::timeout(Duration::from_millis(60), world.reconcile());
        assert!(tokio::join!(unmounted, middle).1.is_err());
        let world = if dies { world.restart(Arc::default()).await } else { world };
        world.bench.mount(VOLUME, "b").await.unwrap();
        world.check().await;
        assert_eq!(world.reconcile().await, Action::Done);
        assert_eq!(world.decision().result, "rolled back", "{:?}", world.decision());
        assert_eq!((world.file().as_str(), world.read()), ("good 1", pairs(&[("web", "good 1")])));
        world.bench.unmount(VOLUME, "b").await;
        assert_eq!(world.bench.status(VOLUME).mounts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_cannot_take_the_name_serves_on_and_condemns_nothing() {
    let world = with_one("rolling", CHECKED).await;
    world.engine.refuse(Some("rename"));
    assert_eq!(world.rotate("2", "good 2").await, Action::Done);
    assert_eq!((world.file().as_str(), world.decision().result.as_str()), ("good 2", "verified"));
    let state = world.engine.state();
    assert!(state.len() == 1 && state[0].0.starts_with("web-dso-") && state[0].1 == State::Running, "{state:?}");
    assert!(world.decision().containers[0].result.starts_with("verified; it has another name: "));
}

#[tokio::test(start_paused = true)]
async fn the_way_back_from_a_change_that_came_upon_one_put_off_is_to_what_was_verified_last() {
    let world = with_one("restart", CHECKED).await;
    for version in 2..=4 {
        world.rotate(&version.to_string(), &format!("good {version}")).await;
    }
    let Action::After(wait) = world.rotate("5", "good 5").await else { panic!("it is not put off") };
    let world = world.restart(Arc::default()).await;
    assert!(matches!(world.rotate("6", "bad 6").await, Action::After(_)));
    tokio::time::sleep(wait).await;
    assert_eq!(world.reconcile().await, Action::Done);
    assert_eq!(world.decision().result, "rolled back");
    assert_eq!((world.file().as_str(), world.read()), ("good 4", pairs(&[("web", "good 4")])));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_a_person_stops_as_it_is_told_condemns_nothing() {
    for on_rotate in ["signal", "exec:reload"] {
        let world = with_one(on_rotate, CHECKED).await;
        world.put("2", "good 2").await;
        let (_, _) = tokio::join!(world.reconcile(), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            world.engine.edit("web", |web| web.state = State::Exited);
        });
        assert_eq!((world.file().as_str(), world.decision().result.as_str()), ("good 2", "unverified"));
        assert_eq!(world.decision().containers[0].result, "left alone; it had stopped");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_undone_also_when_the_budget_of_restarts_is_used_up() {
    let world = World::with(Policy { restart_budget: 1, ..Policy::default() }).await;
    world.engine.run("web", "restart", CHECKED);
    world.settle().await;
    world.rotate("2", "bad 2").await;
    assert_eq!(world.decision().result, "rolled back");
    assert_eq!(world.read(), pairs(&[("web", "good 1")]));
    assert!(matches!(world.rotate("3", "good 3").await, Action::After(_)), "and then there is none left");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_paused_is_recorded_as_not_told_and_condemns_nothing() {
    let world = World::new().await;
    world.engine.run("web", "restart", CHECKED);
    world.settle().await;
    world.engine.edit("web", |web| web.state = State::Paused);
    world.rotate("2", "good 2").await;
    let decision = world.decision();
    assert_eq!((world.file().as_str(), decision.result.as_str()), ("good 2", "unverified"));
    assert!(decision.containers[0].result.contains("it is paused"), "{decision:?}");
}
