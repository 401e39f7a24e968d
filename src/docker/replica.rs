//! A container equal to another: what the engine is asked to create.
//!
//! The request is made of what `inspect` shows, as plain JSON: `Config` and `HostConfig` go back as they came, so that an option
//! of a newer engine is not lost, and only what must differ is changed. That is:
//!
//! - **The name, and the labels** that are added.
//! - **The image**: by the name that the container was made with where that still is the same image, else by its ID. Compose and people see
//!   the same name, and a name that was moved on in between does not bring another program along.
//! - **What the engine filled in by itself and would refuse, or take for a wish**: a host name that is the short ID; a host
//!   name and exposed ports of a container that is on the network of another.
//! - **Volumes that have no name in the request**: anonymous ones, and those that `--volumes-from` gave. They are asked for by their
//!   name, or the new container would begin with empty ones. (An anonymous volume so becomes a named one for the engine: `docker rm -v`
//!   does not remove it. Compose does the same.)
//! - **Of each network** only what can be asked for: addresses and IDs that the engine gave are left out, and of the aliases the short ID.
//!
//! A create request takes one network on engines before 25; so the others are joined before the start, on all engines alike.

mod volumes;

use super::inspected::SHORT_ID;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Of an endpoint, what the engine gives and nobody asks for.
const GIVEN: [&str; 10] = [
    "NetworkID",
    "EndpointID",
    "Gateway",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "DNSNames",
    "MacAddress",
];

/// What must be known beyond the container itself.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Whether the name in its `Config` still leads to the image that it runs.
    pub(super) image_has_name: bool,
    /// The mounts of each container that it takes volumes from and that is still there, by the words of `VolumesFrom`.
    pub(super) sources: BTreeMap<String, Vec<Value>>,
}

/// What to ask for, in this order.
#[derive(Debug, PartialEq)]
pub(super) struct Replica {
    pub(super) create: Value,
    /// The query of that: `platform=…`, or empty.
    pub(super) platform: Option<String>,
    /// A network that `create` joins, and of which the original is no member any more.
    pub(super) leave: Option<String>,
    /// By the network's ID.
    pub(super) join: Vec<(String, Value)>,
}

// === impl Replica ===

impl Replica {
    pub(super) fn of(
        original: &Value,
        surroundings: &Surroundings,
        labels: &BTreeMap<String, String>,
        aliased: bool,
    ) -> Self {
        let mut host = object(&original["HostConfig"]);
        volumes::name_all(original, &surroundings.sources, &mut host);
        let mut create = config(original, surroundings, labels);
        let (first, join) = networks(original, aliased);
        let mode = text(&original["HostConfig"]["NetworkMode"]);
        let leave = (first.is_none() && !is_without_members(mode)).then(|| network_of(mode).to_owned());
        if let Some((network, endpoint)) = first {
            create.insert("NetworkingConfig".into(), json!({"EndpointsConfig": {network: endpoint}}));
        }
        create.insert("HostConfig".into(), host.into());
        Self { create: create.into(), platform: platform(original), leave, join }
    }
}

fn config(original: &Value, surroundings: &Surroundings, labels: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut config = object(&original["Config"]);
    if !surroundings.image_has_name {
        config.insert("Image".into(), original["Image"].clone());
    }
    let mode = text(&original["HostConfig"]["NetworkMode"]);
    let is_guest = mode.starts_with("container:");
    let short = short_id(original);
    if is_guest || text(&original["HostConfig"]["UTSMode"]) == "host" || text(&original["Config"]["Hostname"]) == short
    {
        config.remove("Hostname");
    }
    if is_guest {
        config.remove("Domainname");
        config.remove("ExposedPorts");
    }
    // Nothing here means the image's own, and an empty word means none.
    let has_none = config.get("Entrypoint").is_none_or(|entrypoint| entrypoint.as_array().is_none_or(Vec::is_empty));
    if has_none {
        config.insert("Entrypoint".into(), json!([""]));
    }
    let mut all = object(&original["Config"]["Labels"]);
    all.extend(labels.iter().map(|(name, value)| (name.clone(), value.clone().into())));
    config.insert("Labels".into(), all.into());
    config
}

type Joined = Vec<(String, Value)>;

/// The network to create it in, if the original is a member of that, and the others by ID.
fn networks(original: &Value, aliased: bool) -> (Option<(String, Value)>, Joined) {
    let mode = text(&original["HostConfig"]["NetworkMode"]);
    if is_without_members(mode) {
        return (None, Vec::new());
    }
    let (mut create, mut join) = (None, Vec::new());
    let all = object(&original["NetworkSettings"]["Networks"]);
    for (network, endpoint) in &all {
        // Before the first start no ID is shown, which the mode may be.
        let is_only_one = all.len() == 1 && text(&endpoint["NetworkID"]).is_empty();
        let aliases = if aliased { aliases(original, endpoint) } else { Vec::new() };
        let asked = asked_for(original, network, endpoint, aliases);
        if is_only_one || is_of_mode(mode, network, endpoint) {
            let is_default = matches!(mode, "" | "default");
            create = Some((if is_default { "default".to_owned() } else { network.clone() }, asked));
        } else {
            join.push((identity(network, endpoint), asked));
        }
    }
    (create, join)
}

/// What a person, or Compose, has asked for on this network, but for aliases.
pub(super) fn asked_for(container: &Value, network: &str, endpoint: &Value, aliases: Vec<String>) -> Value {
    let mut asked = object(endpoint);
    asked.retain(|field, _| !GIVEN.contains(&field.as_str()));
    if let Some(address) = fixed_mac(container, network, endpoint) {
        asked.insert("MacAddress".into(), address.into());
    }
    asked.insert("Aliases".into(), if aliases.is_empty() { Value::Null } else { aliases.into() });
    asked.into()
}

/// The aliases that were asked for. Engines before 25 add the short ID and the host name by themselves.
pub(super) fn aliases(container: &Value, endpoint: &Value) -> Vec<String> {
    let (short, host) = (short_id(container), text(&container["Config"]["Hostname"]));
    let shown = || array(&endpoint["Aliases"]).map(text);
    let is_added = shown().any(|alias| alias == short);
    shown().filter(|alias| !is_added || *alias != short && *alias != host).map(str::to_owned).collect()
}

/// The address that a person fixed on the network that the container was created in. Those on further networks the engine
/// does not tell from what it made itself.
fn fixed_mac<'a>(container: &'a Value, network: &str, endpoint: &Value) -> Option<&'a str> {
    let address = text(&container["Config"]["MacAddress"]);
    let is_first = is_of_mode(text(&container["HostConfig"]["NetworkMode"]), network, endpoint);
    (is_first && !address.is_empty()).then_some(address)
}

/// By ID where the engine tells it: a container that was never started has none.
pub(super) fn identity(network: &str, endpoint: &Value) -> String {
    let id = text(&endpoint["NetworkID"]);
    if id.is_empty() { network.to_owned() } else { id.to_owned() }
}

/// Whether that network is the one of the mode, which may say its name, its ID or the beginning of it.
fn is_of_mode(mode: &str, network: &str, endpoint: &Value) -> bool {
    let (mode, id) = (network_of(mode), text(&endpoint["NetworkID"]));
    network == mode || mode.len() >= SHORT_ID && id.starts_with(mode)
}

/// Networks that one is not a member of, but in.
pub(super) fn is_without_members(mode: &str) -> bool {
    matches!(mode, "host" | "none") || mode.starts_with("container:")
}

/// The name of the network that a mode means.
fn network_of(mode: &str) -> &str {
    match mode {
        "" | "default" => "bridge",
        mode => mode,
    }
}

/// Of an image for several: `linux/arm64/v8`. Only newer engines tell.
fn platform(original: &Value) -> Option<String> {
    let platform = &original["ImageManifestDescriptor"]["platform"];
    let words = [&platform["os"], &platform["architecture"], &platform["variant"]].map(text);
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    (words.len() >= 2).then(|| words.join("/"))
}

fn short_id(container: &Value) -> &str {
    let id = text(&container["Id"]);
    id.get(..SHORT_ID).unwrap_or(id)
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// As an engine shows one, with what a test sets in place of what is usual.
    fn original(changes: &[(&str, Value)]) -> Value {
        let mut original = json!({
            "Id": ID, "Image": "sha256:aa",
            "Config": {"Hostname": "0123456789ab", "Image": "app:1", "Entrypoint": ["/app"], "Labels": {"a": "b"}},
            "HostConfig": {"NetworkMode": "net", "Binds": null, "VolumesFrom": null, "FieldOfTomorrow": {"x": 1}},
            "Mounts": [],
            "NetworkSettings": {"Networks": {"net": {
                "IPAMConfig": {"IPv4Address": "10.0.0.5"}, "Aliases": ["one", "0123456789ab"], "Links": ["db:db"],
                "NetworkID": "n1n1n1n1n1n1", "EndpointID": "e", "IPAddress": "10.0.0.5", "MacAddress": "02:42:0a:00:00:05",
                "DNSNames": ["app"], "GwPriority": 3,
            }}},
        });
        for (path, value) in changes {
            let (parent, field) = path.rsplit_once('/').unwrap();
            original.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        original
    }

    fn replica(changes: &[(&str, Value)], aliased: bool) -> Replica {
        let surroundings = Surroundings { image_has_name: true, ..Surroundings::default() };
        Replica::of(&original(changes), &surroundings, &BTreeMap::from([("c".into(), "d".into())]), aliased)
    }

    #[test]
    fn what_is_not_known_goes_along_and_what_the_engine_gave_does_not() {
        let replica = replica(&[], true);
        assert_eq!(replica.create["HostConfig"]["FieldOfTomorrow"], json!({"x": 1}));
        assert_eq!(replica.create["Labels"], json!({"a": "b", "c": "d"}));
        assert_eq!(replica.create.get("Hostname"), None);
        let endpoint = json!({
            "IPAMConfig": {"IPv4Address": "10.0.0.5"}, "Aliases": ["one"], "Links": ["db:db"], "GwPriority": 3,
        });
        assert_eq!(replica.create["NetworkingConfig"], json!({"EndpointsConfig": {"net": endpoint}}));
        assert_eq!((replica.join, replica.leave, replica.platform), (Vec::new(), None, None));
    }

    #[test]
    fn a_host_name_of_a_persons_choice_stays_but_where_it_is_the_hosts_or_anothers() {
        let name = |mode: &str, uts: &str| {
            let changes = [
                ("/Config/Hostname", json!("web")),
                ("/Config/Domainname", json!("example.test")),
                ("/Config/ExposedPorts", json!({"80/tcp": {}})),
                ("/HostConfig/NetworkMode", json!(mode)),
                ("/HostConfig/UTSMode", json!(uts)),
            ];
            let create = replica(&changes, true).create;
            ["Hostname", "Domainname", "ExposedPorts"].map(|field| create.get(field).is_some())
        };
        assert_eq!(name("net", ""), [true, true, true]);
        assert_eq!(name("net", "host"), [false, true, true]);
        assert_eq!(name("container:abc", ""), [false, false, false]);
    }

    #[test]
    fn without_aliases_it_has_its_links_and_address_alone() {
        let mut endpoint = replica(&[], false).create["NetworkingConfig"]["EndpointsConfig"]["net"].take();
        assert_eq!(endpoint["Aliases"].take(), Value::Null);
        assert_eq!(
            (&endpoint["Links"], &endpoint["IPAMConfig"]["IPv4Address"]),
            (&json!(["db:db"]), &json!("10.0.0.5"))
        );
    }

    #[test]
    fn an_alias_that_is_the_host_name_stays_where_the_engine_adds_none_by_itself() {
        let aliases = |shown: Value| {
            let changes = [("/Config/Hostname", json!("web")), ("/NetworkSettings/Networks/net/Aliases", shown)];
            let original = original(&changes);
            aliases(&original, &original["NetworkSettings"]["Networks"]["net"])
        };
        assert_eq!(aliases(json!(["one", "0123456789ab", "web"])), ["one"]);
        assert_eq!(aliases(json!(["one", "web"])), ["one", "web"]);
        assert_eq!(aliases(Value::Null), Vec::<String>::new());
    }

    #[test]
    fn further_networks_are_joined_by_id_and_one_that_was_left_is_left() {
        let networks = |mode: &str| {
            let all =
                json!({"net": {"NetworkID": "n1n1n1n1n1n1n1"}, "other": {"NetworkID": "n2", "MacAddress": "02::1"}});
            let changes = [
                ("/NetworkSettings/Networks", all),
                ("/HostConfig/NetworkMode", json!(mode)),
                ("/Config/MacAddress", json!("02:00:00:00:00:09")),
            ];
            replica(&changes, true)
        };
        let other = ("n2".to_owned(), json!({"Aliases": null}));
        for mode in ["net", "n1n1n1n1n1n1n1", "n1n1n1n1n1n1"] {
            let replica = networks(mode);
            assert_eq!((replica.leave, replica.join), (None, vec![other.clone()]), "{mode}");
            let endpoints = json!({"net": {"Aliases": null, "MacAddress": "02:00:00:00:00:09"}});
            assert_eq!(replica.create["NetworkingConfig"]["EndpointsConfig"], endpoints);
        }
        let replica = networks("default");
        assert_eq!((replica.leave.as_deref(), replica.join.len()), (Some("bridge"), 2));
        assert_eq!(replica.create.get("NetworkingConfig"), None);
        for mode in ["none", "host", "container:abc"] {
            let replica = networks(mode);
            assert_eq!((replica.leave, replica.join.len()), (None, 0), "{mode}");
        }
    }

    #[test]
    fn the_image_is_named_as_before_only_where_the_name_still_leads_to_it() {
        let surroundings = Surroundings::default();
        let moved = Replica::of(&original(&[]), &surroundings, &BTreeMap::new(), true);
        assert_eq!(moved.create["Image"], "sha256:aa");
        assert_eq!(replica(&[], true).create["Image"], "app:1");
        let none = replica(&[("/Config/Entrypoint", Value::Null)], true);
        assert_eq!(none.create["Entrypoint"], json!([""]));
        let arm = json!({"platform": {"os": "linux", "architecture": "arm", "variant": "v7"}});
        let arm = replica(&[("/ImageManifestDescriptor", arm)], true);
        assert_eq!(arm.platform.as_deref(), Some("linux/arm/v7"));
    }
}
