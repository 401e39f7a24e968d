//! The volumes of a replica: each by the name that the original has it under.

use super::{array, object, text};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Names every volume that only the engine knows the name of.
pub(super) fn name_all(original: &Value, sources: &BTreeMap<String, Vec<Value>>, host: &mut Map<String, Value>) {
    let mounts: Vec<&Value> = array(&original["Mounts"]).collect();
    let name_at = |destination: &str| {
        let mount = mounts.iter().find(|mount| mount["Type"] == "volume" && mount["Destination"] == destination)?;
        Some(text(&mount["Name"]))
    };
    for mount in host.get_mut("Mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let is_anonymous = mount["Type"] == "volume" && text(&mount["Source"]).is_empty();
        if let Some(name) = is_anonymous.then(|| name_at(&clean(text(&mount["Target"])))).flatten() {
            mount["Source"] = name.into();
        }
    }
    let mut named = BTreeSet::new();
    let mut binds: Vec<Value> = Vec::new();
    for bind in array(&original["HostConfig"]["Binds"]) {
        let words: Vec<&str> = text(bind).split(':').collect();
        let destination = clean(words.get(1).unwrap_or(&words[0]));
        binds.push(match (words.len(), name_at(&destination)) {
            (1, Some(name)) => format!("{name}:{destination}").into(),
            _ => bind.clone(),
        });
        named.insert(destination);
    }
    named.extend(array(&original["HostConfig"]["Mounts"]).map(|mount| clean(text(&mount["Target"]))));
    named.extend(object(&original["HostConfig"]["Tmpfs"]).keys().map(|target| clean(target)));

    let from: Vec<&str> = array(&original["HostConfig"]["VolumesFrom"]).map(text).collect();
    if from.iter().any(|from| !sources.contains_key(*from)) {
        let left: Vec<&str> = from.into_iter().filter(|from| sources.contains_key(*from)).collect();
        host.insert("VolumesFrom".into(), left.into());
    }
    let lent = |mount: &Value| {
        let is_it = |lent: &Value| {
            ["Destination", "Name", "Source"].iter().all(|field| text(&lent[field]) == text(&mount[field]))
        };
        sources.values().flatten().any(is_it)
    };
    for mount in mounts {
        let destination = text(&mount["Destination"]);
        let is_nameless = matches!(text(&mount["Type"]), "volume" | "bind") && !named.contains(destination);
        if is_nameless && !lent(mount) {
            match bind(mount, text(&original["HostConfig"]["VolumeDriver"])) {
                Some(bind) => binds.push(bind.into()),
                None => add_mount(host, mount),
            }
        }
    }
    if !binds.is_empty() {
        host.insert("Binds".into(), binds.into());
    }
}

/// In the short form, which leaves its mode as it is; where that cannot say it, `None`.
fn bind(mount: &Value, volume_driver: &str) -> Option<String> {
    let destination = text(&mount["Destination"]);
    let what = if mount["Type"] == "volume" { text(&mount["Name"]) } else { text(&mount["Source"]) };
    let is_of_driver = mount["Type"] == "bind" || volume_driver.is_empty() || volume_driver == text(&mount["Driver"]);
    if !is_of_driver || what.contains(':') || destination.contains(':') {
        return None;
    }
    let mut modes: Vec<&str> = text(&mount["Mode"]).split(',').filter(|mode| !mode.is_empty()).collect();
    if mount["RW"] == false && !modes.contains(&"ro") {
        modes.push("ro");
    }
    let modes = modes.join(",");
    Some(if modes.is_empty() { format!("{what}:{destination}") } else { format!("{what}:{destination}:{modes}") })
}

fn add_mount(host: &mut Map<String, Value>, mount: &Value) {
    let is_volume = mount["Type"] == "volume";
    let mut added = json!({
        "Type": mount["Type"],
        "Source": if is_volume { &mount["Name"] } else { &mount["Source"] },
        "Target": mount["Destination"],
        "ReadOnly": mount["RW"] == false,
    });
    if is_volume {
        added["VolumeOptions"] = json!({"DriverConfig": {"Name": mount["Driver"]}});
    }
    match host.get_mut("Mounts").and_then(Value::as_array_mut) {
        Some(mounts) => mounts.push(added),
        None => drop(host.insert("Mounts".into(), json!([added]))),
    }
}

/// As the engine shows a destination.
fn clean(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.fold(String::new(), |path, part| path + "/" + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_volume_without_a_name_gets_it_where_it_was_asked_for() {
        let volume =
            |name: &str, at: &str| json!({"Type": "volume", "Name": name, "Destination": at, "RW": true, "Mode": ""});
        let mounts = json!([
            volume("data", "/data"), volume("v1", "/single"), volume("v2", "/mounted"), volume("v3", "/config"),
            {"Type": "volume", "Name": "v4", "Destination": "/lent", "RW": false, "Mode": "z", "Driver": "local"},
            {"Type": "volume", "Name": "v5", "Destination": "/with:colon", "RW": false, "Driver": "local"},
            {"Type": "bind", "Source": "/host", "Destination": "/host", "RW": false, "Mode": "ro"},
            {"Type": "bind", "Source": "/lent", "Destination": "/lent-bind", "RW": false, "Mode": ""},
            {"Type": "bind", "Source": "/here", "Destination": "/still-lent", "RW": false, "Mode": ""},
            {"Type": "tmpfs", "Destination": "/run", "RW": true},
        ]);
        let mut host = object(&json!({
            "Binds": ["data:/data", "/single", "/host:/host/:ro"],
            "Mounts": [{"Type": "volume", "Target": "/mounted/"}, {"Type": "tmpfs", "Target": "/t"}],
            "Tmpfs": {"/run": ""},
            "VolumesFrom": ["gone:ro", "here"],
        }));
        let original = json!({"HostConfig": Value::Object(host.clone()), "Mounts": mounts});
        let here = vec![json!({"Type": "bind", "Source": "/here", "Destination": "/still-lent", "RW": true})];
        name_all(&original, &BTreeMap::from([("here".to_owned(), here)]), &mut host);

        let binds =
            ["data:/data", "v1:/single", "/host:/host/:ro", "v3:/config", "v4:/lent:z,ro", "/lent:/lent-bind:ro"];
        assert_eq!(host["Binds"], json!(binds));
        let added = json!({"Type": "volume", "Source": "v5", "Target": "/with:colon", "ReadOnly": true,
            "VolumeOptions": {"DriverConfig": {"Name": "local"}}});
        let mounts = json!([{"Type": "volume", "Target": "/mounted/", "Source": "v2"}, {"Type": "tmpfs", "Target": "/t"}, added]);
        assert_eq!((&host["Mounts"], &host["VolumesFrom"]), (&mounts, &json!(["here"])));
    }
}
