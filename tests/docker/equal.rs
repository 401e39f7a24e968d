//! That a replica is equal to its original, to the byte of what `inspect` shows, but for what is listed here.

use crate::{
    support::{BUSYBOX, compose::Compose},
    world::World,
};
use dso::docker::ContainerRuntime;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FOREVER: [&str; 2] = ["sleep", "1000"];
const MARK: &str = "dso.test.rollout";

/// What is of one container alone. Its ID and name are replaced wherever they stand.
const OWN: [&str; 9] = [
    "/ExecIDs",
    "/Created",
    "/State/StartedAt",
    "/State/FinishedAt",
    "/State/Pid",
    "/GraphDriver/Data",
    "/LogPath",
    "/NetworkSettings/SandboxID",
    "/NetworkSettings/SandboxKey",
];
/// The same of an endpoint, and of the legacy copy of the first one's.
const OWN_OF_ENDPOINT: [&str; 4] = ["EndpointID", "IPAddress", "MacAddress", "GlobalIPv6Address"];

#[tokio::test]
async fn a_replica_of_everything_the_cli_can_ask_for_differs_in_nothing() {
    let world = World::system();
    let [first, second, data] = ["first", "second", "data"].map(|name| world.named(name));
    world.cli.docker(&["network", "create", "--subnet=10.213.77.0/24", &first]);
    world.cli.docker(&["network", "create", &second]);
    let peer = world.run("peer", &["--network", &first], &FOREVER);
    let lender = world.create("lender", &["--volume=/lent", "--volume=/etc:/lent-etc:ro"], &FOREVER);
    let named = format!("--volume={data}:/data:ro,nocopy");
    let link = format!("--link={peer}:linked");
    let from = format!("--volumes-from={lender}:ro");
    let options = [
        &["--network", &first, "--network-alias=one", "--network-alias=two", &link, &named, &from][..],
        &["--volume=/anonymous", "--mount=type=volume,dst=/nameless", "--mount=type=volume,dst=/no/copy,volume-nocopy"],
        &["--mount=type=bind,src=/etc,dst=/host-etc,readonly,bind-propagation=private", "--volume=/usr:/host-usr:ro"],
        &["--mount=type=tmpfs,dst=/scratch,tmpfs-size=1m,tmpfs-mode=1770", "--tmpfs=/tmp:size=2m,mode=1777"],
        &["--hostname=web", "--domainname=example.test", "--add-host=far:10.0.0.9", "--expose=81/udp"],
        &["--dns=10.0.0.1", "--dns-option=ndots:2", "--dns-search=example.test", "--workdir=/srv", "--user=1000:1000"],
        &["--env=A=b", "--env=EMPTY=", "--label=plain=1", "--label=with.text=two words", "--stop-signal=SIGINT"],
        &["--stop-timeout=7", "--restart=on-failure:4", "--init", "--read-only", "--tty", "--interactive"],
        &["--memory=64m", "--memory-reservation=32m", "--memory-swap=96m", "--cpus=0.5", "--cpuset-cpus=0"],
        &["--cpu-shares=512", "--pids-limit=99", "--ulimit=nofile=1024:2048", "--shm-size=8m", "--oom-score-adj=100"],
        &["--cap-add=NET_ADMIN", "--cap-drop=MKNOD", "--security-opt=no-new-privileges", "--group-add=10"],
        &["--device=/dev/null:/dev/nil:rw", "--device-cgroup-rule=c 1:3 rw", "--sysctl=net.core.somaxconn=200"],
        &["--ipc=shareable", "--cgroupns=private", "--pid=host", "--userns=host", "--log-driver=json-file"],
        &["--log-opt=max-size=1m", "--log-opt=tag=x/{{.Name}}", "--health-cmd=true", "--health-interval=3s"],
        &["--health-timeout=2s", "--health-retries=2", "--health-start-period=1s", "--entrypoint=env"],
    ]
    .concat();
    let make = |name: &str, more: &[&str]| {
        let made = world.create(name, &[&options, more].concat(), &FOREVER);
        world.cli.docker(&["network", "connect", "--alias=three", "--driver-opt=a=b", &second, &made]);
        made
    };
    // Never started: not every engine of the tests can publish a port.
    let published = make("published", &["--publish=80", "--publish=127.0.0.1:18080:81/udp", "--publish-all"]);
    let copy = replicate(&world, &published, "copy").await;
    assert_eq!(ports(&world, &copy), ports(&world, &published));

    let original = make("original", &[]);
    let replica = replicate(&world, &original, "replica").await;
    let anonymous = [volume_at(&world, &original, "/anonymous"), volume_at(&world, &original, "/nameless")];
    let copied = volume_at(&world, &original, "/no/copy");
    let differences = differences(&world, &original, &replica);
    let named = |difference: &String, volume: &str| difference.contains(&format!("/Source: null, \"{volume}\""));
    let allowed = |difference: &String| {
        difference.contains(&format!("{}:/anonymous", anonymous[0]))
            || named(difference, &anonymous[1])
            || named(difference, &copied)
            || is_mode_of_named(difference)
    };
    assert!(differences.iter().all(allowed) && differences.len() == 4, "{differences:#?}");
    for destination in ["/anonymous", "/nameless", "/no/copy", "/data", "/lent"] {
        assert_eq!(volume_at(&world, &replica, destination), volume_at(&world, &original, destination));
    }

    // Running, too, and from one that runs.
    for id in [&original, &replica] {
        world.edge.start(id).await.unwrap();
    }
    let running = self::differences(&world, &original, &replica);
    assert!(running.iter().all(allowed), "{running:#?}");
    let third = replicate(&world, &replica, "third").await;
    world.edge.start(&third).await.unwrap();
    assert_eq!(self::differences(&world, &replica, &third), Vec::<String>::new());
}

#[tokio::test]
async fn each_kind_of_network_is_the_replicas_too() {
    let world = World::system();
    let net = world.named("net");
    let id = world.cli.docker(&["network", "create", &net]);
    let host = world.run("host", &["--network=none"], &FOREVER);
    let guest = format!("--network=container:{host}");
    let mut all: Vec<Vec<&str>> = vec![
        vec!["--network=none"],
        vec!["--network=host"],
        vec!["--network=host", "--uts=host"],
        vec!["--network=none", "--uts=host"],
        vec![&guest],
        vec!["--network", &net],
        vec!["--network", &id, "--network-alias=a"],
        vec!["--network", &id[..12]],
    ];
    if world.cli.try_docker(&["network", "inspect", "bridge"]).is_ok() {
        all.extend([vec![], vec!["--network=bridge"]]);
    }
    // Whose API takes a MAC address from the CLI of today.
    if !world.cli.json(&["version"], ".Server.APIVersion").as_str().unwrap().starts_with("1.41") {
        all.push(vec!["--network", &net, "--mac-address=02:00:00:00:12:34"]);
    }
    for (number, options) in all.iter().enumerate() {
        let original = world.create(&format!("original-{number}"), options, &FOREVER);
        let replica = replicate(&world, &original, &format!("replica-{number}")).await;
        assert_eq!(differences(&world, &original, &replica), Vec::<String>::new(), "{options:?}, created");
        // A second one has what the engine adds at the start.
        world.edge.start(&original).await.unwrap();
        let late = replicate(&world, &original, &format!("late-{number}")).await;
        world.edge.start(&late).await.unwrap();
        assert_eq!(differences(&world, &original, &late), Vec::<String>::new(), "{options:?}, started");
    }
    // Not started: not every machine lets it.
    let original = world.create("original", &["--privileged", "--network=none"], &FOREVER);
    let replica = replicate(&world, &original, "replica").await;
    assert_eq!(differences(&world, &original, &replica), Vec::<String>::new());
}

#[tokio::test]
async fn networks_left_and_joined_by_hand_are_those_of_the_replica() {
    let world = World::system();
    let [first, second] = ["first", "second"].map(|name| world.named(name));
    for network in [&first, &second] {
        world.cli.docker(&["network", "create", network]);
    }
    let original = world.run("original", &["--network", &first], &FOREVER);
    world.cli.docker(&["network", "disconnect", &first, &original]);
    world.cli.docker(&["network", "connect", "--alias=two", &second, &original]);
    let replica = replicate(&world, &original, "replica").await;
    world.edge.start(&replica).await.unwrap();
    assert_eq!(differences(&world, &original, &replica), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_taken_out_of_the_image_stays_out_and_a_name_that_moved_on_brings_no_other_image() {
    let world = World::system();
    let (base, image) = (world.create("base", &[], &FOREVER), world.named("image"));
    let changes = [
        "--change=ENTRYPOINT [\"/none\"]",
        "--change=CMD [\"nothing\"]",
        "--change=VOLUME /of-image",
        "--change=EXPOSE 99",
        "--change=ENV FROM=image",
        "--change=LABEL from=image",
        "--change=HEALTHCHECK CMD false",
        "--change=USER 7",
        "--change=WORKDIR /w",
    ];
    world.cli.docker(&[&["commit"][..], &changes, &[&base, &image]].concat());
    let run = |name: &str, options: &[&str], command: &[&str]| {
        let name = world.named(name);
        let words = [&["create", "--name", &name, "--network=none"], options, &[&image], command].concat();
        world.cli.docker(&words)
    };
    let plain = run("plain", &[], &[]);
    let bare = run("bare", &["--entrypoint=", "--no-healthcheck", "--user=0", "--stop-timeout=0"], &FOREVER);
    let bind = |container: &str| format!("{}:/of-image", volume_at(&world, container, "/of-image"));
    for (original, name) in [(&plain, "plain-2"), (&bare, "bare-2")] {
        let replica = replicate(&world, original, name).await;
        let differences = differences(&world, original, &replica);
        let allowed = |difference: &String| difference.contains(&bind(original)) || is_mode_of_named(difference);
        assert!(differences.iter().all(allowed), "{differences:#?}");
    }
    world.cli.docker(&["tag", BUSYBOX, &image]);
    let replica = replicate(&world, &bare, "bare-3").await;
    let differences = differences(&world, &bare, &replica);
    assert!(differences.len() == 3 && differences[0].starts_with("/Config/Image: "), "{differences:#?}");
    world.edge.start(&replica).await.unwrap();
    world.cli.docker(&["exec", &replica, "sh", "-c", "test $FROM = image"]);
}

#[tokio::test]
async fn volumes_of_a_container_that_is_gone_are_taken_over_from_the_original() {
    let world = World::system();
    let lender = world.create("lender", &["--network=none", "--volume=/lent", "--volume=/etc:/lent-etc:ro"], &FOREVER);
    let original = world.run("original", &["--network=none", &format!("--volumes-from={lender}")], &FOREVER);
    world.cli.docker(&["exec", &original, "touch", "/lent/kept"]);
    world.cli.docker(&["rm", &lender]);
    let replica = replicate(&world, &original, "replica").await;
    world.edge.start(&replica).await.unwrap();
    world.cli.docker(&["exec", &replica, "test", "-e", "/lent/kept"]);
    let mut found = Vec::new();
    let mounts = |id: &str| sorted(world.cli.json(&["inspect", id], ".Mounts"));
    compare("/Mounts", &mounts(&original), &mounts(&replica), &mut found);
    found.retain(|difference| !is_mode_of_named(difference));
    assert_eq!(found, ["/Mounts/1/Mode: \"\", \"ro\""], "the lender's mode is told by whether it can be written to");
}

#[tokio::test]
async fn compose_finds_nothing_to_do_after_a_replica_has_taken_the_originals_place() {
    let world = World::system();
    let file = format!(
        "services:\n  app:\n    image: {BUSYBOX}\n    command: [sleep, '1000']\n    stop_grace_period: 0s\n    \
         environment: {{A: b}}\n    volumes: ['data:/data', '/anonymous']\n    labels: {{l: v}}\n    deploy: {{resources: {{limits: \
         {{memory: 64m}}}}}}\n    healthcheck: {{test: [CMD, 'true'], interval: 1s}}\n    networks: {{default: {{aliases: \
         [other]}}, back: {{}}}}\n    depends_on: [db]\n  db:\n    image: {BUSYBOX}\n    command: [sleep, '1000']\n    \
         stop_grace_period: 0s\n    networks: [back]\nvolumes:\n  data:\nnetworks:\n  back:\n    ipam: {{config: [{{subnet: \
         10.213.78.0/24}}]}}\n"
    );
    let compose = Compose::new(&world.cli, &file);
    compose.run(&["up", "--detach"]);
    let name = format!("{}-app-1", compose.project());
    let original = world.see(&name).await.id;
    let replica = world.edge.replicate(&original, &format!("{name}-next"), &BTreeMap::new(), true).await.unwrap();
    world.edge.start(&replica).await.unwrap();
    let source = format!("/Source: null, \"{}\"", volume_at(&world, &original, "/anonymous"));
    let differences = differences(&world, &original, &replica);
    assert!(differences.len() == 1 && differences[0].ends_with(&source), "{differences:#?}");
    world.edge.remove(&original).await.unwrap();
    world.edge.rename(&replica, &name).await.unwrap();
    let said = compose.run(&["up", "--detach"]);
    assert_eq!(world.see(&name).await.id, replica, "{said}");
    compose.run(&["exec", "--no-TTY", "db", "ping", "-c1", "-W5", "app"]);
}

async fn replicate(world: &World, original: &str, name: &str) -> String {
    let before = normal(world, original, original);
    let labels = BTreeMap::from([(MARK.to_owned(), "7".to_owned())]);
    let replica = world.edge.replicate(original, &world.named(name), &labels, true).await.unwrap();
    let mut changed = Vec::new();
    compare("", &before, &normal(world, original, original), &mut changed);
    assert_eq!(changed, Vec::<String>::new(), "the original is left as it is");
    assert_eq!(world.cli.json(&["inspect", &replica], ".State.Status"), "created");
    replica
}

/// Where the two are not equal, as `path: this one, that one`.
fn differences(world: &World, original: &str, replica: &str) -> Vec<String> {
    let [one, two] = [original, replica].map(|id| normal(world, id, original));
    let mut found = Vec::new();
    compare("", &one, &two, &mut found);
    found
}

fn ports(world: &World, id: &str) -> [Value; 3] {
    [".HostConfig.PortBindings", ".HostConfig.PublishAllPorts", ".Config.ExposedPorts"]
        .map(|field| world.cli.json(&["inspect", id], field))
}

/// The engine shows the mode of a volume as `z` where it was asked for by name, and as nothing where it was not.
fn is_mode_of_named(difference: &str) -> bool {
    difference.starts_with("/Mounts/") && difference.ends_with("/Mode: \"\", \"z\"")
}

fn compare(path: &str, one: &Value, two: &Value, found: &mut Vec<String>) {
    match (one, two) {
        (Value::Object(fields), Value::Object(others)) => {
            let names = fields.keys().chain(others.keys().filter(|name| !fields.contains_key(*name)));
            for name in names {
                compare(&format!("{path}/{name}"), &one[name], &two[name], found);
            }
        }
        (Value::Array(these), Value::Array(those)) if these.len() == those.len() => {
            for (number, (one, two)) in these.iter().zip(those).enumerate() {
                compare(&format!("{path}/{number}"), one, two, found);
            }
        }
        _ if one == two => {}
        _ => found.push(format!("{path}: {one}, {two}")),
    }
}

/// What `inspect` shows, without what is of this container alone.
fn normal(world: &World, id: &str, original: &str) -> Value {
    let mut text = world.cli.docker(&["inspect", id]);
    for named in [id, original] {
        // With quotes, since one name may be the beginning of the other.
        let name = world.cli.docker(&["inspect", named, "--format", "{{.Name}}"]);
        text = text.replace(&format!("\"{name}\""), "\"/<name>\"").replace(&format!("{name}/"), "/<name>/");
        text = text.replace(&format!("\"{}\"", &name[1..]), "\"<name>\"");
    }
    let text = text.replace(id, "<id>").replace(&id[..12], "<short>");
    let mut seen = serde_json::from_str::<Value>(&text).unwrap()[0].take();
    for path in OWN {
        seen.pointer_mut(path).map(Value::take);
    }
    seen["Config"]["Labels"].as_object_mut().map(|labels| labels.remove(MARK));
    seen["State"]["Health"].take();
    seen["Mounts"] = sorted(seen["Mounts"].take());
    let settings = &mut seen["NetworkSettings"];
    settings["Ports"].take();
    for field in OWN_OF_ENDPOINT {
        settings.get_mut(field).map(Value::take);
    }
    for (_, endpoint) in settings["Networks"].as_object_mut().into_iter().flatten() {
        for field in OWN_OF_ENDPOINT {
            endpoint.get_mut(field).map(Value::take);
        }
        for names in ["Aliases", "DNSNames"] {
            endpoint[names] = sorted(endpoint[names].take());
            // One of its own that it was also given as an alias.
            endpoint[names].as_array_mut().into_iter().for_each(Vec::dedup);
        }
        // The CLI's `network connect` says nothing at length.
        for field in ["IPAMConfig", "DriverOpts"] {
            if endpoint[field] == json!({}) {
                endpoint[field].take();
            }
        }
    }
    seen
}

fn sorted(mut list: Value) -> Value {
    if let Some(items) = list.as_array_mut() {
        items.sort_by_key(ToString::to_string);
    }
    list
}

#[track_caller]
fn volume_at(world: &World, id: &str, destination: &str) -> String {
    let mounts = world.cli.json(&["inspect", id], ".Mounts");
    let mount = mounts.as_array().unwrap().iter().find(|mount| mount["Destination"] == destination);
    mount.unwrap_or_else(|| panic!("nothing at {destination} in {mounts}"))["Name"].as_str().unwrap().to_owned()
}
