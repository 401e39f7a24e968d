//! What tasks are given, and what is seen where they are not.

use crate::support::{
    SOON,
    engine::Engine,
    local::LocalSecrets,
    swarm::{DRIVER, Swarm},
    until, wait_for,
};
use std::fs;

/// Swarm takes less than 500 KiB.
const LIMIT: usize = (500 << 10) - 1;

/// One node with the embedded store.
pub fn local() -> (Swarm, LocalSecrets) {
    let swarm = Swarm::alone(|_, plugin| plugin);
    let store = LocalSecrets::in_dir(&swarm.nodes[0].plugin.config_dir());
    (swarm, store)
}

/// What a file of the only task holds, byte for byte.
fn bytes(swarm: &Swarm, service: &str, file: &str) -> Vec<u8> {
    let engine: &Engine = &swarm.nodes[0].engine;
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let words = ["ps", "--quiet", "--filter", &filter, "--filter", "status=running"];
    let task = until("the task to run", SOON, || Some(engine.docker(&words)).filter(|task| !task.is_empty()));
    engine.command().args(["exec", &task, "cat", file]).output().unwrap().stdout
}

#[test]
fn a_task_gets_its_secrets_byte_for_byte_up_to_swarms_limit() {
    let (swarm, store) = local();
    let (mut binary, mut most) = ([0; 64], vec![0; LIMIT]);
    getrandom::fill(&mut binary).unwrap();
    getrandom::fill(&mut most).unwrap();
    store.set("binary", binary);
    store.set("most", &most);
    store.set("app#user", "someone");
    store.set("app#pin", "0042");
    swarm.secret("binary", &["dso.ref=local://binary"]);
    swarm.secret("most", &["dso.ref=local://most"]);
    swarm.secret("pin", &["dso.ref=local://app#pin", "dso.encoding=text"]);
    let template = "dso.template=[[ secret('local://app#user') ]]:[[ secret('local://app#pin') ]]";
    swarm.secret("both", &[template, "dso.delimiters=[[ ]]"]);
    let secrets = ["--secret=binary", "--secret=most", "--secret=pin", "--secret=both"];
    swarm.service("app", &[&secrets[..], &["--label=dso.allow=local://app#*,local://binary local://most"]].concat());
    let read = |name: &str| bytes(&swarm, "app", &format!("/run/secrets/{name}"));
    assert_eq!((read("pin"), read("both")), (b"0042".to_vec(), b"someone:0042".to_vec()));
    assert!(read("binary") == binary && read("most") == most);
}

#[test]
fn a_task_whose_secret_cannot_be_had_does_not_start_and_the_log_of_the_leader_says_why() {
    let (swarm, store) = local();
    store.set("large", vec![b'x'; LIMIT + 1]);
    store.set("binary", b"\xff");
    store.set("app#pin", "0042");
    let refs = [
        ("missing", vec!["dso.ref=local://missing"], "the local store has no secret `missing`"),
        ("unlabelled", vec!["theirs=1"], "`dso.ref` or `dso.template` is needed"),
        ("misspelt", vec!["dso.ref=local://app#pin", "dso.encodng=text"], "unknown label `dso.encodng`"),
        ("large", vec!["dso.ref=local://large"], "512000 bytes, and a Swarm secret has at most 511999"),
        ("text", vec!["dso.ref=local://binary", "dso.encoding=text"], "not UTF-8"),
    ];
    for (name, labels, _) in &refs {
        swarm.secret(name, labels);
        swarm.service(name, &["--secret", name]);
    }
    swarm.secret("pin", &["dso.ref=local://app#pin"]);
    swarm.service("foreign", &["--secret=pin", "--label=dso.allow=local://other#*"]);
    swarm.service("plain", &["--secret=pin"]);
    let says = |service: &str| swarm.docker(&["service", "ps", "--no-trunc", "--format", "{{.Error}}", service]);
    for service in refs.iter().map(|(name, ..)| *name).chain(["foreign"]) {
        // All that Swarm lets anybody see: its text for a secret that it has not got.
        wait_for("Swarm to say that the task cannot start", SOON, || {
            says(service).contains("unable to get secret from secret store: secret")
        });
        assert_eq!(swarm.read(service, "/proc/version"), Vec::<String>::new(), "`{service}` has a task that runs");
    }
    let log = swarm.log();
    for (name, _, why) in refs.iter().chain([&("foreign", vec![], "the service's label `dso.allow` does not name")]) {
        let line =
            log.lines().find(|line| line.contains("not served") && line.contains(&format!("service=\"{name}\"")));
        assert!(line.is_some_and(|line| line.contains(why)), "{name}: {line:?}");
    }
    wait_for("the service beside them", SOON, || swarm.read("plain", "/run/secrets/pin") == ["0042"]);
}

#[test]
fn a_task_that_starts_later_gets_the_value_of_its_time_though_others_have_the_old_one() {
    let (swarm, store) = local();
    store.set("app#pin", "first");
    swarm.secret("pin", &["dso.ref=local://app#pin"]);
    swarm.service("app", &["--secret=pin", "--replicas=2", "--label=dso.on-rotate=none"]);
    let read = || swarm.read("app", "/run/secrets/pin");
    wait_for("two tasks", SOON, || read() == ["first", "first"]);
    store.set("app#pin", "second");
    swarm.docker(&["service", "scale", "--detach", "app=3"]);
    wait_for("the third task", SOON, || read() == ["first", "first", "second"]);
}

#[test]
fn a_compose_file_becomes_a_stack_with_secrets_and_volumes_that_are_refreshed_in_place_with_a_signal() {
    let (swarm, store) = local();
    let folder = swarm.nodes[0].plugin.folder();
    store.set("app#pin", "first");
    // The shell writes down what the file holds when it is told of a change.
    let file = |template: &str| {
        format!(
            "version: '3.8'\nservices:\n  app:\n    image: {image}\n    init: true\n    stop_grace_period: 1s\n    \
             command: [sh, -c, 'trap \"cp /s/pin /seen\" HUP; while :; do sleep 0.1; done']\n    \
             labels: {{dso.on-rotate: signal}}\n    deploy:\n      labels: {{dso.on-rotate: none}}\n    secrets: [pin]\n    volumes: ['secrets:/s']\n\
             secrets:\n  pin:\n    driver: {DRIVER}\n    labels:\n      dso.ref: local://app#pin\n\
             volumes:\n  secrets:\n    driver: {DRIVER}\n    driver_opts:\n      file.pin: local://app#pin\n      \
             refresh: 1s\n{template}",
            image = crate::support::BUSYBOX,
        )
    };
    let deploy = |content: String| {
        let path = folder.join("stack.yaml");
        fs::write(&path, content).unwrap();
        swarm.nodes[0].engine.try_docker(&["stack", "deploy", "--compose-file", path.to_str().unwrap(), "st"])
    };
    let said = deploy(file("      template.t: \"{{ secret('local://app#pin') }}\"\n")).unwrap_err();
    assert!(
        said.contains("expanding volume driver config") && said.contains("function \"secret\" not defined"),
        "{said}"
    );
    deploy(file("      delimiters: '[[ ]]'\n      template.t: \"is [[ secret('local://app#pin') ]]\"\n")).unwrap();
    let read = |file: &str| swarm.read("st_app", file);
    wait_for("the task", SOON, || read("/s/t") == ["is first"]);
    assert_eq!((read("/run/secrets/pin"), read("/s/pin")), (vec!["first".to_owned()], vec!["first".to_owned()]));
    store.set("app#pin", "second");
    wait_for("the refresh in place, and the signal", SOON, || read("/seen") == ["second"]);
    assert_eq!(read("/s/t"), ["is second"]);
    assert_eq!(read("/run/secrets/pin"), ["first"], "the same task: what Swarm gave it never changes");
}
