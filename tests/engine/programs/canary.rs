//! Several containers on one volume: one goes first.

use super::stage::Stage;

#[test]
fn the_second_container_is_never_touched_when_the_first_one_fails() {
    let stage = Stage::start("verify_timeout = '20s'");
    stage.put("good-1");
    let names = ["a", "b"].map(|name| stage.run_site(name, &["--label=dso.on-rotate=restart"]));
    let seen = || {
        names.each_ref().map(|name| {
            let inspected = stage.inspect(name);
            [&inspected["Id"], &inspected["State"]["StartedAt"], &inspected["RestartCount"], &inspected["State"]["Pid"]]
                .map(Clone::clone)
        })
    };
    let (before, generation) = (seen(), stage.status()["generation"].as_u64().unwrap());
    stage.put("bad-2");
    stage.status_when("rolled back", generation);
    stage.let_pass(3);
    let after = seen();
    let touched = (0..2).filter(|&at| before[at] != after[at]).count();
    assert_eq!(touched, 1, "the canary alone: {before:?}, {after:?}");
    assert_eq!(after.each_ref().map(|[id, ..]| id), before.each_ref().map(|[id, ..]| id));
    names.iter().for_each(|name| stage.wait_until_healthy(name));

    stage.rotate("good-3");
    let last = seen();
    assert!((0..2).all(|at| last[at] != after[at]), "both have the next value: {after:?}, {last:?}");
}
