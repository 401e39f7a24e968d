//! What a person is told when a request fails.

use crate::{faults::Faults, projection::ProjectionError, provider::ErrorKind, volume::VolumeName};
use std::io;
use thiserror::Error;

/// A request that failed. Names the volume, the file, the reference, the provider's answer and what to do;
/// never a value.
#[derive(Debug, Error)]
pub enum DriverError {
    #[error("there is no volume `{volume}`")]
    NoSuchVolume { volume: String },
    #[error("volume `{volume}`: {faults}")]
    Invalid { volume: String, faults: Faults },
    #[error("volume `{volume}` exists with other options and is mounted: remove its containers and the volume first")]
    OtherOptions { volume: VolumeName },
    #[error("volume `{volume}` is in use by {mounts} mount(s): stop its containers first")]
    InUse { volume: VolumeName, mounts: u32 },
    #[error("volume `{volume}`: {faults}")]
    Secrets {
        volume: VolumeName,
        faults: Faults,
        /// The class of the first failure; `None` where everything was read and cannot be made into files.
        kind: Option<ErrorKind>,
        /// Whether the same request may succeed later with nothing changed by a person.
        transient: bool,
    },
    #[error(
        "volume `{volume}`: no answer from {waiting} within {limit} s: the mount was given up, and nothing was mounted"
    )]
    TimedOut { volume: VolumeName, waiting: String, limit: u64 },
    #[error("volume `{volume}`: {source}")]
    Projection { volume: VolumeName, source: ProjectionError },
    #[error(
        "volume `{volume}`: the engine does not see what this plugin mounts, and the container would have had an empty \
         directory: the engine unmounted the plugin's folder, which may happen when it starts after a crash. Run \
         `docker plugin disable -f` and `docker plugin enable` for this plugin, and start the container again"
    )]
    OutOfSight { volume: VolumeName },
    #[error("volume `{volume}`: its state cannot be written: {source}: is the disk of the engine's data root full?")]
    Store { volume: VolumeName, source: io::Error },
    #[error("volume `{volume}`: an internal fault, which the plugin's log tells of")]
    Internal { volume: VolumeName },
}

impl DriverError {
    pub(super) fn invalid(volume: &str, faults: Faults) -> Self {
        Self::Invalid { volume: volume.to_owned(), faults }
    }

    /// What kind of failure it is, in a word.
    pub fn class(&self) -> &'static str {
        match self {
            Self::NoSuchVolume { .. } => "no_volume",
            Self::Invalid { .. } => "options",
            Self::OtherOptions { .. } => "other_options",
            Self::InUse { .. } => "in_use",
            Self::Secrets { kind: Some(kind), .. } => kind.as_str(),
            Self::Secrets { kind: None, .. } => "render",
            Self::TimedOut { .. } => ErrorKind::Timeout.as_str(),
            Self::Projection { .. } => "projection",
            Self::OutOfSight { .. } => "out_of_sight",
            Self::Store { .. } => "state",
            Self::Internal { .. } => "internal",
        }
    }

    /// Whether to try again without waiting for the next change.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Secrets { transient: true, .. } | Self::TimedOut { .. })
    }
}
