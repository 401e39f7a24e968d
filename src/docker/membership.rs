//! A container's names on its networks.
//!
//! The API cannot add an alias to a member of a network: it has to leave, and to join anew with more names.
//!
//! # What that costs
//! Its interface goes and comes back within some tenths of a second. No address is asked for, and yet it gets its own back, on engines 20.10
//! and 28.5 and on networks with a subnet of the engine's or of a person's: they give the lowest that is free, and that is the one it has just left.
//! With its address an established connection lives on: what is under way is sent again.
//!
//! # Caveats
//! - Where a lower address has become free since, or another container comes in between, it gets another one, and the connections that it has made
//!   on this network are dead without being told. Whoever replaces a container should see it healthy once more after this, before the old one goes.
//! - To ask for the same address would not be better: engines refuse it on a subnet of their own, and elsewhere keep it as a fixed one,
//!   with which the container may not start again after a reboot, when another has taken it.
//! - Since 28 the engine makes up another MAC address; peers learn it at once.
//! - A port of the host that the engine picked may change.

use super::{
    RuntimeError,
    call::Call,
    replica::{aliases, asked_for, identity, is_without_members},
    wire::Connection,
};
use bollard::errors::Error;
use serde_json::{Map, Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// A network that a container must join anew.
#[derive(Debug, PartialEq)]
struct Rejoin {
    network: String,
    is_member: bool,
    endpoint: Value,
}

/// See [`super::ContainerRuntime::take_aliases`]. May be repeated after it broke off: then it joins what was left.
pub(super) async fn take_aliases(
    engine: &Connection,
    container: &Value,
    from: &Value,
    name: &str,
) -> Result<(), RuntimeError> {
    let id = container["Id"].as_str().unwrap_or_default();
    for rejoin in rejoins(container, from, name) {
        let call = Call::of(id, "join a network under other names", LIMIT);
        call.run(join_anew(engine, id, &rejoin)).await?;
    }
    Ok(())
}

async fn join_anew(engine: &Connection, id: &str, rejoin: &Rejoin) -> Result<(), Error> {
    if rejoin.is_member {
        leave(engine, id, &rejoin.network).await?;
    }
    join(engine, id, &rejoin.network, &rejoin.endpoint).await
}

pub(super) async fn leave(engine: &Connection, id: &str, network: &str) -> Result<(), Error> {
    engine.post(&format!("/networks/{network}/disconnect"), &json!({"Container": id})).await.map(drop)
}

pub(super) async fn join(engine: &Connection, id: &str, network: &str, endpoint: &Value) -> Result<(), Error> {
    let body = json!({"Container": id, "EndpointConfig": endpoint});
    engine.post(&format!("/networks/{network}/connect"), &body).await.map(drop)
}

fn rejoins(container: &Value, from: &Value, name: &str) -> Vec<Rejoin> {
    let mode = |container: &Value| container["HostConfig"]["NetworkMode"].as_str().unwrap_or_default().to_owned();
    if is_without_members(&mode(from)) || is_without_members(&mode(container)) {
        return Vec::new();
    }
    let joined = networks(container);
    let rejoins = networks(from).into_iter().filter(|(network, _)| has_names(network)).filter_map(|(network, of)| {
        let now = joined.get(&network);
        let mut names = now.map(|endpoint| aliases(container, endpoint)).unwrap_or_default();
        let had = names.len();
        for alias in aliases(from, &of).into_iter().chain([name.to_owned()]) {
            if !names.contains(&alias) {
                names.push(alias);
            }
        }
        let endpoint = asked_for(container, &network, now.unwrap_or(&of), names.clone());
        (names.len() > had).then(|| Rejoin { network: identity(&network, &of), is_member: now.is_some(), endpoint })
    });
    rejoins.collect()
}

/// The engine's own have no names, and refuse aliases.
fn has_names(network: &str) -> bool {
    !matches!(network, "bridge" | "host" | "none")
}

fn networks(container: &Value) -> Map<String, Value> {
    container["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default()
}
