//! For unit tests: a driver over a scripted provider, and folders of memory in place of mounts.

use super::*;
use crate::{
    provider::{ErrorKind, Provider, ProviderError, Registry, scripted::Scripted},
    volume::MountId,
};
use std::{fs, io, path::Path};
use tempfile::TempDir;

/// The process of an engine that sees no mount.
pub const BLIND_ENGINE: u32 = 4242;

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

    pub fn status(&self, name: &str) -> Status {
        self.driver.inspect(name).unwrap().status
    }

    pub fn read(&self, name: &str, file: &str) -> String {
        read(&self.dir.path().join(name), file)
    }
}

pub fn read(volume: &Path, file: &str) -> String {
    fs::read_to_string(volume.join(file)).unwrap()
}

pub fn down() -> Option<ProviderError> {
    Some(ProviderError::new(ErrorKind::Unreachable, "connection refused"))
}
