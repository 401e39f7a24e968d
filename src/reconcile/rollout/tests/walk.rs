//! The process dies at each step in turn, and the next one finishes: the end is what it would have been.

use super::*;

/// What is left when all has come to rest.
#[derive(Debug, PartialEq)]
struct End {
    file: String,
    containers: Vec<(String, State, String, bool)>,
    mounts: u32,
    base: Option<u64>,
    result: String,
    unfinished: Vec<VolumeName>,
    /// How many restarts each container was charged for.
    restarts: Vec<(String, usize)>,
}

async fn world(on_rotate: &str, script: Script, count: usize, gate: Arc<Gate>) -> World {
    let world = World::new().await;
    for n in 0..count {
        world.engine.run(&format!("web{n}"), on_rotate, script);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.restart(gate).await
}

/// Runs until nothing is to be done any more, or the process dies.
async fn run(world: &World) -> bool {
    let rest = async {
        world.check().await;
        for _ in 0..50 {
            match world.reconcile().await {
                Action::Done => return,
                Action::Retry => tokio::time::sleep(Duration::from_secs(1)).await,
                Action::After(wait) => tokio::time::sleep(wait).await,
            }
        }
        panic!("it does not come to rest");
    };
    tokio::select! {
        biased;
        () = world.gate.died() => false,
        () = rest => true,
    }
}

fn end(world: &World) -> End {
    End {
        file: world.file(),
        containers: world.engine.state(),
        mounts: world.bench.status(VOLUME).mounts,
        base: world.bench.driver.shown(&volume()).unwrap().base,
        result: world.decision().result,
        unfinished: world.rollouts.unfinished(),
        restarts: world.log().restarts.into_iter().map(|(name, times)| (name, times.len())).collect(),
    }
}

/// Kills at each step; returns how many there were.
async fn walk(on_rotate: &str, script: Script, value: &str) -> usize {
    let clean = world(on_rotate, script, 2, Arc::default()).await;
    clean.bench.provider.put("app", "2", value.as_bytes());
    assert!(run(&clean).await);
    let (expected, steps) = (end(&clean), clean.gate.passed());
    assert!(expected.containers.iter().all(|(_, state, read, aliased)| {
        (*state, read.as_str(), *aliased) == (State::Running, &expected.file, true)
    }));
    for (step, place) in steps.iter().enumerate() {
        let killed = world(on_rotate, script, 2, Gate::deadly(step)).await;
        killed.bench.provider.put("app", "2", value.as_bytes());
        assert!(!run(&killed).await, "{on_rotate}: step {step} is reached");
        let next = killed.restart(Arc::default()).await;
        assert!(run(&next).await);
        assert_eq!(end(&next), expected, "{on_rotate} {script:?} {value}, killed at {step} ({place})");
    }
    steps.len()
}

const CRASHING: Script = Script { checked: false, crashes: true, ..CHECKED };
const EXCLUSIVE: Script = Script { exclusive: true, ..CHECKED };
const RESTARTED: Script = Script { restarted: true, ..CHECKED };

#[tokio::test(start_paused = true)]
async fn a_process_killed_at_any_step_of_a_good_rotation_is_followed_by_one_that_finishes_it() {
    for (on_rotate, script) in [
        ("signal", CHECKED),
        ("exec:reload", CHECKED),
        ("restart", CHECKED),
        ("restart", RESTARTED),
        ("rolling", CHECKED),
        ("rolling", Script { auto_remove: true, ..CHECKED }),
        ("rolling", Script::default()),
        ("rolling", EXCLUSIVE),
    ] {
        let steps = walk(on_rotate, script, "good 2").await;
        assert!(steps > 10, "{on_rotate}: {steps} steps");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_killed_at_any_step_of_a_bad_rotation_is_followed_by_one_that_undoes_it() {
    for (on_rotate, script) in [
        ("signal", CHECKED),
        ("signal", CRASHING),
        ("exec:reload", CHECKED),
        ("restart", CHECKED),
        ("restart", CRASHING),
        ("rolling", CHECKED),
        ("rolling", CRASHING),
        ("rolling", EXCLUSIVE),
        ("rolling", Script { exclusive: true, ..CRASHING }),
    ] {
        walk(on_rotate, script, "bad 2").await;
    }
}

/// The engine dies too: its containers are stopped, and those with a restart policy are started again, also what a replacement
/// in place had stopped.
#[tokio::test(start_paused = true)]
async fn an_engine_killed_with_the_process_at_any_step_of_a_replacement_leaves_one_container_of_the_name_that_runs() {
    for (script, value) in [
        (CHECKED, "good 2"),
        (CHECKED, "bad 2"),
        (RESTARTED, "good 2"),
        (RESTARTED, "bad 2"),
        (EXCLUSIVE, "good 2"),
        (EXCLUSIVE, "bad 2"),
        (Script { restarted: true, ..EXCLUSIVE }, "good 2"),
        (Script { restarted: true, ..EXCLUSIVE }, "bad 2"),
    ] {
        let clean = world("rolling", script, 1, Arc::default()).await;
        clean.bench.provider.put("app", "2", value.as_bytes());
        assert!(run(&clean).await);
        for (step, place) in clean.gate.passed().iter().enumerate() {
            let killed = world("rolling", script, 1, Gate::deadly(step)).await;
            killed.bench.provider.put("app", "2", value.as_bytes());
            assert!(!run(&killed).await);
            let log = killed.rollouts.journal.read(&volume());
            let rollout = log.and_then(|log| log.rollout);
            let in_hand = rollout.is_some_and(|rollout| rollout.entries[0].is_begun());
            killed.engine.restart();
            // A container whose health is not known yet would condemn nothing.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let next = killed.restart(Arc::default()).await;
            assert!(run(&next).await);
            let what =
                format!("{script:?} {value}, killed at {step} ({place}): {:?}", next.rollouts.journal.read(&volume()));
            let left = next.engine.state();
            assert_eq!(left.len(), 1, "{what}: {left:?}");
            assert_eq!(left[0].0, "web0", "{what}");
            if value.starts_with("good") {
                assert_eq!(next.file(), value, "{what}: the death of an engine condemns nothing");
            }
            match left[0].1 {
                State::Running => assert_eq!(left[0].2, next.file(), "{what}"),
                // The engine stopped it and does not start it by itself, and it was not in dso's hands: it stays as it is.
                _ => assert!(!script.restarted && !in_hand, "{what}: {left:?}"),
            }
            assert!(next.rollouts.unfinished().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_again_and_again_still_gets_there() {
    for value in ["good 2", "bad 2"] {
        for (on_rotate, script) in [
            ("signal", CHECKED),
            ("exec:reload", CHECKED),
            ("restart", CHECKED),
            ("rolling", CHECKED),
            ("rolling", EXCLUSIVE),
        ] {
            let clean = world(on_rotate, script, 2, Arc::default()).await;
            clean.bench.provider.put("app", "2", value.as_bytes());
            assert!(run(&clean).await);
            let mut mortal = world(on_rotate, script, 2, Gate::deadly(8)).await;
            mortal.bench.provider.put("app", "2", value.as_bytes());
            let mut lives = 1;
            while !run(&mortal).await {
                mortal = mortal.restart(Gate::deadly(8)).await;
                lives += 1;
                assert!(lives < 100, "{on_rotate} {script:?} {value}: {:?}", mortal.log());
            }
            assert!(lives > 1, "{on_rotate}: {lives} lives");
            assert_eq!(end(&mortal), end(&clean), "{on_rotate} {script:?} {value}");
        }
    }
}
