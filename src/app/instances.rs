//! The provider instances while the plugin runs: their own work, and other settings when the file changes.
//!
//! # Guarantees
//! - A file with any fault takes nothing away that works: it is left out as a whole, which the log says, and so does the
//!   error of whoever needs what it would have added.
//! - An instance whose settings stay the same keeps its token and what it has learned; containers notice nothing.
//! - Where the settings in use have faults themselves, a file that has some left is taken if nothing is lost by it.
//! - `refresh` and `[rotation]` are told to whoever needs them by [`Instances::settings`], together with the instances.
//!
//! # Caveats
//! `[audit]` holds from the plugin's start: a change of it waits for the next one, which the log says.

use crate::{
    config::{self, Config},
    events::Events,
    faults::Faults,
    host::HostFiles,
    provider::{Cache, Registry},
    reconcile::policy::Policy,
    watch,
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch as latest},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A file is written in several steps: it is read when nothing has happened to it for this long …
const QUIET: Duration = Duration::from_millis(200);
/// … or this often.
const MOST_STEPS: u32 = 25;

/// The instances in use, and what they were made of.
pub struct Instances {
    config: Config,
    /// What of the settings is not in use.
    faults: Faults,
    cache: Arc<Cache>,
    events: Arc<Events>,
    pushes: mpsc::UnboundedSender<String>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    /// What ends the work of each.
    running: BTreeMap<String, CancellationToken>,
    settings: latest::Sender<Config>,
}

/// The registry that a plugin starts with: the instances whose settings are in order. References to the others are refused
/// with what is wrong.
pub fn first(config: &Config, host: &HostFiles) -> Registry {
    next(&Registry::default(), config, host)
}

fn next(before: &Registry, config: &Config, host: &HostFiles) -> Registry {
    match &config.unread {
        Some(fault) => Registry::unknown(fault.clone()),
        None => before.rebuild(config.providers.clone(), host),
    }
}

/// What is wrong with settings: as they were read, with an instance, with the rest.
fn all_faults(mut read: Faults, registry: &Registry, config: &Config) -> Faults {
    for (_, broken) in registry.broken() {
        read.push(broken.to_string());
    }
    read.extend(Policy::parse(config.rotation.clone()).1);
    read
}

// === impl Instances ===

impl Instances {
    /// Starts the work of every instance; `config` is what `cache` was made of, and `faults` what was wrong with it.
    pub fn new(
        config: Config,
        faults: Faults,
        cache: Arc<Cache>,
        events: Arc<Events>,
        pushes: mpsc::UnboundedSender<String>,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let registry = cache.registry();
        for (name, faults) in registry.broken() {
            tracing::error!(provider = name, %faults, "this provider is left out");
        }
        let faults = all_faults(faults, &registry, &config);
        let (running, settings) = (BTreeMap::new(), latest::Sender::new(config.clone()));
        let mut this = Self { config, faults, cache, events, pushes, tasks, cancel, running, settings };
        for (name, _) in registry.iter() {
            this.start(name);
        }
        this
    }

    /// The settings in use, now and whenever others take their place.
    pub fn settings(&self) -> latest::Receiver<Config> {
        self.settings.subscribe()
    }

    /// Takes every change of the file into use, until the plugin ends.
    pub async fn follow(mut self, host: HostFiles) {
        let (changed, cancel) = (Arc::new(Notify::new()), self.cancel.clone());
        // It may have changed since it was read.
        changed.notify_one();
        let watching = watch::watch("/etc/dso/dso.toml", || Ok(vec![Config::file(&host)]), || changed.notify_one());
        let reloading = async {
            loop {
                settled(&changed).await;
                self.reload(&host).await;
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = watching => {}
            () = reloading => {}
        }
    }

    /// Reads the settings, and uses them if they are others.
    async fn reload(&mut self, host: &HostFiles) {
        let read = host.clone();
        let read = tokio::task::spawn_blocking(move || Config::load(&config::environment, &read));
        let Ok((config, faults)) = read.await else { return };
        self.take(config, faults, host);
    }

    fn take(&mut self, config: Config, faults: Faults, host: &HostFiles) {
        let before = self.cache.registry();
        let registry = next(&before, &config, host);
        let faults = all_faults(faults, &registry, &config);
        if config == self.config && faults == self.faults {
            let was_refused = before.refused().is_some();
            before.refuse(None);
            if was_refused {
                tracing::info!("/etc/dso/dso.toml says again what is in use");
                self.tell(None);
            }
            return;
        }
        if !faults.is_empty() && (self.faults.is_empty() || !registry.keeps_all_of(&before)) {
            let is_new = before.refused() != Some(faults.to_string());
            // Before it is told: whoever hears of it may ask.
            before.refuse(Some(faults.to_string()));
            if is_new {
                tracing::error!(%faults, "/etc/dso/dso.toml has changed and is not in use: the settings before it are");
                self.tell(Some(&faults));
            }
            return;
        }
        if !faults.is_empty() {
            tracing::error!(%faults, "settings are left out");
        }
        if (config.refresh, &config.rotation) != (self.config.refresh, &self.config.rotation) {
            tracing::info!("`refresh` or [rotation] of /etc/dso/dso.toml has changed");
        }
        if config.audit != self.config.audit {
            tracing::warn!("[audit] of /etc/dso/dso.toml takes effect when the plugin is enabled again");
        }
        self.settings.send_replace(config.clone());
        self.tell(Some(&faults).filter(|faults| !faults.is_empty()));
        (self.config, self.faults) = (config, faults);
        self.replace(registry, &before);
    }

    /// Tells what became of a change of the file.
    fn tell(&self, fault: Option<&Faults>) {
        self.events.tell("settings", None, json!({ "fault": fault.map(ToString::to_string) }));
    }

    fn replace(&mut self, registry: Registry, before: &Registry) {
        let changed = registry.changed_since(before);
        self.cache.replace(registry);
        let now = self.cache.registry();
        for name in &changed {
            if let Some(work) = self.running.remove(name) {
                work.cancel();
            }
            let change = match (before.get(name), now.get(name)) {
                (None, _) => "new",
                (_, None) => "gone",
                _ => "other settings",
            };
            tracing::info!(provider = name, change, "/etc/dso/dso.toml has changed");
            self.start(name);
            // Its secrets are looked at now, those of one that is gone to say so.
            let _ = self.pushes.send(name.clone());
        }
    }

    /// Starts what an instance does by itself, if there is one of that name.
    fn start(&mut self, name: &str) {
        let Some(provider) = self.cache.registry().get(name).cloned() else { return };
        let (cancel, pushes) = (self.cancel.child_token(), self.pushes.clone());
        self.running.insert(name.to_owned(), cancel.clone());
        self.tasks.spawn(async move { provider.run(pushes, cancel).await });
    }
}

/// Waits for a change, and then until there are no more.
async fn settled(changed: &Notify) {
    changed.notified().await;
    for _ in 0..MOST_STEPS {
        if timeout(QUIET, changed.notified()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tokio::time::{Instant, sleep};

    /// A folder in place of `/etc/dso`, and the instances that follow its file.
    struct World {
        dir: tempfile::TempDir,
        cache: Arc<Cache>,
        events: Arc<Events>,
        pushed: mpsc::UnboundedReceiver<String>,
        settings: latest::Receiver<Config>,
        cancel: CancellationToken,
        tasks: TaskTracker,
    }

    const SOUND: &str = "[provider.eu]\ntype = 'vault'\naddress = 'http://127.0.0.1:1'\n";

    impl World {
        fn start(text: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("dso.toml"), text).unwrap();
            let host = HostFiles::on_host(dir.path());
            let none = |_: &str| None;
            let (config, faults) = Config::load(&none, &host);
            let cache = Arc::new(Cache::new(first(&config, &host)));
            let (pushes, pushed) = mpsc::unbounded_channel();
            let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
            let events = Arc::<Events>::default();
            let (told, all, end) = (events.clone(), tasks.clone(), cancel.clone());
            let instances = Instances::new(config, faults, cache.clone(), told, pushes, all, end);
            let settings = instances.settings();
            tasks.spawn(instances.follow(host));
            Self { dir, cache, events, pushed, settings, cancel, tasks }
        }

        fn write(&self, text: &str) {
            fs::write(self.dir.path().join("new"), text).unwrap();
            fs::rename(self.dir.path().join("new"), self.dir.path().join("dso.toml")).unwrap();
        }

        async fn until(&self, what: &str, condition: impl Fn(&Registry) -> bool) {
            let deadline = Instant::now() + Duration::from_secs(30);
            while !condition(&self.cache.registry()) {
                assert!(Instant::now() < deadline, "not in time: {what}");
                sleep(Duration::from_millis(10)).await;
            }
        }

        /// Whose secrets are to be looked at.
        async fn pushed(&mut self) -> Option<String> {
            timeout(Duration::from_secs(20), self.pushed.recv()).await.expect("a push in time")
        }

        fn get(&self, name: &str) -> Option<Arc<dyn crate::provider::Provider>> {
            self.cache.registry().get(name).cloned()
        }

        fn fault(&self, reference: &str) -> String {
            self.cache.registry().validate(&reference.parse().unwrap()).unwrap_err()
        }

        /// What the events say of the settings.
        fn told(&self) -> Vec<Option<String>> {
            let told = self.events.remembered();
            let lines = told.iter().map(|event| serde_json::from_str::<serde_json::Value>(&event.line).unwrap());
            lines.map(|line| line["fault"].as_str().map(str::to_owned)).collect()
        }

        async fn end(self) {
            self.cancel.cancel();
            self.tasks.close();
            timeout(Duration::from_secs(20), self.tasks.wait()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_new_instance_is_there_and_the_others_are_the_same() {
        let mut world = World::start(SOUND);
        let (eu, local) = (world.get("eu").unwrap(), world.get("local").unwrap());
        world.write(&format!("{SOUND}[provider.us]\ntype = 'vault'\naddress = 'http://127.0.0.1:1'\n"));
        world.until("us", |registry| registry.get("us").is_some()).await;
        assert!(Arc::ptr_eq(&eu, &world.get("eu").unwrap()) && Arc::ptr_eq(&local, &world.get("local").unwrap()));
        assert_eq!(world.pushed().await.as_deref(), Some("us"));
        assert!(world.pushed.try_recv().is_err(), "nobody else is told");
        world.end().await;
    }

    #[tokio::test]
    async fn another_address_makes_another_instance_and_a_removed_one_is_refused() {
        let mut world = World::start(SOUND);
        let eu = world.get("eu").unwrap();
        world.write(&SOUND.replace("127.0.0.1:1", "127.0.0.1:2"));
        world.until("other", |registry| registry.get("eu").is_some_and(|now| !Arc::ptr_eq(now, &eu))).await;
        assert_eq!(world.pushed().await.as_deref(), Some("eu"));
        world.write("");
        world.until("gone", |registry| registry.get("eu").is_none()).await;
        assert_eq!(world.pushed().await.as_deref(), Some("eu"), "its volumes are told");
        assert_eq!(world.fault("eu://a/b"), "unknown provider `eu`: known are `azure`, `local`");
        world.end().await;
    }

    #[tokio::test]
    async fn a_broken_file_changes_nothing_and_says_so() {
        let world = World::start(SOUND);
        let eu = world.get("eu").unwrap();
        let us = "[provider.us]\ntype = 'vault'\naddress = 'http://127.0.0.1:1'\n";
        for (text, part) in [
            (format!("{SOUND}{us}adress = 'x'\n"), "unknown key `adress`"),
            (format!("{us}[provider.eu]\ntype = 'vualt'\n"), "unknown type `vualt`"),
            (format!("refesh = '1s'\n{us}"), "unknown key `refesh`"),
            (format!("{SOUND}{us}[rotation]\nx = 1\n"), "`x`"),
            ("[provider.eu\n".into(), "(line 1)"),
        ] {
            world.write(&text);
            let refused = |registry: &Registry| registry.refused().is_some_and(|fault| fault.contains(part));
            world.until(part, refused).await;
            assert!(Arc::ptr_eq(&eu, &world.get("eu").unwrap()), "{part}");
            assert!(world.get("us").is_none(), "{part}");
            let fault = world.fault("us://a/b");
            assert!(fault.contains("the newer /etc/dso/dso.toml is not in use: ") && fault.contains(part), "{fault}");
        }
        world.write(SOUND);
        world.until("mended", |registry| registry.refused().is_none()).await;
        assert!(Arc::ptr_eq(&eu, &world.get("eu").unwrap()));
        let told = world.told();
        assert_eq!((told.len(), told.last().unwrap()), (6, &None));
        assert!(told[..5].iter().all(Option::is_some) && told[0].as_ref().unwrap().contains("unknown key `adress`"));
        world.end().await;
    }

    #[tokio::test]
    async fn how_often_and_what_for_is_told_when_the_file_says_otherwise_and_not_while_it_has_a_fault() {
        let mut world = World::start(SOUND);
        assert_eq!(world.settings.borrow_and_update().refresh, Duration::from_secs(30));
        world.write(&format!("refresh = '5s'\n{SOUND}[rotation]\nparalel = 2\n"));
        world.until("refused", |registry| registry.refused().is_some()).await;
        assert!(!world.settings.has_changed().unwrap());
        world.write(&format!("refresh = '5s'\n{SOUND}[rotation]\nparallel = 2\n"));
        timeout(Duration::from_secs(20), world.settings.changed()).await.unwrap().unwrap();
        let now = world.settings.borrow().clone();
        assert_eq!((now.refresh, now.rotation), (Duration::from_secs(5), "parallel = 2".parse().unwrap()));
        world.end().await;
    }

    #[tokio::test]
    async fn a_plugin_that_started_with_a_broken_file_needs_no_other_start() {
        let world = World::start("[provider.eu\n");
        assert!(world.fault("local://a").contains("(line 1): mend the file"));
        world.write(&format!("{SOUND}[provider.us]\ntype = 'vualt'\n"));
        world.until("eu", |registry| registry.get("eu").is_some()).await;
        assert!(world.fault("us://a/b").contains("unknown type `vualt`"));
        let eu = world.get("eu").unwrap();
        world.write("[provider.eu\n");
        world.until("refused", |registry| registry.refused().is_some()).await;
        assert!(Arc::ptr_eq(&eu, &world.get("eu").unwrap()), "what works by now is not lost");
        world.write(&format!("{SOUND}[provider.us]\ntype = 'vault'\naddress = 'http://127.0.0.1:1'\n"));
        world.until("us", |registry| registry.get("us").is_some()).await;
        assert!(Arc::ptr_eq(&eu, &world.get("eu").unwrap()));
        world.write(&format!("refesh = '1s'\n{SOUND}[provider.us]\ntype = 'vault'\naddress = 'http://127.0.0.1:1'\n"));
        world.until("strict again", |registry| registry.refused().is_some()).await;
        world.end().await;
    }

    #[tokio::test]
    async fn a_file_behind_links_that_is_replaced_as_kubernetes_does_is_read() {
        let world = World::start("");
        let at = |name: &str| world.dir.path().join(name);
        fs::remove_file(at("dso.toml")).unwrap();
        std::os::unix::fs::symlink("..data/dso.toml", at("dso.toml")).unwrap();
        for (n, name) in ["one", "two", "three"].into_iter().enumerate() {
            let folder = format!("..{n}");
            fs::create_dir(at(&folder)).unwrap();
            fs::write(at(&folder).join("dso.toml"), SOUND.replace("eu", name)).unwrap();
            std::os::unix::fs::symlink(&folder, at("..new")).unwrap();
            fs::rename(at("..new"), at("..data")).unwrap();
            world.until(name, |registry| registry.get(name).is_some()).await;
        }
        world.end().await;
    }
}
