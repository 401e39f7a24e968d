//! Keeps the services of a Swarm in step with their secrets, on the manager that leads it.
//!
//! # Guarantees
//! - What is left to do is found anew from what Swarm says: a process that dies at any step, here or on another manager, is
//!   followed by one that goes on. Swarm's own lock sees to it that two never make the same change.
//! - Swarm replaces the tasks, as the service's `update_config` says, and rolls back by itself. What it has rolled back is not
//!   tried again before there is a newer version, or a person says so.
//! - One update of a service at a time, and none beyond its budget.
//! - Nothing but names of versions is written into Swarm.

mod plan;
#[cfg(test)]
mod tests;

use super::{budget, policy::Policy};
use crate::{
    docker::{Role, RuntimeError, Service, Swarm, SwarmSecret, SwarmView, Written},
    driver::{Driver, Followed},
    secret::SecretId,
    volume::{
        ServiceSecret, Versions,
        service::{VERSIONS, service_rotates},
    },
};
use plan::{Relabel, Verdict, plan};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// How often a node is asked whether it is in a Swarm by now.
const ALONE: Duration = Duration::from_secs(60);
/// How soon Swarm is looked at again while it is at work, or after a look that failed.
const SOON: Duration = Duration::from_secs(2);

/// The services of a Swarm.
pub(super) struct Services {
    driver: Arc<Driver>,
    swarm: Arc<dyn Swarm>,
    /// What holds now: `[rotation]` may change.
    policy: Box<dyn Fn() -> Arc<Policy> + Send + Sync>,
    state: Mutex<State>,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// By the service's ID: when its tasks were replaced.
    rotated: HashMap<String, Vec<SystemTime>>,
    /// By the service's or secret's ID: what was said last, so that it is said once.
    told: HashMap<String, String>,
    /// Whether this node led the Swarm when it was looked at last.
    leads: bool,
    /// Why the Swarm could not be looked at, as it was said last.
    fault: Option<String>,
    /// Providers that have word of a change.
    hurried: BTreeSet<String>,
}

/// A view of the Swarm with what its labels mean.
struct Seen {
    view: SwarmView,
    /// By the Swarm secret's ID.
    secrets: HashMap<String, ServiceSecret>,
    newest: Versions,
}

// === impl Services ===

impl Services {
    pub fn new(
        driver: Arc<Driver>,
        swarm: Arc<dyn Swarm>,
        policy: impl Fn() -> Arc<Policy> + Send + Sync + 'static,
    ) -> Self {
        Self { driver, swarm, policy: Box::new(policy), state: Mutex::default(), clock: Box::new(SystemTime::now) }
    }

    /// A provider has word of a change: the next look asks it, whatever was confirmed before.
    pub fn hurry(&self, provider: &str) {
        self.state().hurried.insert(provider.to_owned());
    }

    /// Whether this node led the Swarm when it was looked at last.
    pub fn is_leading(&self) -> bool {
        self.state().leads
    }

    /// Takes what steps there are to take, and says when to look again; `None` for never.
    pub async fn reconcile(&self) -> Option<Duration> {
        let interval = self.driver.services_interval()?;
        let next = match self.swarm.role().await {
            Ok(Role::Leader(view)) => self.lead(view, interval).await,
            Ok(role) => {
                self.driver.follow(Followed::default());
                *self.state() = State::default();
                Ok(if role == Role::Alone { interval.max(ALONE) } else { interval })
            }
            Err(error) => Err(error),
        };
        let fault = next.as_ref().err().map(ToString::to_string);
        let before = std::mem::replace(&mut self.state().fault, fault.clone());
        if let Some(fault) = fault.filter(|fault| before.as_ref() != Some(fault)) {
            tracing::warn!(error = fault, "the Swarm cannot be looked at: its services wait until it can");
        }
        Some(next.unwrap_or_else(|_| SOON.max(interval.min(ALONE))))
    }

    async fn lead(&self, view: SwarmView, interval: Duration) -> Result<Duration, RuntimeError> {
        self.begin(&view);
        let seen = self.look(view).await;
        let (mut again, mut unsettled) = (interval, BTreeSet::new());
        for service in &seen.view.services {
            let verdict = self.verdict(&seen, service);
            let is_settled = verdict == Verdict::Current;
            match self.act(&seen, service, verdict).await {
                Ok(soon) => again = again.min(soon.unwrap_or(interval)),
                // What is wrong with this one is not wrong with the others.
                Err(error @ RuntimeError::Refused { .. }) => self.tell(&service.id, &error.to_string(), || {
                    tracing::error!(
                        service = service.name,
                        %error,
                        "Swarm does not let it be updated, and its tasks keep their secrets: mend what Swarm says, or take the \
                         service out of rotation with its label `dso.on-rotate=none`"
                    );
                }),
                Err(error) => return Err(error),
            }
            if !is_settled {
                unsettled.extend(service.secrets.iter().cloned());
            }
        }
        if self.note_all_versions(&seen, &unsettled).await? == Written::Outdated {
            again = again.min(SOON);
        }
        Ok(again)
    }

    /// What is remembered of services and secrets that are gone is forgotten.
    fn begin(&self, view: &SwarmView) {
        let services: BTreeSet<_> = view.services.iter().map(|service| &service.id).collect();
        let secrets: BTreeSet<_> = view.secrets.iter().map(|secret| &secret.id).collect();
        let mut state = self.state();
        state.leads = true;
        state.rotated.retain(|id, _| services.contains(id));
        state.told.retain(|id, _| services.contains(id) || secrets.contains(id));
        drop(state);
        self.driver.forget_services(&view.services.iter().map(|service| service.name.as_str()).collect());
    }

    /// Reads labels, and asks providers for what is newest.
    async fn look(&self, view: SwarmView) -> Seen {
        let used: BTreeSet<_> = view.services.iter().flat_map(|service| &service.secrets).collect();
        let mut secrets = HashMap::new();
        for secret in view.secrets.iter().filter(|secret| used.contains(&secret.id)) {
            let parsed = ServiceSecret::parse(&secret.labels).map_err(|faults| faults.to_string());
            match parsed.and_then(|spec| self.driver.validate_service_secret(&spec).map(|()| spec)) {
                Ok(spec) => drop(secrets.insert(secret.id.clone(), spec)),
                // A secret of another driver has no label of ours.
                Err(fault) if secret.labels.keys().any(|name| name.starts_with("dso.")) => {
                    self.tell(&secret.id, &fault, || {
                        tracing::error!(secret = secret.name, fault, "no service can have this secret");
                    })
                }
                Err(_) => {}
            }
        }
        let mut followed = Followed::default();
        for spec in secrets.values() {
            for id in spec.secrets().into_iter().filter(|id| !is_pinned(id)) {
                let longest = followed.secrets.entry(id).or_insert(spec.max_stale);
                *longest = spec.max_stale.max(*longest);
            }
        }
        for service in &view.services {
            for versions in [Versions::of(&service.labels, VERSIONS), self.driver.versions_served(&service.name)] {
                followed.versions.extend(versions.0);
            }
        }
        let ids = followed.secrets.keys().cloned().collect();
        self.driver.follow(followed);
        let hurried = std::mem::take(&mut self.state().hurried);
        let newest = self.driver.newest(&ids, &hurried).await;
        Seen { view, secrets, newest }
    }

    fn verdict(&self, seen: &Seen, service: &Service) -> Verdict {
        match service_rotates(&service.labels) {
            Ok(true) => {}
            Ok(false) => return Verdict::Current,
            Err(fault) => {
                self.tell(&service.id, &fault, || {
                    tracing::error!(service = service.name, fault, "a label is faulty: the service is left alone");
                });
                return Verdict::Current;
            }
        }
        let ids = seen.ids(service);
        if ids.is_empty() {
            return Verdict::Current;
        }
        plan(service, &ids, &seen.newest, &self.base(seen, service))
    }

    /// What the tasks of a service got that was never rotated: by this process, or else as the secrets' labels say.
    fn base(&self, seen: &Seen, service: &Service) -> Versions {
        let mut base = Versions::default();
        for secret in seen.view.secrets.iter().filter(|secret| service.secrets.contains(&secret.id)) {
            base.0.extend(Versions::of(&secret.labels, VERSIONS).0);
        }
        base.0.extend(self.driver.versions_served(&service.name).0);
        base
    }

    /// Takes the step, and says how soon there may be another one.
    async fn act(&self, seen: &Seen, service: &Service, verdict: Verdict) -> Result<Option<Duration>, RuntimeError> {
        let name = service.name.as_str();
        match verdict {
            Verdict::Current => {
                self.told_of_end(service);
                Ok(None)
            }
            Verdict::Busy { back } => {
                let versions = service.labels.get(VERSIONS);
                if versions.is_some() {
                    self.tell(&service.id, if back { BACK } else { BUSY }, || match back {
                        true => tracing::warn!(service = name, "Swarm rolls it back"),
                        false => tracing::info!(service = name, "Swarm replaces its tasks"),
                    });
                }
                Ok(versions.map(|_| SOON))
            }
            Verdict::Paused => {
                self.tell(&service.id, "paused", || {
                    tracing::error!(
                        service = name,
                        result = "paused",
                        "Swarm has paused the update, as its `update_config` says, with some tasks on new secrets: write a good value, or \
                         go back with `docker service rollback {name}`"
                    );
                });
                Ok(None)
            }
            Verdict::Foreign => {
                self.tell(&service.id, "foreign", || {
                    tracing::error!(
                        service = name,
                        result = "paused",
                        "its own update is paused, and new secrets would make Swarm go on with it: finish it or roll it back"
                    );
                });
                Ok(None)
            }
            Verdict::Refuse { versions, labels } => {
                self.write(service, &labels, false).await?;
                self.tell_refused(service, &versions);
                Ok(Some(SOON))
            }
            Verdict::Refused(versions) => {
                self.tell_refused(service, &versions);
                Ok(None)
            }
            Verdict::Announce { from, to, labels } => {
                if let Some(wait) = self.wait(service) {
                    self.tell(&service.id, &format!("deferred {to}"), || {
                        let wait = humantime::format_duration(Duration::from_secs(wait.as_secs() + 1));
                        tracing::warn!(
                            service = name,
                            result = "deferred",
                            "it has used up its budget of updates, and waits for {wait}"
                        );
                    });
                    return Ok(Some(wait));
                }
                if let Err(fault) = self.rehearse(seen, service).await {
                    self.tell(&service.id, &format!("faulty {to} {fault}"), || {
                        tracing::error!(
                            service = name,
                            fault,
                            "it is not given a new secret that its tasks could not have"
                        );
                    });
                    return Ok(None);
                }
                if self.write(service, &labels, false).await? == Written::Outdated {
                    return Ok(Some(SOON));
                }
                tracing::info!(
                    service = name,
                    from = from.told(),
                    to = to.told(),
                    "its secrets have changed: it is about to be updated"
                );
                Ok(Some(Duration::ZERO))
            }
            Verdict::Rotate { to, labels } => {
                if self.write(service, &labels, true).await? == Written::Yes {
                    tracing::info!(service = name, to = to.told(), "updated: Swarm replaces its tasks");
                    let (now, mut state) = ((self.clock)(), self.state());
                    state.rotated.entry(service.id.clone()).or_default().push(now);
                    state.told.insert(service.id.clone(), BUSY.into());
                }
                Ok(Some(SOON))
            }
        }
    }

    async fn write(&self, service: &Service, labels: &Relabel, replace: bool) -> Result<Written, RuntimeError> {
        let written = self.swarm.update_service(&service.id, service.index, labels, replace).await?;
        if written == Written::Outdated {
            tracing::debug!(service = service.name, "somebody else has changed it meanwhile");
        }
        Ok(written)
    }

    /// Once every service that follows a secret is on its newest version, the secret says so, for services that are
    /// rotated later for the first time.
    async fn note_all_versions(&self, seen: &Seen, unsettled: &BTreeSet<String>) -> Result<Written, RuntimeError> {
        let mut all = Written::Yes;
        for secret in seen.view.secrets.iter().filter(|secret| !unsettled.contains(&secret.id)) {
            match self.note_versions(seen, secret).await {
                Ok(Written::Yes) => {}
                Ok(Written::Outdated) => all = Written::Outdated,
                Err(error @ RuntimeError::Refused { .. }) => self.tell(&secret.id, &error.to_string(), || {
                    tracing::error!(
                        secret = secret.name,
                        %error,
                        "Swarm does not let it be labelled with what its services have: mend what Swarm says"
                    );
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn note_versions(&self, seen: &Seen, secret: &SwarmSecret) -> Result<Written, RuntimeError> {
        let spec = seen.secrets.get(&secret.id).filter(|spec| spec.rotates);
        let ids = spec.map(ServiceSecret::secrets).unwrap_or_default();
        let known = ids.iter().filter_map(|id| Some((id.to_string(), seen.newest.get(id)?.clone())));
        let versions = Versions(known.collect());
        let is_unknown = versions.0.len() < ids.iter().filter(|id| !is_pinned(id)).count() || versions.0.is_empty();
        if is_unknown || Versions::of(&secret.labels, VERSIONS) == versions {
            return Ok(Written::Yes);
        }
        self.swarm.label_secret(&secret.id, secret.index, VERSIONS, &versions.to_string()).await
    }

    async fn rehearse(&self, seen: &Seen, service: &Service) -> Result<(), String> {
        for secret in seen.view.secrets.iter().filter(|secret| service.secrets.contains(&secret.id)) {
            if let Some(spec) = seen.secrets.get(&secret.id).filter(|spec| spec.rotates) {
                self.driver.rehearse(spec).await.map_err(|fault| format!("secret `{}`: {fault}", secret.name))?;
            }
        }
        Ok(())
    }

    /// How long until the service may be updated once more.
    fn wait(&self, service: &Service) -> Option<Duration> {
        let history = self.state().rotated.get(&service.id).cloned().unwrap_or_default();
        let policy = (self.policy)();
        budget::wait(history, policy.restart_budget, policy.restart_window, (self.clock)())
    }

    fn told_of_end(&self, service: &Service) {
        let before = self.state().told.remove(&service.id);
        if before.is_some_and(|told| told == BUSY || told == BACK) {
            let versions = Versions::of(&service.labels, VERSIONS).told();
            tracing::info!(
                service = service.name,
                versions,
                result = "rotated",
                "its tasks have the secrets that are the newest"
            );
        }
    }

    fn tell_refused(&self, service: &Service, versions: &Versions) {
        self.tell(&service.id, &format!("refused {versions}"), || {
            tracing::error!(
                service = service.name,
                refused = versions.told(),
                result = "rolled back",
                "Swarm has rolled it back to the secrets of before: these versions are not tried again until there is a newer one, \
                 or somebody removes the service's label `dso.refused`"
            );
        });
    }

    /// Says something of a service or secret, unless that is what was said of it last.
    fn tell(&self, id: &str, what: &str, say: impl FnOnce()) {
        let before = self.state().told.insert(id.to_owned(), what.to_owned());
        if before.as_deref() != Some(what) {
            say();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const BUSY: &str = "busy";
const BACK: &str = "back";

// === impl Seen ===

impl Seen {
    /// The secrets of providers that the service follows.
    fn ids(&self, service: &Service) -> BTreeSet<String> {
        let specs = service.secrets.iter().filter_map(|id| self.secrets.get(id)).filter(|spec| spec.rotates);
        let ids = specs.flat_map(ServiceSecret::secrets).filter(|id| !is_pinned(id));
        ids.map(|id| id.to_string()).collect()
    }
}

/// Never changes, whatever its provider has.
fn is_pinned(id: &SecretId) -> bool {
    id.param("version").is_some()
}
