//! What the engine tells of containers, as far as it is of use: the rest, a health check's output among it, is not even read.
//!
//! Words such as a state or a type are strings here, so that a word of a newer engine fails nothing.

use super::{Container, Health, HealthCheck, HealthStatus, State, VolumeMount};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

/// A line of the list of containers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
    host_config: Option<ListedHostConfig>,
    mounts: Option<Vec<Mount>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedHostConfig {
    network_mode: Option<String>,
}

/// One container in full.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    restart_count: i64,
    state: InspectedState,
    pub(super) config: Config,
    pub(super) host_config: HostConfig,
    pub(super) mounts: Option<Vec<Mount>>,
    pub(super) network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    status: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    exit_code: i64,
    error: Option<String>,
    started_at: Option<String>,
    health: Option<InspectedHealth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedHealth {
    status: Option<String>,
    log: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    start: String,
    exit_code: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Config {
    pub(super) hostname: Option<String>,
    /// Only what a person set; of engines before 25.
    pub(super) mac_address: Option<String>,
    pub(super) stop_timeout: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    healthcheck: Option<HealthcheckConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthcheckConfig {
    test: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig {
    #[serde(default)]
    pub(super) network_mode: String,
    pub(super) port_bindings: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
    restart_policy: Option<RestartPolicy>,
    #[serde(default)]
    auto_remove: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PortBinding {
    #[serde(default)]
    pub(super) host_port: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Mount {
    #[serde(rename = "Type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) source: String,
    #[serde(default)]
    pub(super) destination: String,
    #[serde(default)]
    pub(super) driver: String,
    #[serde(rename = "RW", default)]
    pub(super) writable: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    pub(super) networks: Option<BTreeMap<String, Endpoint>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    pub(super) ipam: Option<Ipam>,
    /// What it answers to; before 25 with what the engine adds, and since then all of that is in the next.
    pub(super) aliases: Option<Vec<String>>,
    #[serde(rename = "DNSNames")]
    pub(super) dns_names: Option<Vec<String>>,
}

/// Addresses that a person asked for.
#[derive(Deserialize)]
pub(super) struct Ipam {
    #[serde(rename = "IPv4Address", default)]
    pub(super) ipv4: String,
    #[serde(rename = "IPv6Address", default)]
    pub(super) ipv6: String,
}

// === impl Listed ===

impl Listed {
    pub(super) fn mounts_any(&self, mut is_wanted: impl FnMut(&str) -> bool) -> bool {
        volumes(self.mounts.as_deref()).any(|mount| is_wanted(&mount.name))
    }

    /// The drivers of the volumes that are wanted.
    pub(super) fn drivers(&self, is_wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
        volumes(self.mounts.as_deref()).filter(move |mount| is_wanted(&mount.name)).map(|mount| mount.driver.as_str())
    }

    /// Whether it lives in the network namespace of that container, which it may name by ID, by the beginning of it, or by name.
    pub(super) fn depends_on(&self, id: &str, name: &str) -> bool {
        let mode = self.host_config.as_ref().and_then(|host| host.network_mode.as_deref()).unwrap_or_default();
        mode.strip_prefix("container:")
            .is_some_and(|of| of.trim_start_matches('/') == name || of.len() >= SHORT_ID && id.starts_with(of))
    }
}

// === impl Inspected ===

/// How many characters of an ID the engine shows, and uses where it makes a name of one.
pub(super) const SHORT_ID: usize = 12;

/// What the engine waits before it kills, unless the container says otherwise.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// `--stop-timeout=-1` waits for ever. We do not.
const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 60);

impl Inspected {
    pub(super) fn volumes(&self) -> impl Iterator<Item = &Mount> {
        volumes(self.mounts.as_deref())
    }

    /// How long it may take to stop when asked to.
    pub(super) fn stop_timeout(&self) -> Duration {
        match self.config.stop_timeout {
            None => STOP_TIMEOUT,
            Some(seconds) => u64::try_from(seconds).map_or(STOP_TIMEOUT_MAX, Duration::from_secs).min(STOP_TIMEOUT_MAX),
        }
    }

    /// The host name that a person gave it: without one, the engine takes the short ID.
    pub(super) fn own_hostname(&self) -> Option<&str> {
        let name = self.config.hostname.as_deref().filter(|name| !name.is_empty())?;
        (self.id.get(..SHORT_ID) != Some(name)).then_some(name)
    }

    pub(super) fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    pub(super) fn into_container(self, exclusive: Option<String>, dependents: Vec<String>) -> Container {
        let health = self.health();
        let mounts = self
            .volumes()
            .map(|mount| VolumeMount { volume: mount.name.clone(), destination: mount.destination.clone() });
        let policy = self.host_config.restart_policy.as_ref().map_or("", |policy| policy.name.as_str());
        Container {
            mounts: mounts.collect(),
            name: self.name().to_owned(),
            image: self.image,
            state: state(&self.state.status),
            health,
            started: self.state.started_at.as_deref().and_then(time).map(by_our_clock),
            restarts: u64::try_from(self.restart_count).unwrap_or(0),
            exit_code: self.state.exit_code,
            restarted_by_engine: !matches!(policy, "" | "no"),
            auto_remove: self.host_config.auto_remove,
            pid: self.state.pid,
            exclusive,
            dependents,
            id: self.id,
            labels: self.config.labels.unwrap_or_default(),
            error: self.state.error.unwrap_or_default(),
        }
    }

    /// The engine shows no health before the first start, and `none` where there is no check.
    fn health(&self) -> Option<Health> {
        let test = self.config.healthcheck.as_ref().and_then(|check| check.test.as_deref()).unwrap_or_default();
        let shown = self.state.health.as_ref();
        let status = shown.and_then(|health| health.status.as_deref()).unwrap_or_default();
        let is_checked = !matches!(test.first().map(String::as_str), None | Some("NONE" | ""));
        let status = match status {
            "healthy" => HealthStatus::Healthy,
            "unhealthy" => HealthStatus::Unhealthy,
            "starting" => HealthStatus::Starting,
            _ if is_checked => HealthStatus::Starting,
            _ => return None,
        };
        let log = shown.and_then(|health| health.log.as_deref()).unwrap_or_default();
        let checks = log.iter().filter_map(|check| {
            let began = by_our_clock(time(&check.start)?);
            Some(HealthCheck { began, passed: check.exit_code == 0 })
        });
        Some(Health { status, checks: checks.collect() })
    }
}

/// A container's whole description with the part that is of use taken out of it.
pub(super) fn read(body: &[u8]) -> Result<(Inspected, Value), serde_json::Error> {
    let whole: Value = serde_json::from_slice(body)?;
    Ok((Inspected::deserialize(&whole)?, whole))
}

fn volumes(mounts: Option<&[Mount]>) -> impl Iterator<Item = &Mount> {
    mounts.unwrap_or_default().iter().filter(|mount| mount.kind == "volume")
}

/// A state that is not known is one that dso leaves alone.
fn state(word: &str) -> State {
    match word {
        "created" => State::Created,
        "running" => State::Running,
        "paused" => State::Paused,
        "restarting" => State::Restarting,
        "removing" => State::Removing,
        "exited" => State::Exited,
        _ => State::Dead,
    }
}

/// What is yet to come was noted before the clock was set back, and came before all that is now: a process that seemed to begin
/// later than the files change would never be told of them, and a check of then would speak for them.
fn by_our_clock(time: SystemTime) -> SystemTime {
    const BLUR: Duration = Duration::from_secs(1);
    if time > SystemTime::now() + BLUR { SystemTime::UNIX_EPOCH } else { time }
}

/// RFC 3339. The engine writes health checks in its own time zone, and the year 1 for never.
fn time(text: &str) -> Option<SystemTime> {
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Some(time);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let offset_by = Duration::from_secs(hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    match offset.as_bytes()[0] {
        b'+' => local.checked_sub(offset_by),
        b'-' => local.checked_add(offset_by),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn inspected(state: Value, config: Value) -> Container {
        let value = json!({
            "Id": "0123456789abcdef", "Name": "/app", "Image": "sha256:1", "RestartCount": 2, "State": state, "Config": config,
            "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": "always"}},
            "Mounts": [
                {"Type": "volume", "Name": "secrets", "Destination": "/run/secrets", "Driver": "dso:latest", "RW": true},
                {"Type": "bind", "Source": "/etc", "Destination": "/etc", "RW": false},
            ],
            "NetworkSettings": {"Networks": null},
        });
        Inspected::deserialize(&value).unwrap().into_container(None, Vec::new())
    }

    #[test]
    fn a_times_zone_is_heeded_and_the_year_1_is_never() {
        let at = |text| time(text).map(|time| humantime::format_rfc3339_nanos(time).to_string());
        assert_eq!(at("2026-03-01T12:00:00.5Z").as_deref(), Some("2026-03-01T12:00:00.500000000Z"));
        assert_eq!(at("2026-03-01T01:00:00.5+02:30").as_deref(), Some("2026-02-28T22:30:00.500000000Z"));
        assert_eq!(at("2026-03-01T23:00:00-01:00").as_deref(), Some("2026-03-02T00:00:00.000000000Z"));
        assert_eq!((at("0001-01-01T00:00:00Z"), at(""), at("soon")), (None, None, None));
    }

    #[test]
    fn what_was_noted_before_the_clock_was_set_back_came_before_all_that_is_now() {
        let now = SystemTime::now();
        let [past, later] = [now - Duration::from_secs(60), now + Duration::from_secs(60)];
        for (at, seen) in [(past, past), (later, SystemTime::UNIX_EPOCH)] {
            let text = humantime::format_rfc3339_nanos(at).to_string();
            let check = json!({"Start": text, "End": text, "ExitCode": 0});
            let state =
                json!({"Status": "running", "StartedAt": text, "Health": {"Status": "healthy", "Log": [check]}});
            let container = inspected(state, json!({}));
            assert_eq!(container.started, Some(seen));
            assert_eq!(container.health.unwrap().checks, [HealthCheck { began: seen, passed: true }]);
        }
    }

    #[test]
    fn a_container_with_a_check_that_never_ran_is_starting_and_one_without_has_no_health() {
        let state = json!({"Status": "created"});
        let health = |config| inspected(state.clone(), config).health;
        let starting = Some(Health { status: HealthStatus::Starting, checks: Vec::new() });
        assert_eq!(health(json!({"Healthcheck": {"Test": ["CMD", "true"]}})), starting);
        assert_eq!(health(json!({"Healthcheck": {"Test": ["NONE"]}})), None);
        assert_eq!(health(json!({})), None);
    }

    #[test]
    fn what_a_check_printed_is_not_kept_and_a_word_of_a_newer_engine_fails_nothing() {
        let container = inspected(
            json!({"Status": "suspended", "StartedAt": "0001-01-01T00:00:00Z", "Health": {"Status": "unhealthy", "Log": [
                {"Start": "2026-03-01T12:00:00Z", "End": "2026-03-01T12:00:01Z", "ExitCode": 0, "Output": "hunter2"},
                {"Start": "2026-03-01T12:00:02Z", "End": "2026-03-01T12:00:03Z", "ExitCode": 1, "Output": "hunter2"},
            ]}}),
            json!({}),
        );
        assert_eq!((container.state, container.started, container.image.as_str()), (State::Dead, None, "sha256:1"));
        let health = container.health.as_ref().unwrap();
        assert_eq!(health.status, HealthStatus::Unhealthy);
        assert_eq!(health.checks.iter().map(|check| check.passed).collect::<Vec<_>>(), [true, false]);
        assert!(!format!("{container:?}").contains("hunter2"));
        let mount = VolumeMount { volume: "secrets".into(), destination: "/run/secrets".into() };
        assert_eq!((container.mounts, container.restarted_by_engine, container.restarts), (vec![mount], true, 2));
    }

    #[test]
    fn a_container_in_anothers_network_namespace_depends_on_it_however_it_names_it() {
        let id = "0123456789abcdef0123";
        let depends = |mode: &str| {
            let listed = json!({"Id": "x", "HostConfig": {"NetworkMode": mode}});
            Listed::deserialize(&listed).unwrap().depends_on(id, "app")
        };
        assert!(depends("container:0123456789abcdef0123") && depends("container:0123456789ab"));
        assert!(depends("container:app") && depends("container:/app"));
        assert!(!depends("container:application") && !depends("app") && !depends("container:") && !depends("host"));
    }
}
