//! What may be done to a container.

use crate::world::World;
use dso::docker::{ContainerRuntime, Executed, HealthStatus, RuntimeError, State};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

const FOREVER: [&str; 2] = ["sleep", "1000"];
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn containers_are_those_with_the_volume_in_whatever_state_and_no_others() {
    let world = World::system();
    let [data, other] = ["data", "other"].map(|name| world.named(name));
    let at = |volume: &str, to: &str| format!("--volume={volume}:{to}");
    let running = world.run("running", &[&at(&data, "/data"), "--init", "--label=a=b"], &FOREVER);
    let created = world.create("created", &[&at(&data, "/srv/data:ro")], &FOREVER);
    // A volume filter of the engine also finds this one, by its destination.
    world.create("other", &[&at(&other, &format!("/{data}"))], &FOREVER);
    let guest = world.run("guest", &[&format!("--network=container:{running}")], &FOREVER);

    let wanted = BTreeSet::from([data.clone(), "none-such".into()]);
    let mut found = world.edge.containers(&wanted).await.unwrap();
    found.sort_by_key(|container| container.id != running);
    assert_eq!(found.iter().map(|container| &container.id).collect::<Vec<_>>(), [&running, &created]);
    let first = &found[0];
    assert_eq!((first.name.clone(), first.state), (world.named("running"), State::Running));
    assert_eq!(first.labels.get("a").map(String::as_str), Some("b"));
    assert!(first.pid > 1 && first.mounts(&data) && first.health.is_none() && first.is_up());
    assert_eq!(first.dependents, [guest]);
    assert!(first.started.is_some_and(|at| at.elapsed().is_ok_and(|ago| ago < Duration::from_secs(60))));
    assert!(first.exclusive.as_ref().is_some_and(|why| why.contains(&data)), "{:?}", first.exclusive);
    let second = &found[1];
    assert_eq!((second.state, second.started, second.pid), (State::Created, None, 0));
    assert_eq!((second.mounts[0].destination.as_str(), &second.exclusive), ("/srv/data", &None));
    assert_eq!(world.edge.containers(&BTreeSet::new()).await.unwrap(), []);
    assert_eq!(world.edge.inspect(&world.named("running")).await.unwrap().as_ref(), Some(first));
    // The engine itself would find it by the beginning of its ID.
    assert_eq!(world.edge.inspect(&running[..12]).await.unwrap(), None);
    assert_eq!(world.edge.inspect(&world.named("none")).await.unwrap(), None);
}

#[tokio::test]
async fn health_is_told_with_when_each_check_began() {
    let world = World::system();
    let before = SystemTime::now();
    let check = ["--health-cmd=test -e /healthy", "--health-interval=200ms", "--health-retries=1"];
    let id = world.run("app", &check, &FOREVER);
    let reach = async |status: HealthStatus| loop {
        let health = world.see(&id).await.health.expect("it has a check");
        if health.status == status && !health.checks.is_empty() {
            return health;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let unhealthy = tokio::time::timeout(LIMIT, reach(HealthStatus::Unhealthy)).await.unwrap();
    assert!(unhealthy.checks.iter().all(|check| !check.passed && check.began > before));
    let touched = SystemTime::now();
    world.cli.docker(&["exec", &id, "touch", "/healthy"]);
    let healthy = tokio::time::timeout(LIMIT, reach(HealthStatus::Healthy)).await.unwrap();
    let last = healthy.checks.last().unwrap();
    assert!(last.passed && last.began > touched && last.began < SystemTime::now());
    assert!(healthy.checks.is_sorted_by_key(|check| check.began));
}

#[tokio::test]
async fn a_signal_arrives_and_one_to_a_container_that_is_not_there_or_not_up_says_so() {
    let world = World::system();
    let trap = ["sh", "-c", "trap 'touch /got' USR1; while :; do sleep 0.05; done"];
    let id = world.run("app", &["--stop-timeout=0"], &trap);
    let got = async || loop {
        // Until the shell has set its trap the signal is lost.
        world.edge.signal(&id, "SIGUSR1").await.unwrap();
        if world.cli.try_docker(&["exec", &id, "test", "-e", "/got"]).is_ok() {
            return;
        }
    };
    tokio::time::timeout(LIMIT, got()).await.unwrap();
    world.edge.stop(&id).await.unwrap();
    let refused = world.edge.signal(&id, "SIGUSR1").await.unwrap_err();
    assert!(matches!(&refused, RuntimeError::Refused { answer, .. } if answer.contains("is not running")), "{refused}");
    world.edge.remove(&id).await.unwrap();
    assert_eq!(world.edge.signal(&id, "SIGUSR1").await, Err(RuntimeError::Gone(id.clone())));
    assert_eq!(world.edge.restart(&id).await, Err(RuntimeError::Gone(id.clone())));
    assert_eq!(world.edge.start(&id).await, Err(RuntimeError::Gone(id.clone())));
    assert_eq!(world.edge.exec(&id, &["true".into()], LIMIT).await, Err(RuntimeError::Gone(id.clone())));
    assert_eq!(world.edge.rename(&id, "x").await, Err(RuntimeError::Gone(id.clone())));
    assert_eq!(world.edge.remove(&id).await, Ok(()));
}

/// The engine's own `kill` cancels it, whatever the signal: break this by sending through that.
#[tokio::test]
async fn a_signal_leaves_the_restart_policy_as_it_is() {
    let world = World::system();
    let loops = ["sh", "-c", "trap 'touch /got' HUP; while :; do sleep 0.05; done"];
    let id = world.run("app", &["--restart=always", "--stop-timeout=0"], &loops);
    let first = world.see(&id).await;
    let got = || world.cli.try_docker(&["exec", &id, "test", "-e", "/got"]).is_ok();
    let signalled = async || {
        while !got() {
            world.edge.signal(&id, "SIGHUP").await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, signalled()).await.unwrap();
    // Its end, as by a crash: no call of the engine.
    let pid = Pid::from_raw(first.pid.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let again = async || loop {
        let now = world.see(&id).await;
        if now.state == State::Running && now.pid != first.pid {
            return now.restarts;
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, again()).await.expect("the engine starts it again"), 1);
}

#[tokio::test]
async fn a_command_is_run_as_the_containers_user_without_a_shell_and_waited_for() {
    let world = World::system();
    let id = world.run("app", &["--user=1000", "--init"], &FOREVER);
    let exec = async |words: &[&str], limit| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        world.edge.exec(&id, &words, limit).await
    };
    let done = exec(&["sh", "-c", "id -u >&2; echo out; exit 3"], LIMIT).await.unwrap();
    assert_eq!(done, Executed { exit_code: 3, stderr: "1000\n".into() });
    let plain = exec(&["test", "$(id -u)", "=", "$(id -u)"], LIMIT).await.unwrap();
    assert_eq!(plain, Executed { exit_code: 0, stderr: String::new() });
    // More than what a pipe and a socket hold: it is read on, and only the first bytes kept.
    let much = exec(&["sh", "-c", "yes x | head -c 3000000 >&2; exit 4"], LIMIT).await.unwrap();
    assert_eq!(much, Executed { exit_code: 4, stderr: "x\n".repeat(Executed::STDERR_MAX / 2) });
    // What it leaves behind holds its stderr open.
    let behind = exec(&["sh", "-c", "sleep 60 & exit 5"], LIMIT).await.unwrap();
    assert_eq!(behind.exit_code, 5);
    let late = exec(&["sleep", "60"], Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(late.to_string(), "the engine took longer than 1 s to run the command");
    match exec(&["/no/such/program"], LIMIT).await {
        Ok(done) => assert!(matches!(done.exit_code, 126 | 127), "{done:?}"),
        Err(error) => assert!(
            matches!(&error, RuntimeError::Refused { answer, .. } if answer.contains("no such file")),
            "{error}"
        ),
    }
}

#[tokio::test]
async fn restart_stop_start_and_rename_do_what_they_say_twice_over() {
    let world = World::system();
    let id = world.run("app", &["--network=none", "--stop-timeout=1"], &FOREVER);
    let before = world.see(&id).await;
    world.edge.restart(&id).await.unwrap();
    let after = world.see(&id).await;
    assert!(after.started > before.started && after.pid != before.pid && after.restarts == 0);
    world.edge.start(&id).await.unwrap();
    assert_eq!(world.see(&id).await.pid, after.pid, "one that runs is left as it is");
    for _ in 0..2 {
        world.edge.stop(&id).await.unwrap();
        assert_eq!(world.see(&id).await.state, State::Exited);
    }
    world.edge.start(&id).await.unwrap();
    let name = world.named("renamed");
    world.edge.rename(&id, &name).await.unwrap();
    assert_eq!((world.see(&id).await.name, world.see(&name).await.id), (name.clone(), id.clone()));
    world.run("other", &[], &FOREVER);
    let taken = world.edge.rename(&id, &world.named("other")).await.unwrap_err();
    assert!(matches!(&taken, RuntimeError::Refused { answer, .. } if answer.contains("in use")), "{taken}");
    let fails = world.create("fails", &[], &["/no/such/program"]);
    assert!(matches!(world.edge.start(&fails).await, Err(RuntimeError::Refused { .. })));
    assert!(world.see(&fails).await.error.contains("no such file"), "why a start failed is told");
}

#[tokio::test]
async fn the_engines_own_restarts_are_counted_since_the_last_start_by_hand() {
    let world = World::system();
    let id = world.run("app", &["--restart=on-failure:2"], &["sh", "-c", "exit 7"]);
    let ended = async || loop {
        let seen = world.see(&id).await;
        if seen.state == State::Exited && seen.restarts == 2 {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let seen = tokio::time::timeout(LIMIT, ended()).await.unwrap();
    assert_eq!((seen.exit_code, seen.restarted_by_engine, seen.auto_remove), (7, true, false));
}

#[tokio::test]
async fn removal_leaves_every_volume_and_waits_for_one_that_is_under_way() {
    let world = World::system();
    let data = world.named("data");
    let id = world.run("app", &["--volume=/anonymous", &format!("--volume={data}:/data")], &FOREVER);
    let volumes: Vec<_> = world.see(&id).await.mounts.into_iter().map(|mount| mount.volume).collect();
    assert_eq!(volumes.len(), 2);
    world.edge.remove(&id).await.unwrap();
    assert_eq!(world.edge.inspect(&id).await.unwrap(), None);
    for volume in &volumes {
        world.cli.docker(&["volume", "inspect", volume]);
    }
    world.cli.docker(&[&["volume", "rm"], &volumes.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());

    let id = world.run("gone", &["--rm", "--stop-timeout=0"], &FOREVER);
    assert!(world.see(&id).await.auto_remove);
    world.edge.stop(&id).await.unwrap();
    world.edge.remove(&id).await.unwrap();
    assert_eq!(world.edge.inspect(&id).await.unwrap(), None);
}
