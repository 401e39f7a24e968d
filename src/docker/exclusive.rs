//! Why a second container like one cannot live beside it.
//!
//! In doubt it cannot: then the old one is stopped before the new one starts, which costs a moment. To be wrong the other way could cost
//! data: two processes on one data directory.

use super::inspected::{Inspected, Mount};

/// The first reason, in words that complete "a second one cannot live beside it:". `is_ours` says whether a volume is
/// of a driver that shows the same files to all, and lets no container write.
pub(super) fn reason(container: &Inspected, is_ours: impl Fn(&Mount) -> bool) -> Option<String> {
    ports(container)
        .or_else(|| network(container))
        .or_else(|| address(container))
        .or_else(|| container.mounts.iter().flatten().find_map(|mount| shared_state(mount, &is_ours)))
}

/// With a port that the engine picks, each gets its own. Of a range it picks too, but it may be used up.
fn ports(container: &Inspected) -> Option<String> {
    let bindings = container.host_config.port_bindings.iter().flatten();
    let mut fixed = bindings.flat_map(|(port, bindings)| {
        let protocol = port.split_once('/').map_or("tcp", |(_, protocol)| protocol);
        bindings.iter().flatten().map(move |binding| (binding.host_port.as_str(), protocol))
    });
    let (port, protocol) = fixed.find(|(port, _)| !matches!(*port, "" | "0"))?;
    Some(format!("it publishes port {port}/{protocol} of the host"))
}

fn network(container: &Inspected) -> Option<String> {
    match container.host_config.network_mode.as_str() {
        "host" => Some("it is on the host's network".into()),
        mode if mode.starts_with("container:") => Some("it is on the network of another container".into()),
        _ => None,
    }
}

fn address(container: &Inspected) -> Option<String> {
    if container.config.mac_address.as_deref().is_some_and(|address| !address.is_empty()) {
        return Some("it has a fixed MAC address".into());
    }
    let networks = container.network_settings.networks.iter().flatten();
    networks.into_iter().find_map(|(network, endpoint)| {
        let ipam = endpoint.ipam.as_ref();
        let mut addresses = ipam.into_iter().flat_map(|ipam| [&ipam.ipv4, &ipam.ipv6]);
        if let Some(address) = addresses.find(|address| !address.is_empty()) {
            return Some(format!("it has the fixed address {address} on network `{network}`"));
        }
        let hostname = container.own_hostname()?;
        let mut names = endpoint.dns_names.iter().chain(&endpoint.aliases).flatten();
        let is_a_name = names.any(|name| name == hostname);
        // Which cannot be withheld from a second one until that is healthy.
        is_a_name.then(|| format!("network `{network}` knows it by its host name `{hostname}`"))
    })
}

fn shared_state(mount: &Mount, is_ours: impl Fn(&Mount) -> bool) -> Option<String> {
    let Mount { kind, name, source, destination, .. } = mount;
    if !mount.writable {
        return None;
    }
    match kind.as_str() {
        "tmpfs" | "image" => None,
        "bind" if is_socket(source) => None,
        "volume" if is_ours(mount) => None,
        "bind" => Some(format!("it may write to `{source}` of the host")),
        "volume" => Some(format!("it may write to the volume `{name}` at `{destination}`")),
        _ => Some(format!("it may write to what is mounted at `{destination}`")),
    }
}

/// By its name: the host's files cannot be looked at from in the plugin.
fn is_socket(source: &str) -> bool {
    source.ends_with(".sock") || source.ends_with(".socket") || source == "/dev/log"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    fn with(host_config: Value, network: Value, mounts: Value) -> Option<String> {
        let value = json!({
            "Id": "0123456789abcdef", "Name": "/app", "State": {"Status": "running"}, "Config": {"Hostname": "web"},
            "HostConfig": host_config, "Mounts": mounts, "NetworkSettings": {"Networks": {"net": network}},
        });
        reason(&Inspected::deserialize(&value).unwrap(), |mount| mount.driver == "dso:latest")
    }

    #[test]
    fn fixed_ports_foreign_networks_and_fixed_addresses_are_exclusive() {
        let host = |host| with(host, json!({}), json!([]));
        let port =
            |text: &str| host(json!({"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": text}], "53/udp": null}}));
        assert_eq!(port("8080").as_deref(), Some("it publishes port 8080/tcp of the host"));
        assert_eq!((port(""), port("0")), (None, None));
        assert_eq!(host(json!({"NetworkMode": "host"})).as_deref(), Some("it is on the host's network"));
        let shared = host(json!({"NetworkMode": "container:abc"}));
        assert_eq!(shared.as_deref(), Some("it is on the network of another container"));
        assert_eq!(host(json!({"NetworkMode": "net"})), None);

        let network = |network| with(json!({}), network, json!([]));
        let fixed = network(json!({"IPAMConfig": {"IPv4Address": "10.0.0.5"}}));
        assert_eq!(fixed.as_deref(), Some("it has the fixed address 10.0.0.5 on network `net`"));
        assert!(network(json!({"IPAMConfig": {"IPv6Address": "fd00::5"}})).is_some());
        assert_eq!(network(json!({"IPAMConfig": {}, "IPAddress": "10.0.0.5"})), None);
        assert!(network(json!({"DNSNames": ["app", "web"]})).is_some());
        assert!(network(json!({"Aliases": ["0123456789ab", "web"]})).is_some());
        assert_eq!(network(json!({"DNSNames": ["app", "0123456789ab"]})), None);
    }

    #[test]
    fn whatever_two_could_write_to_is_exclusive_but_for_sockets_and_our_own_volumes() {
        let mount = |kind: &str, driver: &str, source: &str, writable: bool| {
            let mount = json!({"Type": kind, "Name": "data", "Driver": driver, "Source": source, "Destination": "/data", "RW": writable});
            with(json!({}), json!({}), json!([mount]))
        };
        assert_eq!(mount("volume", "local", "", true).as_deref(), Some("it may write to the volume `data` at `/data`"));
        assert_eq!(mount("bind", "", "/srv", true).as_deref(), Some("it may write to `/srv` of the host"));
        assert!(mount("cluster", "csi", "", true).is_some(), "what is not known");
        assert_eq!(mount("volume", "local", "", false), None);
        assert_eq!(mount("bind", "", "/srv", false), None);
        assert_eq!(mount("bind", "", "/run/docker.sock", true), None);
        assert_eq!(mount("volume", "dso:latest", "", true), None);
        assert_eq!(mount("tmpfs", "", "", true), None);
    }
}
