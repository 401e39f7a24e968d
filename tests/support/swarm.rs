//! A Swarm of engines of the test's own, each in its network namespace, with the plugin under the same name on all of them.

use super::{
    BUSYBOX, SOON,
    cleanup::Scope,
    engine::outcome,
    own_engine::OwnEngine,
    plugin::{Plugin, Preparation},
    until,
};
use serde_json::Value;
use std::process::Command;

/// The driver's name in the Swarm.
pub const DRIVER: &str = "dso";

/// One engine with the plugin; its plugin ends before it.
pub struct Node {
    pub plugin: Plugin,
    pub engine: OwnEngine,
}

/// All are managers, and the first one begins as the leader.
pub struct Swarm {
    pub nodes: Vec<Node>,
    /// A network namespace with the bridge that joins them: in the host's own, the engine's packet filter would stand between.
    _bridge: Option<Scope>,
}

// === impl Swarm ===

impl Swarm {
    /// One node, of which no network is needed.
    pub fn alone(prepare: impl Fn(&OwnEngine, Preparation) -> Preparation) -> Self {
        let node = Node::start(prepare);
        node.engine.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
        Self { nodes: vec![node], _bridge: None }
    }

    /// Three managers.
    pub fn of_three(words: &[&str], prepare: impl Fn(&OwnEngine, Preparation) -> Preparation) -> Self {
        let bridge = Scope::new();
        ip(&["netns", "add", &bridge.name]);
        ip(&["-n", &bridge.name, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &bridge.name, "link", "set", "br0", "up"]);
        let nodes: Vec<_> = (0..3).map(|_| Node::start(&prepare)).collect();
        for (number, node) in nodes.iter().enumerate() {
            let (here, there) = (node.engine.namespace(), bridge.name.as_str());
            let port = format!("p{number}");
            ip(&["-n", here, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", there]);
            ip(&["-n", there, "link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", here, "addr", "add", &format!("{}/24", address(number)), "dev", "eth0"]);
            ip(&["-n", here, "link", "set", "eth0", "up"]);
        }
        let init = ["swarm", "init", "--advertise-addr", &address(0), "--listen-addr", &address(0)];
        nodes[0].engine.docker(&[&init[..], words].concat());
        let token = nodes[0].engine.docker(&["swarm", "join-token", "--quiet", "manager"]);
        for (number, node) in nodes.iter().enumerate().skip(1) {
            let own = address(number);
            let to = format!("{}:2377", address(0));
            let words = ["swarm", "join", "--token", &token, "--advertise-addr", &own, "--listen-addr", &own, &to];
            until("the node to join the Swarm", SOON * 2, || node.engine.try_docker(&words).ok());
        }
        Self { nodes, _bridge: Some(bridge) }
    }

    /// The number of the node that leads, of those that are up.
    #[track_caller]
    pub fn leader(&self) -> usize {
        let leads = |node: &&Node| {
            let look = ["node", "inspect", "self", "--format", "{{.ManagerStatus.Leader}}"];
            node.engine.is_up() && node.engine.try_docker(&look).is_ok_and(|said| said == "true")
        };
        until("a node to lead the Swarm", SOON * 3, || self.nodes.iter().position(|node| leads(&node)))
    }

    /// `docker …` on the node that leads.
    #[track_caller]
    pub fn docker(&self, words: &[&str]) -> String {
        self.nodes[self.leader()].engine.docker(words)
    }

    /// `docker secret create -d dso -l …`
    #[track_caller]
    pub fn secret(&self, name: &str, labels: &[&str]) {
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        let words: Vec<_> = ["secret", "create", "--driver", DRIVER].into_iter().chain(labels).chain([name]).collect();
        self.docker(&words);
    }

    /// A service of the tests' image that does nothing; waits for nothing.
    #[track_caller]
    pub fn service(&self, name: &str, words: &[&str]) {
        let create = ["service", "create", "--quiet", "--detach", "--no-resolve-image", "--name", name];
        let stop = ["--stop-grace-period", "1s", "--init"];
        self.docker(&[&create[..], &stop, words, &[BUSYBOX, "sleep", "100000"]].concat());
    }

    /// What `docker service inspect` tells.
    #[track_caller]
    pub fn inspect(&self, service: &str) -> Value {
        self.nodes[self.leader()].engine.json(&["service", "inspect", service], ".")
    }

    /// What a file of each running task of the service holds, on the nodes that are up.
    pub fn read(&self, service: &str, file: &str) -> Vec<String> {
        let filter = format!("label=com.docker.swarm.service.name={service}");
        let mut found = Vec::new();
        for node in self.nodes.iter().filter(|node| node.engine.is_up()) {
            let list = node.engine.docker(&["ps", "--quiet", "--filter", &filter, "--filter", "status=running"]);
            // One may end meanwhile.
            found.extend(list.lines().filter_map(|task| node.engine.try_docker(&["exec", task, "cat", file]).ok()));
        }
        found.sort();
        found
    }

    /// The logs of all plugins.
    pub fn log(&self) -> String {
        self.nodes.iter().map(|node| node.plugin.log()).collect()
    }
}

// === impl Node ===

impl Node {
    fn start(prepare: impl Fn(&OwnEngine, Preparation) -> Preparation) -> Self {
        let engine = OwnEngine::start();
        engine.load_images();
        let plugin = Plugin::on(&engine).called(DRIVER).set("DSO_REFRESH=1s");
        let plugin = prepare(&engine, plugin).start();
        Self { plugin, engine }
    }
}

fn address(number: usize) -> String {
    format!("10.77.0.{}", number + 1)
}

#[track_caller]
fn ip(words: &[&str]) {
    outcome(Command::new("ip").args(words).output().expect("ip")).expect("a network of the test's own");
}
