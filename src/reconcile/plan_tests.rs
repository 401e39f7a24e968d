//! Every combination of state, label, option and setting.

use super::*;
use crate::docker::{Health, HealthCheck, VolumeMount};

const NOW: Duration = Duration::from_secs(1_000_000);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW + Duration::from_secs(seconds)
}

/// When the files were published.
fn fresh() -> SystemTime {
    at(100)
}

fn container(name: &str, labels: &[(&str, &str)]) -> Container {
    Container {
        id: format!("id-{name}"),
        image: String::new(),
        name: name.into(),
        labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        state: State::Running,
        health: None,
        started: Some(at(0)),
        restarts: 0,
        exit_code: 0,
        error: String::new(),
        restarted_by_engine: false,
        auto_remove: false,
        pid: 1,
        mounts: vec![VolumeMount { volume: "v".into(), destination: "/s".into() }],
        exclusive: None,
        dependents: Vec::new(),
    }
}

fn health(status: HealthStatus) -> Option<Health> {
    Some(Health { status, checks: vec![HealthCheck { began: at(1), passed: status == HealthStatus::Healthy }] })
}

fn planned(policy: &Policy, option: Option<&OnRotate>, containers: &[Container]) -> Plan {
    plan(policy, option, containers, &"v".parse().unwrap(), fresh())
}

fn of(container: Container) -> Plan {
    planned(&Policy::default(), None, &[container])
}

const ACTIONS: [&str; 5] = ["none", "signal:SIGHUP", "exec:true", "restart", "rolling"];
const STATES: [State; 7] =
    [State::Created, State::Running, State::Paused, State::Restarting, State::Removing, State::Exited, State::Dead];

#[test]
fn a_label_goes_before_an_option_and_that_before_the_setting_in_every_state() {
    let choices = || std::iter::once(None).chain(ACTIONS.map(Some));
    let mut seen = 0;
    for state in STATES {
        for started in [None, Some(at(0)), Some(fresh()), Some(at(200))] {
            for label in choices() {
                for option in choices() {
                    for setting in ACTIONS {
                        let mut one = container(
                            "c",
                            &label.map(|label| ("dso.on-rotate", label)).into_iter().collect::<Vec<_>>(),
                        );
                        (one.state, one.started) = (state, started);
                        let policy = Policy { on_rotate: setting.parse().unwrap(), ..Policy::default() };
                        let option: Option<OnRotate> = option.map(|option| option.parse().unwrap());
                        let plan = planned(&policy, option.as_ref(), &[one]);
                        let wanted = label.map(str::to_owned).or(option.map(|option| option.to_string()));
                        let wanted = wanted.unwrap_or_else(|| setting.to_owned());
                        let has_process = matches!(state, State::Running | State::Paused);
                        let is_old = has_process && started.is_none_or(|started| started < fresh());
                        let expected: Vec<_> = (is_old && wanted != "none").then_some(wanted).into_iter().collect();
                        let actions: Vec<_> = plan.targets.iter().map(|target| target.action.to_string()).collect();
                        assert_eq!((actions, plan.faults), (expected, vec![]), "{state:?} {started:?}");
                        seen += 1;
                    }
                }
            }
        }
    }
    assert_eq!(seen, 7 * 4 * 6 * 6 * 5);
}

#[test]
fn a_fault_in_any_label_of_dso_leaves_the_container_alone_whatever_else_is_said() {
    for (labels, fault) in [
        (
            &[("dso.on-rotate", "restrat")][..],
            "label `dso.on-rotate`: unknown action `restrat`: did you mean `restart`?",
        ),
        (&[("dso.on-rotate", "")], "label `dso.on-rotate`: unknown action ``: known are"),
        (
            &[("dso.verify-timeout", "60")],
            "label `dso.verify-timeout`: `60` is no time: write it as `30s`, `5m` or `1h30m`",
        ),
        (&[("dso.verify-timeout", "0")], "label `dso.verify-timeout`: must be more than 0"),
        (&[("dso.verify-timeout", "2d")], "label `dso.verify-timeout`: must be at most 1d"),
        (&[("dso.on-failure", "stop")], "label `dso.on-failure`: `stop` must be `rollback` or `keep`"),
        (&[("dso.on-rotated", "restart")], "unknown label `dso.on-rotated`: did you mean `dso.on-rotate`?"),
        (
            &[("dso.on-rotate", "rolling"), ("com.docker.swarm.task.id", "t")],
            "`rolling` of a task: Swarm replaces its tasks itself; use `docker service update --force`",
        ),
        (
            &[("dso.on-rotate", "restart"), ("com.docker.swarm.task.id", "t")],
            "`restart` of a task: Swarm replaces its tasks itself",
        ),
    ] {
        let policy = Policy { on_rotate: OnRotate::Restart, ..Policy::default() };
        let plan = planned(&policy, Some(&OnRotate::Rolling), &[container("c", labels)]);
        assert_eq!(plan.targets, [], "{labels:?}");
        let [(name, found)] = &plan.faults[..] else { panic!("{labels:?}: {:?}", plan.faults) };
        assert!(name == "c" && found.starts_with(fault), "{found}");
    }
}

#[test]
fn every_fault_of_a_container_is_told_at_once() {
    let labels = [("dso.on-rotate", "x"), ("dso.verify-timeout", "y"), ("dso.on-failure", "z"), ("dso.on", "w")];
    let plan = of(container("c", &labels));
    assert_eq!(plan.faults[0].1.split("; ").count(), 4, "{}", plan.faults[0].1);
}

#[test]
fn dsos_own_labels_and_those_of_others_are_no_faults() {
    let labels = [
        ("dso.on-rotate", "restart"),
        ("dso.rollout", "1"),
        ("dso.replaces", "2"),
        ("dsox", ""),
        ("com.docker.swarm.task", ""),
    ];
    let plan = of(container("c", &labels));
    assert_eq!((plan.targets.len(), plan.faults), (1, vec![]));
    let task = [("dso.on-rotate", "signal"), ("com.docker.swarm.task.id", "t")];
    assert_eq!(of(container("c", &task)).targets.len(), 1, "a task may be sent a signal");
}

#[test]
fn labels_say_how_long_and_what_then_and_settings_do_where_they_do_not() {
    let policy = Policy { verify_timeout: Duration::from_secs(7), on_failure: OnFailure::Keep, ..Policy::default() };
    let silent = container("a", &[("dso.on-rotate", "restart")]);
    let labels = [("dso.on-rotate", "restart"), ("dso.verify-timeout", "1m30s"), ("dso.on-failure", "rollback")];
    let plan = planned(&policy, None, &[silent, container("b", &labels)]);
    let said: Vec<_> = plan.targets.iter().map(|target| (target.verify_timeout.as_secs(), target.on_failure)).collect();
    assert_eq!(said, [(7, OnFailure::Keep), (90, OnFailure::Rollback)]);
}

#[test]
fn a_replacement_is_made_beside_unless_both_cannot_live_at_once_and_never_without_a_way_back() {
    let rolling = |change: fn(&mut Container)| {
        let mut one = container("c", &[("dso.on-rotate", "rolling")]);
        change(&mut one);
        of(one)
    };
    let way = |plan: Plan| plan.targets.into_iter().map(|target| target.way).collect::<Vec<_>>();
    assert_eq!(way(rolling(|_| ())), [Way::Beside]);
    assert_eq!(way(rolling(|one| one.auto_remove = true)), [Way::Beside]);
    assert_eq!(way(rolling(|one| one.exclusive = Some("port 80".into()))), [Way::InPlace("port 80".into())]);
    let both = rolling(|one| (one.exclusive, one.auto_remove) = (Some("port 80".into()), true));
    assert!(both.faults[0].1.contains("(port 80), and with `--rm`"), "{:?}", both.faults);
    assert_eq!(way(both), []);
    let leant_on = rolling(|one| one.dependents = vec!["other".into()]);
    assert!(leant_on.faults[0].1.contains("1 other container(s) use its namespaces"));
    assert_eq!(way(leant_on), []);
    let mut restarted = container("c", &[("dso.on-rotate", "restart")]);
    (restarted.exclusive, restarted.auto_remove) = (Some("port 80".into()), true);
    assert_eq!(way(of(restarted)), [Way::Itself]);
}

#[test]
fn those_that_can_judge_come_first_and_the_order_is_the_same_each_time() {
    let with = |name: &str, status| {
        let mut one = container(name, &[("dso.on-rotate", "restart")]);
        one.health = status;
        one
    };
    let mut all = vec![
        with("d", None),
        with("a", health(HealthStatus::Unhealthy)),
        with("b", health(HealthStatus::Starting)),
        with("c", health(HealthStatus::Healthy)),
    ];
    for _ in 0..4 {
        all.rotate_left(1);
        let plan = planned(&Policy::default(), None, &all);
        let order: Vec<_> = plan.targets.iter().map(|target| (target.name.as_str(), target.judges)).collect();
        assert_eq!(order, [("c", true), ("d", true), ("a", false), ("b", false)]);
    }
}

#[test]
fn containers_of_other_volumes_are_none_of_its_business() {
    let mut other = container("c", &[("dso.on-rotate", "restrat")]);
    other.mounts[0].volume = "v2".into();
    assert_eq!(of(other), Plan::default());
}

#[test]
fn settings_are_read_strictly_and_a_faulty_one_has_its_default() {
    let (policy, faults) = Policy::parse(
        "on_rotate = 'signal:USR1'\nverify_timeout = '2m'\non_failure = 'keep'\nsettle = '1s'\nrestart_budget = 0\n\
         restart_window = '1h'\nparallel = 8\nlimit = '5m'"
            .parse()
            .unwrap(),
    );
    assert_eq!(faults.to_string(), "");
    let seconds = Duration::from_secs;
    let expected = Policy {
        on_rotate: OnRotate::Signal("SIGUSR1".into()),
        verify_timeout: seconds(120),
        on_failure: OnFailure::Keep,
        settle: seconds(1),
        restart_budget: 0,
        restart_window: seconds(3600),
        parallel: 8,
        limit: seconds(300),
    };
    assert_eq!(policy, expected);
    let (policy, faults) = Policy::parse("limit = '1d'\nsettle = '2d'".parse().unwrap());
    assert_eq!((policy.limit, policy.settle), (seconds(86400), Policy::default().settle));
    assert_eq!(faults.to_string(), "[rotation]: `settle` must be at most 1d");
    let (policy, faults) = Policy::parse(
        "on_rotate = 'restrat'\nverify_timeout = '0'\non_failure = 'x'\nparallel = 0\nrestart_budget = -1\nlimt = '1s'"
            .parse()
            .unwrap(),
    );
    assert_eq!(policy, Policy::default());
    assert_eq!(
        faults.to_string(),
        "[rotation]: `on_rotate` is no action: unknown action `restrat`: did you mean `restart`?; \
         [rotation]: `on_failure` must be `rollback` or `keep`; \
         [rotation]: `verify_timeout` must be more than 0; \
         [rotation]: `restart_budget` must be a whole number from 0 to 1000; \
         [rotation]: `parallel` must be a whole number from 1 to 64; \
         [rotation]: unknown key `limt`: did you mean `limit`?"
    );
    assert_eq!(Policy::parse(toml::Table::new()).0, Policy::default());
}
