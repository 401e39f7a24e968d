//! The edge to the kernel's mounts.

use super::Orphan;
use std::{io, path::PathBuf};

/// Makes the memory that volumes live in, and shows it to the host.
///
/// # Guarantees
/// - A call that fails leaves nothing mounted that was not mounted before it.
/// - Nothing but the finished, read-only mount at the shared mountpoint is ever seen outside of the plugin.
pub trait Mounter: Send + Sync + 'static {
    /// Makes fresh memory of `size` bytes for `volume` at its private place; returns its writable root.
    /// Refuses if the volume's shared mountpoint is in use.
    fn create(&self, volume: &str, size: u64) -> io::Result<PathBuf>;

    /// Shows the volume, read-only, at its shared mountpoint.
    fn share(&self, volume: &str) -> io::Result<()>;

    /// Bounds the volume's memory by `size` bytes from now on.
    fn resize(&self, volume: &str, size: u64) -> io::Result<()>;

    /// Takes away whatever there is of the volume's mounts and mountpoints; done again, it does nothing.
    fn destroy(&self, volume: &str) -> io::Result<()>;

    /// The volumes that have a mount at their shared mountpoint.
    fn shared(&self) -> io::Result<Vec<String>>;

    /// Takes over a volume that a process before this one shared; returns its writable root.
    fn adopt(&self, volume: &str) -> io::Result<PathBuf>;

    /// Where the host sees the volume. It exists while the volume is shared.
    fn mountpoint(&self, volume: &str) -> PathBuf;

    /// What volumes are made of: `tmpfs`, or `ramfs` where the kernel's tmpfs cannot be kept out of swap.
    fn memory(&self) -> &'static str {
        "tmpfs"
    }

    /// Whose volumes these are, as a word that no other plugin has; each generation's marker says it.
    fn owner(&self) -> &str {
        ""
    }

    /// Volumes of this owner that other processes still have, and this one does not see, newest first. May wait for
    /// other processes: not to be called where that must not be.
    fn orphans(&self) -> io::Result<Vec<Orphan>> {
        Ok(Vec::new())
    }

    /// Shows the orphan at its volume's shared mountpoint again, as if it had been shared from here. Refuses if that is in use.
    fn take_back(&self, _orphan: &Orphan) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether the process `pid` sees what was shared of the volume; true where that cannot be told.
    fn reaches(&self, _volume: &str, _pid: u32) -> bool {
        true
    }

    /// Makes what is shared reach the process `pid` again, where it did not.
    fn reconnect(&self, _pid: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
