//! For unit tests: a driver over a scripted provider, and folders of memory in place of mounts.

use super::*;
use crate::{
    projection::Orphan,
    provider::{ErrorKind, Provider, ProviderError, Registry, scripted::Scripted},
    volume::MountId,
};
use std::{fs, io, path::Path};
use tempfile::TempDir;

/// The process of an engine that sees no mount.
pub const BLIND_ENGINE: u32 = 4242;

const BLIND: &str = "blind";
const HELD: &str = "held";
const ENDLESS: &str = "endless";

/// Folders on a tmpfs; what is written and what is shared are one.
struct Folders(PathBuf);

impl Mounter for Folders {
    fn create(&self, volume: &str, _: u64) -> io::Result<PathBuf> {
        let root = self.mountpoint(volume);
        fs::create_dir(&root)?;
        Ok(root)
    }

    fn share(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn resize(&self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn destroy(&self, volume: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.mountpoint(volume)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn shared(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name != "state").collect())
    }

    fn adopt(&self, volume: &str) -> io::Result<PathBuf> {
        Ok(self.mountpoint(volume))
    }

    fn mountpoint(&self, volume: &str) -> PathBuf {
        self.0.join(volume)
    }

    fn orphans(&self) -> io::Result<Vec<Orphan>> {
        let mut orphans = Vec::new();
        while orphanage(&self.0).join(ENDLESS).exists() {
            std::thread::yield_now();
        }
        for entry in fs::read_dir(orphanage(&self.0)).into_iter().flatten() {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            if name == BLIND {
                return Err(io::Error::other("no look today"));
            }
            let Some((volume, generation)) = name.split_once('@') else { continue };
            let generation = generation.parse().unwrap();
            let (processes, tree) = (vec![std::process::id()], fs::File::open(&path)?.into());
            orphans.push(Orphan {
                volume: volume.into(),
                generation,
                rotated: SystemTime::UNIX_EPOCH,
                processes,
                tree,
            });
        }
        orphans.sort_by_key(|orphan| std::cmp::Reverse(orphan.generation));
        Ok(orphans)
    }

    fn take_back(&self, orphan: &Orphan) -> io::Result<()> {
        let dir = orphanage(&self.0);
        if dir.join(HELD).exists() {
            return Err(io::Error::other("held"));
        }
        fs::rename(dir.join(format!("{}@{}", orphan.volume, orphan.generation)), self.mountpoint(&orphan.volume))
    }

    fn reaches(&self, _: &str, pid: u32) -> bool {
        pid != BLIND_ENGINE
    }
}

/// A driver, and what is around it.
pub struct Bench {
    pub dir: TempDir,
    pub provider: Arc<Scripted>,
    pub driver: Arc<Driver>,
    pub told: mpsc::UnboundedReceiver<Event>,
}

impl Bench {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        Self::over(dir, Scripted::versioned()).await
    }

    pub async fn over(dir: TempDir, provider: Arc<Scripted>) -> Self {
        Self::with(dir, provider, || Ok(())).await
    }

    /// `before_write` runs before each write of a state file.
    pub async fn with(
        dir: TempDir,
        provider: Arc<Scripted>,
        before_write: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let (events, told) = mpsc::unbounded_channel();
        let instance: Arc<dyn Provider> = provider.clone();
        let driver = Driver::new(Parts {
            store: Store::open(dir.path().join("state")).unwrap().intercept(before_write),
            cache: Arc::new(Cache::new(Registry::of([("p".to_owned(), instance)]))),
            mounter: Arc::new(Folders(dir.path().into())),
            refresh: Duration::from_secs(30),
            boot: "boot".into(),
            events,
            tasks: TaskTracker::new(),
        });
        driver.start().await.unwrap();
        Self { dir, provider, driver, told }
    }

    /// The process is gone, and another begins.
    pub async fn restart(self) -> Self {
        let Self { dir, provider, .. } = self;
        Self::over(dir, provider).await
    }

    pub async fn volume(&self, name: &str, options: &[(&str, &str)]) {
        let options = options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        self.driver.create(name, options).await.unwrap();
    }

    pub async fn mount(&self, name: &str, id: &str) -> Result<PathBuf, DriverError> {
        self.driver.mount(name, MountId::new(id), "engine").await
    }

    pub async fn unmount(&self, name: &str, id: &str) {
        self.driver.unmount(name, &MountId::new(id)).await.unwrap();
    }

    pub async fn check_and_refresh(&self, name: &str) -> Refreshed {
        let name: VolumeName = name.parse().unwrap();
        for (key, _) in self.driver.checks(&name, Wanted::Soon) {
            self.driver.check(&key).await;
        }
        self.driver.refresh(&name).await.unwrap()
    }

    /// Containers have the volume's files, and the plugin does not see them any more.
    pub fn orphan(&self, name: &str) {
        let generation = self.status(name).generation;
        let to = orphanage(self.dir.path());
        fs::create_dir_all(&to).unwrap();
        fs::rename(self.dir.path().join(name), to.join(format!("{name}@{generation}"))).unwrap();
    }

    /// Whether the plugin fails to look for what containers have.
    pub fn blind(&self, blind: bool) {
        self.toggle(BLIND, blind);
    }

    /// Whether it finds that, and fails to take it back.
    pub fn hold(&self, held: bool) {
        self.toggle(HELD, held);
    }

    /// Whether its look does not end.
    pub fn stall(&self, endless: bool) {
        self.toggle(ENDLESS, endless);
    }

    fn toggle(&self, name: &str, on: bool) {
        let file = orphanage(self.dir.path()).join(name);
        if on { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
    }

    pub fn status(&self, name: &str) -> Status {
        self.driver.inspect(name).unwrap().status
    }

    pub fn read(&self, name: &str, file: &str) -> String {
        read(&self.dir.path().join(name), file)
    }
}

/// Where folders are that containers have, and the plugin does not see.
fn orphanage(dir: &Path) -> PathBuf {
    dir.join("state/orphans")
}

pub fn read(volume: &Path, file: &str) -> String {
    fs::read_to_string(volume.join(file)).unwrap()
}

pub fn down() -> Option<ProviderError> {
    Some(ProviderError::new(ErrorKind::Unreachable, "connection refused"))
}
