//! Names of a container on its networks.

use crate::world::World;
use dso::docker::ContainerRuntime;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const FOREVER: [&str; 2] = ["sleep", "1000"];
const SOON: Duration = Duration::from_secs(20);
const PORT: &str = "9000";

#[tokio::test]
async fn a_replica_answers_to_no_name_of_the_original_before_it_takes_them_and_then_to_all() {
    let world = World::system();
    let [first, second, app] = ["first", "second", "app"].map(|name| world.named(name));
    world.cli.docker(&["network", "create", &first]);
    world.cli.docker(&["network", "create", "--subnet=10.213.79.0/24", &second]);
    let peer = world.run("peer", &["--network", &first], &FOREVER);
    world.cli.docker(&["network", "connect", &second, &peer]);
    let original = world.run("app", &["--network", &first, "--network-alias=one"], &FOREVER);
    world.cli.docker(&["network", "connect", "--alias=two", &second, &original]);

    let replica = world.edge.replicate(&original, &world.named("next"), &BTreeMap::new(), false).await.unwrap();
    world.edge.start(&replica).await.unwrap();
    let of = |id: &str, network: &str| address(&world, id, network);
    let [old, new] = [&original, &replica].map(|id| [of(id, &first), of(id, &second)]);
    for (name, network) in [("one", 0), ("two", 1)] {
        assert_eq!(resolve(&world, &peer, name), BTreeSet::from([old[network].clone()]), "{name}");
    }
    world.edge.take_aliases(&replica, &original, &app).await.unwrap();
    // The first free address, which was its own a moment ago.
    assert_eq!([of(&replica, &first), of(&replica, &second)], new);
    for (name, network) in [("one", 0), ("two", 1)] {
        let both = BTreeSet::from([old[network].clone(), new[network].clone()]);
        assert_eq!(resolve(&world, &peer, name), both, "{name}");
    }
    // The engine answers for one of the networks that it shares with who asks.
    assert!(resolve(&world, &peer, &app).iter().any(|address| new.contains(address)));

    let networks = |id: &str| world.cli.json(&["inspect", id], ".NetworkSettings.Networks");
    let before = networks(&replica);
    world.edge.take_aliases(&replica, &original, &app).await.unwrap();
    assert_eq!(networks(&replica), before, "what it has it is not given again");

    // A call that broke off between leaving and joining is made good by the next one.
    world.cli.docker(&["network", "disconnect", &second, &replica]);
    world.edge.take_aliases(&replica, &original, &app).await.unwrap();
    assert_eq!(resolve(&world, &peer, "two"), BTreeSet::from([old[1].clone(), new[1].clone()]));

    world.edge.remove(&original).await.unwrap();
    world.edge.rename(&replica, &app).await.unwrap();
    for name in ["one", "two", &app] {
        let found = resolve(&world, &peer, name);
        assert!(!found.is_empty() && found.iter().all(|address| new.contains(address)), "{name}: {found:?}");
    }
    // It is nothing that a rollout to come must know of: the address is not fixed.
    assert_eq!(world.see(&replica).await.exclusive, None);
}

#[tokio::test]
async fn a_connection_that_a_replica_has_made_survives_that_it_takes_the_names() {
    let world = World::system();
    let net = world.named("net");
    world.cli.docker(&["network", "create", &net]);
    let server = format!("sleep 1000 | nc -l -p {PORT} > /got");
    let peer = world.run("peer", &["--network", &net, "--init"], &["sh", "-c", &server]);
    let client = "mkfifo /in; while ! test -e /go; do sleep 0.1; done; nc $(cat /go) 9000 < /in > /dev/null & exec 3> /in; sleep 1000";
    let original = world.run("app", &["--network", &net, "--network-alias=one", "--init"], &["sh", "-c", client]);
    let replica = world.edge.replicate(&original, &world.named("next"), &BTreeMap::new(), false).await.unwrap();
    world.edge.start(&replica).await.unwrap();
    let say = |word: &str| {
        let say = format!("echo {word} > /in");
        world.cli.docker(&["exec", &replica, "timeout", "5", "sh", "-c", &say])
    };
    let got = |word: &str| world.cli.docker(&["exec", &peer, "cat", "/got"]).contains(word);
    let server = address(&world, &peer, &net);
    world.cli.docker(&["exec", &replica, "sh", "-c", &format!("echo {server} > /go.new; mv /go.new /go")]);
    say("before");
    crate::support::wait_for("the connection", SOON, || got("before"));

    let endpoint = || world.cli.json(&["inspect", &replica], ".NetworkSettings.Networks")[&net]["EndpointID"].take();
    let before = endpoint();
    world.edge.take_aliases(&replica, &original, &world.named("app")).await.unwrap();
    assert_ne!(endpoint(), before, "it has left and come back");
    say("after");
    crate::support::wait_for("what came after", SOON, || got("after"));
}

#[tokio::test]
async fn where_there_are_no_names_nothing_is_done() {
    let world = World::system();
    let mut modes = vec!["none", "host"];
    if world.cli.try_docker(&["network", "inspect", "bridge"]).is_ok() {
        modes.push("bridge");
    }
    for mode in modes {
        let network = format!("--network={mode}");
        let original = world.run(&format!("{mode}-1"), &[&network], &FOREVER);
        let replica = world.run(&format!("{mode}-2"), &[&network], &FOREVER);
        let before = world.cli.json(&["inspect", &replica], ".NetworkSettings");
        world.edge.take_aliases(&replica, &original, &world.named("app")).await.unwrap();
        assert_eq!(world.cli.json(&["inspect", &replica], ".NetworkSettings"), before, "{mode}");
    }
}

fn address(world: &World, id: &str, network: &str) -> String {
    let networks = world.cli.json(&["inspect", id], ".NetworkSettings.Networks");
    networks[network]["IPAddress"].as_str().filter(|address| !address.is_empty()).expect("an address").to_owned()
}

/// What the engine's name server says in that container.
fn resolve(world: &World, container: &str, name: &str) -> BTreeSet<String> {
    let said = world.cli.try_docker(&["exec", container, "nslookup", name, "127.0.0.11"]).unwrap_or_else(|said| said);
    let answers = said.lines().skip_while(|line| !line.starts_with("Name:"));
    let words = answers.filter_map(|line| line.strip_prefix("Address")).filter_map(|line| line.split(": ").nth(1));
    words.map(|word| word.trim().to_owned()).collect()
}
