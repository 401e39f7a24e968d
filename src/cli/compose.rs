//! The volumes of a Compose file, as Compose itself understands it: anchors, `extends`, `.env` and interpolation are its business.

use super::{Failure, endpoint::Call, say};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
};

/// A volume that a file asks for.
pub struct Wanted {
    /// How its author calls it.
    pub shown: String,
    /// How the engine will.
    pub name: String,
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// Every volume with a driver that a service uses, which is what Compose tells of; those that others create (`external`) are not
/// the file's.
pub fn volumes(call: &Call, files: &[PathBuf]) -> Result<Vec<Wanted>, Failure> {
    for file in files {
        let unreadable = |error| Failure::Failed(format!("cannot read `{}`: {error}", file.display()));
        File::open(file).map(drop).map_err(unreadable)?;
    }
    let mut arguments = call.docker_arguments(["compose"]);
    arguments.extend(files.iter().flat_map(|file| [OsString::from("--file"), file.into()]));
    arguments.extend(["config", "--format", "json"].map(OsString::from));
    let run = |arguments: &[OsString]| {
        let output = Command::new(call.docker()).args(arguments).stdin(Stdio::inherit()).output();
        output.map_err(|error| Failure::Failed(format!("cannot run `docker compose`: {error}")))
    };
    let output = run(&arguments)?;
    if !output.status.success() {
        let is_there = run(&call.docker_arguments(["compose", "version"]))?.status.success();
        return Err(Failure::Failed(match is_there {
            // What Compose says quotes lines of the file and of `.env`, in which values stand.
            true => "`docker compose config` refuses the file: run it yourself; its message may show a value".into(),
            false => "a Compose file is read by Compose v2, which is not there: install it (`docker compose version` tells), or give a \
                      volume's options with -o"
                .into(),
        }));
    }
    if !output.stderr.trim_ascii().is_empty() {
        say("Note: `docker compose config` has warnings: run it yourself; they may show a value.");
    }
    let config: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| Failure::Failed("`docker compose config` did not answer in JSON: use a newer Compose".into()))?;
    Ok(of(&config))
}

fn of(config: &Value) -> Vec<Wanted> {
    let volumes = config["volumes"].as_object().into_iter().flatten();
    let wanted = volumes.filter(|(_, volume)| volume["external"] != true).filter_map(|(key, volume)| {
        let options = volume["driver_opts"].as_object().into_iter().flatten();
        Some(Wanted {
            shown: key.clone(),
            name: volume["name"].as_str().unwrap_or(key).to_owned(),
            driver: volume["driver"].as_str()?.to_owned(),
            options: options
                .map(|(key, value)| (key.clone(), value.as_str().map_or(value.to_string(), str::to_owned)))
                .collect(),
        })
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_with_a_driver_that_the_project_makes_are_wanted() {
        let found = of(&serde_json::json!({"volumes": {
            "app": {"name": "p_app", "driver": "dso", "driver_opts": {"from": "local://a", "uid": 7}},
            "data": {"name": "p_data"},
            "theirs": {"name": "theirs", "external": true, "driver": "dso"},
        }}));
        let [app] = &found[..] else { panic!("{} volumes", found.len()) };
        assert_eq!((&*app.shown, &*app.name, &*app.driver), ("app", "p_app", "dso"));
        assert_eq!((&*app.options["from"], &*app.options["uid"]), ("local://a", "7"));
        assert!(of(&serde_json::json!({})).is_empty());
    }
}
