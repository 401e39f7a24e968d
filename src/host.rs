//! Where the host's files are, as seen from inside the plugin. Stands beneath everything, and imports nothing.
//!
//! The engine's bind mounts need a source that exists, and `/etc/dso` need not. So the `config` mount
//! (destination `/etc/dso`) has `/etc` as its default source, and the host's `/etc` is also mounted at
//! `/host/etc`, for the CA store. Where the two are one directory, nobody has set `config`, and what a
//! person calls `/etc/dso/x` is `/host/etc/dso/x`: looked up anew each time, so that the folder may
//! be made after the plugin.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Bundles of CA certificates by distribution: Debian and Alpine, Fedora, openSUSE, the last as others link it.
const CA_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The host's files that dso may read.
#[derive(Clone, Debug)]
pub struct HostFiles {
    config: PathBuf,
    etc: PathBuf,
}

// === impl HostFiles ===

impl HostFiles {
    /// As `config.json` mounts them.
    pub fn in_plugin() -> Self {
        Self { config: "/etc/dso".into(), etc: "/host/etc".into() }
    }

    /// Outside of the plugin: `config` stands for `/etc/dso`, and `/etc` is what it is.
    pub fn on_host(config: impl Into<PathBuf>) -> Self {
        Self { config: config.into(), etc: "/etc".into() }
    }

    /// The folder that a person knows as `/etc/dso`.
    pub fn config_dir(&self) -> PathBuf {
        let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        match (id(&self.config), id(&self.etc)) {
            (Some(config), Some(etc)) if config == etc => self.etc.join("dso"),
            _ => self.config.clone(),
        }
    }

    /// Where a file that a person named by its path on the host is found from here.
    ///
    /// Only files under `/etc` can be: the rest of the host is not visible to the plugin.
    pub fn locate(&self, named: &Path) -> Result<PathBuf, String> {
        let plain = named.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        match (named.strip_prefix("/etc/dso"), named.strip_prefix("/etc")) {
            (Ok(rest), _) if plain => Ok(self.config_dir().join(rest)),
            (_, Ok(rest)) if plain => Ok(self.etc.join(rest)),
            _ => Err(format!("`{}` is not under /etc/dso, which is all that dso sees of the host", named.display())),
        }
    }

    /// The host's CA bundle, if it has one in a known place.
    pub fn ca_bundle(&self) -> Option<PathBuf> {
        let mut bundles =
            CA_BUNDLES.iter().filter_map(|path| Some(self.etc.join(Path::new(path).strip_prefix("/etc").ok()?)));
        bundles.find(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unset_config_mount_means_the_hosts_own_folder_even_if_it_is_made_later() {
        let dir = tempfile::tempdir().unwrap();
        let files = HostFiles { config: dir.path().into(), etc: dir.path().into() };
        assert_eq!(files.config_dir(), dir.path().join("dso"));
        assert_eq!(files.locate(Path::new("/etc/dso/ca.pem")).unwrap(), dir.path().join("dso/ca.pem"));
    }

    #[test]
    fn a_set_config_mount_stands_for_etc_dso_whatever_its_source() {
        let (config, etc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = HostFiles { config: config.path().into(), etc: etc.path().into() };
        assert_eq!(files.locate(Path::new("/etc/dso/a/b")).unwrap(), config.path().join("a/b"));
        assert_eq!(files.locate(Path::new("/etc/ssl/x")).unwrap(), etc.path().join("ssl/x"));
        for outside in ["/home/x", "/etc/dso/../../root/x", "relative"] {
            assert!(files.locate(Path::new(outside)).is_err(), "{outside}");
        }
    }
}
