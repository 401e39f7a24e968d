//! What a mount with these options would show, without a volume and without mounting anything.
//!
//! # Guarantees
//! - The faults are those of `docker volume create` and of the first mount, in the same words.
//! - Nothing is remembered but what the cache holds for a few seconds, and no value leaves the driver.

use super::{Driver, DriverError, Volume, mount};
use crate::{
    faults::Faults,
    projection::{FileSet, Projection, Versions},
    secret::{SecretId, SecretRef},
    volume::{Options, Record, VolumeName, VolumeSpec},
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// What would be shown, or why nothing would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Preview {
    pub ok: bool,
    pub files: Vec<PreviewedFile>,
    pub faults: Vec<String>,
    /// `None` where there are faults.
    pub size: Option<Sizes>,
}

/// One file, without its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PreviewedFile {
    pub path: String,
    /// Octal, as options have it.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    pub bytes: u64,
    pub sources: Vec<Sourced>,
}

/// A reference that a file is made of, and the version that its provider has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sourced {
    pub reference: String,
    pub version: String,
}

/// What the files take in the volume's tmpfs, and what they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    pub bytes: u64,
    pub limit: u64,
}

impl Driver {
    /// Parses, reads and renders as the first mount of a volume `name` with `options` would.
    pub async fn preview(&self, name: &str, options: Options) -> Preview {
        match self.preview_files(name, options).await {
            Ok((spec, set, versions)) => self.shown_files(name, &spec, &set, &versions),
            Err(faults) => Preview { faults: faults.into_list(), ..Preview::default() },
        }
    }

    async fn preview_files(&self, name: &str, options: Options) -> Result<(VolumeSpec, FileSet, Versions), Faults> {
        let told = self.parse(&options);
        let name: Result<VolumeName, _> = name.parse();
        let (name, spec) = match (name, told) {
            (Ok(name), Ok(spec)) => (name, spec),
            (name, spec) => {
                let mut faults = name.err().map(Faults::from).unwrap_or_default();
                faults.extend(spec.err().unwrap_or_default());
                return Err(faults);
            }
        };
        let deadline = Instant::now() + mount::LIMIT;
        let made = async {
            self.check_existing(&name, &options, deadline).await?;
            let volume = Volume::new(Record::new(name, options, String::new()), Ok(spec.clone()));
            self.read_now(&volume, &spec, deadline).await
        };
        let (set, versions) = made.await.map_err(|error| match error {
            DriverError::Secrets { faults, .. } => faults,
            error => error.to_string().into(),
        })?;
        Ok((spec, set, versions))
    }

    /// A volume of this name that is mounted with other options would stand in the way.
    async fn check_existing(&self, name: &VolumeName, options: &Options, deadline: Instant) -> Result<(), DriverError> {
        let Some(volume) = self.find(name) else { return Ok(()) };
        let work = timeout_at(deadline, volume.work.lock()).await;
        let work = work.map_err(|_| mount::timed_out(name, "an earlier request".into()))?;
        match work.record.options == *options || work.record.ledger.is_empty() {
            true => Ok(()),
            false => Err(DriverError::OtherOptions { volume: name.clone() }),
        }
    }

    /// Unlike a mount, it takes no last known values: who asks wants to know of the provider.
    async fn read_now(
        &self,
        volume: &Volume,
        spec: &VolumeSpec,
        deadline: Instant,
    ) -> Result<(FileSet, Versions), DriverError> {
        let read = self.parts.cache.get_all(spec.secrets(), Duration::ZERO);
        let read = timeout_at(deadline, read).await;
        let read = read.map_err(|_| mount::timed_out(&volume.name, mount::providers_of(volume)))?;
        self.assemble(volume, spec, read.found, &read.failed)
    }

    fn shown_files(&self, name: &str, spec: &VolumeSpec, set: &FileSet, versions: &Versions) -> Preview {
        match Projection::measure(&*self.parts.mounter, name, spec.size, set, versions.clone()) {
            Ok(bytes) => shown(spec, set, versions, Sizes { bytes, limit: spec.size }),
            Err(error) => Preview { faults: vec![error.to_string()], ..Preview::default() },
        }
    }
}

fn shown(spec: &VolumeSpec, set: &FileSet, versions: &Versions, size: Sizes) -> Preview {
    let version = |id: &Arc<SecretId>| versions.get(&id.to_string()).map(|version| version.label().to_owned());
    let sourced = |reference: &SecretRef| Sourced {
        reference: reference.to_string(),
        version: version(&reference.id).unwrap_or_default(),
    };
    let files = set.iter().map(|(path, file)| {
        let own = spec.files.get(path).map(|source| source.references());
        let references = own.unwrap_or_else(|| spec.from.iter().collect());
        PreviewedFile {
            path: path.to_owned(),
            mode: format!("{:04o}", file.mode),
            uid: file.uid,
            gid: file.gid,
            bytes: file.contents.len() as u64,
            sources: references.into_iter().map(sourced).collect(),
        }
    });
    Preview { ok: true, files: files.collect(), faults: Vec::new(), size: Some(size) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::workbench::{Bench, down};

    async fn preview(bench: &Bench, name: &str, options: &[(&str, &str)]) -> Preview {
        let options = options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        bench.driver.preview(name, options).await
    }

    /// What `docker volume create` and the first mount say, without what stands before each fault.
    async fn said(bench: &Bench, name: &str, options: &[(&str, &str)]) -> String {
        let options = options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let error = match bench.driver.create(name, options).await {
            Ok(()) => bench.mount(name, "a").await.unwrap_err(),
            Err(error) => error,
        };
        error.to_string().trim_start_matches(&format!("volume `{name}`: ")).to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn it_shows_what_a_mount_would_without_a_value_and_leaves_nothing() {
        let bench = Bench::new().await;
        bench.provider.put("app", "7", br#"{"user":"canary-u","pass":"canary-p"}"#);
        let options = [
            ("from", "p://app"),
            ("template.env", "U={{ secret('p://app#user') }}"),
            ("mode.pass", "0400"),
            ("uid.pass", "7"),
        ];
        let preview = preview(&bench, "v", &options).await;
        assert!(preview.ok && preview.faults.is_empty(), "{preview:?}");
        let shown: Vec<_> = preview.files.iter().map(|file| (&*file.path, &*file.mode, file.uid, file.bytes)).collect();
        assert_eq!(shown, [("env", "0444", 0, 10), ("pass", "0400", 7, 8), ("user", "0444", 0, 8)]);
        let env = &preview.files[0].sources;
        assert_eq!(env, &[Sourced { reference: "p://app#user".into(), version: "7".into() }]);
        let size = preview.size.unwrap();
        assert!(size.bytes > 26 && size.limit == 1 << 20);
        assert!(!serde_json::to_string(&preview).unwrap().contains("canary"));
        assert!(bench.driver.names().is_empty() && std::fs::read_dir(bench.dir.path()).unwrap().count() == 1);
        assert_eq!(bench.driver.events().remembered().len(), 0, "nothing happened");
    }

    #[tokio::test(start_paused = true)]
    async fn its_faults_are_those_of_create_and_mount() {
        let bench = Bench::new().await;
        bench.provider.put("app", "7", br#"{"user":"u"}"#);
        let big = vec![b'x'; 9000];
        bench.provider.put("big", "1", &big);
        for (name, options) in [
            ("a", &[("form", "p://app"), ("size", "1x")][..]),
            ("b", &[("file.x", "p://none"), ("file.y", "p://app#pass")]),
            ("c", &[("file.x", "q://app")]),
            ("d", &[("file.x", "p://app#pass")]),
            ("e", &[("file.x", "p://big"), ("size", "8k")]),
            ("f", &[("from", "p://app"), ("mode.usr", "0400")]),
            ("-g", &[("from", "p://app")]),
        ] {
            let preview = preview(&bench, name, options).await;
            assert!(!preview.ok && preview.files.is_empty(), "{name}: {preview:?}");
            assert_eq!(preview.faults.join("; "), said(&bench, name, options).await, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_the_provider_and_does_not_wait_for_ever() {
        let bench = Bench::new().await;
        bench.provider.put("app", "7", b"x");
        let options = [("file.x", "p://app")];
        bench.volume("v", &options).await;
        bench.mount("v", "a").await.unwrap();
        bench.provider.fail(down());
        tokio::time::advance(Duration::from_millis(1)).await;
        let refused = preview(&bench, "w", &options).await;
        assert_eq!(refused.faults, ["option `file.x`: `p://app`: connection refused"], "no last known value is taken");
        bench.provider.fail(None);
        bench.provider.delay(Duration::from_secs(3600));
        let late = preview(&bench, "w", &options).await;
        assert!(late.faults[0].contains("no answer from provider `p` within 25 s"), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mounted_volume_with_other_options_stands_in_the_way() {
        let bench = Bench::new().await;
        bench.provider.put("app", "7", b"x");
        bench.volume("v", &[("file.x", "p://app")]).await;
        let other = [("file.y", "p://app")];
        assert!(preview(&bench, "v", &other).await.ok);
        bench.mount("v", "a").await.unwrap();
        assert!(preview(&bench, "v", &other).await.faults[0].contains("exists with other options"));
        assert!(preview(&bench, "v", &[("file.x", "p://app")]).await.ok);
    }
}
