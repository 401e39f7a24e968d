//! What two looks at containers by `docker inspect` have in common.

use serde_json::{Map, Value};

/// What differs when a container has been started again; a pointer's `*` stands for each network.
const OF_A_START: [&str; 12] = [
    "/State/StartedAt",
    "/State/FinishedAt",
    "/State/Pid",
    "/State/Health",
    "/NetworkSettings/SandboxID",
    "/NetworkSettings/SandboxKey",
    "/NetworkSettings/*/EndpointID",
    "/NetworkSettings/*/MacAddress",
    "/NetworkSettings/*/IPAddress",
    "/NetworkSettings/*/Gateway",
    "/NetworkSettings/*/IPPrefixLen",
    "/NetworkSettings/EndpointID",
];

/// What differs in a container that was made like another. The anonymous volumes, which are asked for by name in it, are
/// compared in `Mounts`.
const OF_A_COPY: [&str; 12] = [
    "/Id",
    "/Created",
    "/LogPath",
    "/HostsPath",
    "/HostnamePath",
    "/ResolvConfPath",
    "/GraphDriver",
    "/Storage",
    "/Config/Hostname",
    "/Config/Volumes",
    "/HostConfig/Binds",
    "/HostConfig/Mounts",
];

/// That two containers, or two looks at one, are the same; a failure names what is not.
#[track_caller]
pub fn assert_same(after: &Value, before: &Value) {
    let mut differences = Vec::new();
    compare("", after, before, &mut differences);
    assert!(differences.is_empty(), "after and before differ: {differences:#?}");
}

fn compare(at: &str, after: &Value, before: &Value, differences: &mut Vec<String>) {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            for field in after.keys().chain(before.keys().filter(|field| !after.contains_key(*field))) {
                let of = |object: &Map<String, Value>| object.get(field).cloned().unwrap_or(Value::Null);
                compare(&format!("{at}/{field}"), &of(after), &of(before), differences);
            }
        }
        _ if after != before => differences.push(format!("{at}: {after} and {before}")),
        _ => {}
    }
}

/// What a start does not change.
pub fn lasting(inspected: &Value) -> Value {
    without(inspected, &OF_A_START)
}

/// What a copy has too: the settings, as far as a person can choose them.
pub fn settings(inspected: &Value) -> Value {
    let mut rest = without(&without(inspected, &OF_A_START), &OF_A_COPY);
    let (short, name) = (&inspected["Id"].as_str().unwrap()[..12], inspected["Name"].as_str().unwrap());
    if let Some(labels) = rest["Config"]["Labels"].as_object_mut() {
        labels.retain(|name, _| !["dso.rollout", "dso.replaces"].contains(&name.as_str()));
    }
    for network in networks(&mut rest) {
        for field in ["Aliases", "DNSNames"] {
            let mut names: Vec<Value> = network[field].as_array().cloned().unwrap_or_default();
            // Docker's name server knows it by these in any case.
            names.retain(|known| known != short && *known != name[1..]);
            network[field] = names.into();
        }
    }
    for mount in rest["Mounts"].as_array_mut().unwrap().iter_mut().filter(|mount| mount["Type"] == "volume") {
        // The engine knows where a plugin's volume is only when it has been mounted, and calls the mode of a volume
        // that was asked for by its name `z` where that of one without a name is empty.
        mount.as_object_mut().unwrap().retain(|field, _| !["Source", "Mode"].contains(&field.as_str()));
    }
    rest
}

fn without(inspected: &Value, pointers: &[&str]) -> Value {
    let mut rest = inspected.clone();
    for pointer in pointers {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        match parent.strip_suffix("/*") {
            Some(_) => networks(&mut rest).for_each(|network| drop(network.as_object_mut().unwrap().remove(field))),
            None => {
                let parent = rest.pointer_mut(parent).and_then(Value::as_object_mut);
                drop(parent.and_then(|parent| parent.remove(field)));
            }
        }
    }
    rest
}

fn networks(inspected: &mut Value) -> impl Iterator<Item = &mut Value> {
    inspected["NetworkSettings"]["Networks"].as_object_mut().unwrap().values_mut()
}
