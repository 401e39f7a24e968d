//! What `docker dso doctor` is told by the plugin: its own state, that of its providers, and that of every volume.

use super::{Driver, State, Status};
use crate::{
    findings::{Finding, Level},
    memory,
    provider::{Observed, Provider, Registry},
    secret::SecretId,
};
use futures_util::{StreamExt, future::join_all, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// A provider's calls end by themselves; this holds if many of them are slow.
const PROVIDER: Duration = Duration::from_secs(20);
/// Secrets of one provider that are asked for, and how many at a time.
const PROBES: usize = 50;
const AT_A_TIME: usize = 4;
/// The loop that has not turned for so long stands still: it turns every ten seconds at least.
pub const STILL: Duration = Duration::from_secs(60);

/// Which volumes use a secret.
type Uses = BTreeMap<Arc<SecretId>, BTreeSet<String>>;

impl Driver {
    /// Looks at everything, and asks each provider for the version of each secret in use. Nothing is changed, and no value read.
    pub async fn examine(&self) -> Vec<Finding> {
        let registry = self.parts.cache.registry();
        let mut findings = process();
        findings.push(self.kernel());
        findings.extend(self.engine());
        findings.extend(self.settings(&registry));
        let uses = self.uses();
        let mut instances = Vec::new();
        for (name, provider) in registry.iter() {
            let mine = uses.iter().filter(|(id, _)| id.provider() == name && provider.validate(id).is_ok());
            let mine: Vec<_> = mine.map(|(id, volumes)| (id.clone(), listed(volumes))).collect();
            if mine.is_empty() && registry.is_unasked(name) {
                // Azure's is on every host, and most are no machine of Azure's.
                continue;
            }
            instances.push(examine_provider(name.clone(), provider.clone(), mine));
        }
        findings.extend(join_all(instances).await.into_iter().flatten());
        for (id, volumes) in &uses {
            if let Err(fault) = registry.validate(id) {
                let volumes = listed(volumes);
                let advice = format!("mend /etc/dso/dso.toml, or the options of {volumes}");
                findings.push(Finding::error("reference", id.to_string(), format!("{volumes}: {fault}"), advice));
            }
        }
        findings.extend(self.volumes_found());
        findings.extend(self.ledger());
        findings
    }

    fn kernel(&self) -> Finding {
        match self.parts.mounter.memory() {
            "tmpfs" => Finding::ok("kernel", "tmpfs", "volumes are kept out of swap (noswap)"),
            other => Finding::warning(
                "kernel",
                other,
                "the kernel's tmpfs has no `noswap`: volumes are of ramfs, whose size dso alone bounds",
                "use Linux 6.4 or newer",
            ),
        }
    }

    fn engine(&self) -> Vec<Finding> {
        let told = super::lock(&self.engine_tells).clone();
        let is_stuck = told.is_some() && self.since_turn().is_none_or(|turn| turn >= STILL);
        let stuck = Finding::error(
            "engine",
            "events",
            "the loop that follows the engine stands still",
            "look at the engine's log for what dso says, and restart the plugin",
        );
        let heard = match told {
            // What it said last is of no worth.
            Some(Ok(())) if is_stuck => return vec![stuck],
            Some(Ok(())) => Finding::ok("engine", "events", "the engine answers, and its events are followed"),
            None => Finding::warning("engine", "events", "the engine was not heard yet", "ask again in a few seconds"),
            Some(Err(why)) => Finding::error(
                "engine",
                "events",
                format!("the plugin cannot follow the engine: {why}; containers are not told of changes"),
                "set the plugin's `engine.source` to the folder of the engine's socket (`docker plugin set`), and see that the engine runs",
            ),
        };
        is_stuck.then_some(stuck).into_iter().chain([heard]).collect()
    }

    fn settings(&self, registry: &Registry) -> Vec<Finding> {
        let (file, mend) = ("/etc/dso/dso.toml", "mend the file: the plugin reads it again by itself");
        let broken = registry.broken().map(|(name, faults)| {
            Finding::error("settings", format!("provider {name}"), format!("left out: {faults}"), mend)
        });
        let mut findings: Vec<_> = broken.collect();
        let fault = registry.refused().or_else(|| registry.fault().map(str::to_owned));
        match fault {
            Some(fault) => findings.push(Finding::error("settings", file, format!("not in use: {fault}"), mend)),
            None if findings.is_empty() => findings.push(Finding::ok("settings", file, "in use as it is")),
            None => {}
        }
        findings
    }

    fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        let volumes: Vec<_> = super::lock(&self.volumes).values().cloned().collect();
        for volume in volumes {
            for id in volume.secrets() {
                uses.entry(id).or_default().insert(volume.name.to_string());
            }
        }
        uses
    }

    fn volumes_found(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let names = self.names();
        for name in &names {
            if let Ok(inspected) = self.inspect(name.as_str()) {
                findings.extend(volume(name.as_str(), &inspected.status));
            }
        }
        if findings.is_empty() {
            findings.push(Finding::ok(
                "volume",
                "all",
                format!("{} volumes, and nothing is wrong with them", names.len()),
            ));
        }
        findings
    }

    /// Mounts that are there, against those that are counted.
    fn ledger(&self) -> Vec<Finding> {
        let shared = match self.parts.mounter.shared() {
            Ok(shared) => shared,
            Err(error) => {
                let advice = "look at the engine's log for what dso says";
                return vec![Finding::error("ledger", "mounts", format!("cannot be listed: {error}"), advice)];
            }
        };
        let mut findings = Vec::new();
        let known: BTreeSet<String> = self.names().iter().map(ToString::to_string).collect();
        for name in shared.iter().filter(|name| !known.contains(*name)) {
            let advice = "restart the plugin while no container uses it (`docker plugin disable`, `enable`)";
            findings.push(Finding::warning(
                "ledger",
                name,
                "something is mounted for a volume that does not exist",
                advice,
            ));
        }
        for name in known.iter().filter(|name| !shared.contains(name)) {
            let counted = self.inspect(name).map_or(0, |inspected| inspected.status.mounts);
            if counted > 0 {
                let message = format!("is counted as mounted {counted} times, and has no mount");
                let advice = "restart the containers that use it: `docker dso inspect` names them";
                findings.push(Finding::error("ledger", name, message, advice));
            }
        }
        if findings.is_empty() {
            findings.push(Finding::ok("ledger", "mounts", format!("{} mounts, as counted", shared.len())));
        }
        findings
    }
}

fn process() -> Vec<Finding> {
    let (missing, gaps) = (memory::missing_capabilities(), memory::gaps());
    let granted = "install the plugin again, and grant what it asks for";
    let privileges = match missing.is_empty() {
        true => Finding::ok("privileges", "capabilities", "all that it needs"),
        false => {
            Finding::error("privileges", "capabilities", format!("it has not got {}", missing.join(", ")), granted)
        }
    };
    let memory = match gaps.is_empty() {
        true => Finding::ok("memory", "process", "locked, and closed to other processes and dumps"),
        false => Finding::warning("memory", "process", gaps.join("; "), granted),
    };
    vec![privileges, memory]
}

/// `mine` are the secrets of this provider that volumes use.
async fn examine_provider(
    name: String,
    provider: Arc<dyn Provider>,
    mut mine: Vec<(Arc<SecretId>, String)>,
) -> Vec<Finding> {
    let subject = format!("provider {name}");
    let left_out = mine.len().saturating_sub(PROBES);
    mine.truncate(PROBES);
    let mut findings = Vec::new();
    let work = async {
        findings = provider.examine().await;
        findings.iter_mut().for_each(|finding| finding.subject.clone_from(&subject));
        // Where it does not answer at all, each secret would say the same again.
        let gone = |finding: &Finding| finding.level == Level::Error && finding.check != "policy";
        if !findings.iter().any(gone) {
            let probes = mine.into_iter().map(|(id, volumes)| probe(provider.clone(), id, volumes));
            let mut probes = stream::iter(probes).buffer_unordered(AT_A_TIME);
            while let Some(finding) = probes.next().await {
                findings.push(finding);
            }
        }
    };
    // What was found by then is told.
    let is_late = timeout(PROVIDER, work).await.is_err();
    // What is of the provider itself stays first.
    findings.sort_by_key(|finding| (finding.check == "policy").then(|| finding.subject.clone()));
    if is_late {
        let message = format!("no answer within {} s to all that was asked", PROVIDER.as_secs());
        findings.push(Finding::error("provider", &subject, message, "see whether the server is slow or out of reach"));
    }
    if left_out > 0 {
        let message = format!("{left_out} more of its secrets were not asked for: {PROBES} are the most");
        findings.push(Finding::warning("policy", &subject, message, "`docker dso ls` shows what their volumes lack"));
    }
    findings
}

/// Whether the version of a secret may be asked for.
async fn probe(provider: Arc<dyn Provider>, id: Arc<SecretId>, volumes: String) -> Finding {
    let subject = id.to_string();
    match provider.versions(std::slice::from_ref(&id)).await.into_iter().next() {
        Some(Ok(Observed::Version(version))) => Finding::ok("policy", subject, format!("version {}", version.label())),
        Some(Ok(Observed::Unversioned)) => Finding::warning(
            "policy",
            subject,
            "its version is not told: the policy lets nobody ask for it, or there are none; the value is read at each check",
            "let the policy read the metadata too (docs/providers.md: What the policy needs), if the engine has versions",
        ),
        Some(Err(error)) => {
            let message = format!("{error} (used by {volumes})");
            Finding::error("policy", subject, message, error.kind().advice())
        }
        None => Finding::error("policy", subject, "the provider gave no answer", "tell the authors of dso"),
    }
}

fn volume(name: &str, status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    let error = status.error.clone().unwrap_or_default();
    let inspect = format!("`docker dso inspect {name}` tells more");
    match status.state {
        State::Failed => {
            findings.push(Finding::error("volume", name, format!("the last mount failed: {error}"), inspect))
        }
        State::Stale => findings.push(Finding::warning("volume", name, format!("stale: {error}"), inspect)),
        State::Orphaned => {
            let advice = "restart the containers that use it";
            findings.push(Finding::error("orphan", name, error, advice));
        }
        State::Idle | State::Current => {}
    }
    for user in &status.containers {
        if let Some(fault) = &user.fault {
            let message = format!("container {}: {fault}", user.name);
            findings.push(Finding::error(
                "label",
                name,
                message,
                "mend the label and make the container anew: nothing is done to it after a change",
            ));
        }
    }
    let refused = status
        .last_rotation
        .as_ref()
        .filter(|outcome| outcome.result != "verified" && outcome.result != "published" && outcome.reason.is_some());
    if let Some(outcome) = refused {
        let message =
            format!("the last change was {}: {}", outcome.result, outcome.reason.as_deref().unwrap_or_default());
        let advice = format!("mend the secret or the container, then `docker dso refresh --force {name}`");
        findings.push(Finding::warning("rotation", name, message, advice));
    }
    findings
}

fn listed(volumes: &BTreeSet<String>) -> String {
    let names: Vec<_> = volumes.iter().map(|name| format!("`{name}`")).collect();
    format!("volume{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
