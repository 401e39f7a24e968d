//! What can go wrong with a projection, for the person who has to mend it.

use std::{fmt::Display, io};
use thiserror::Error;

const MIB: u64 = 1 << 20;
/// The most that the volume option `size` may say.
const MAX_SIZE: u64 = 64 * MIB;

/// Why a projection is not as it was asked to be. It names paths and sizes, never what is in a file.
#[derive(Debug, Error)]
pub enum ProjectionError {
    #[error("{}", too_large(*needed, *size))]
    TooLarge { needed: u64, size: u64 },
    /// The kernel refused a step. The error is part of the sentence, so it is not given again as the source.
    #[error("cannot {doing}: {}", reason(error))]
    Io { doing: String, error: io::Error },
    #[error("what is mounted for volume `{volume}` is not dso's: {fault}")]
    Foreign { volume: String, fault: String },
    #[error("there is no previous generation to go back to")]
    NoPrevious,
}

/// Says what was being done when an I/O error came.
pub(super) trait Doing<T> {
    fn doing(self, what: impl Display) -> Result<T, ProjectionError>;
}

// === impl Doing ===

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T, ProjectionError> {
        self.map_err(|error| ProjectionError::Io { doing: what.to_string(), error: error.into() })
    }
}

fn too_large(needed: u64, size: u64) -> String {
    let sizes = format!("the files need {}, and option `size` allows {}", human(needed), human(size));
    if needed > MAX_SIZE {
        return format!("{sizes}: no volume may have more than 64m, so divide the files among several volumes");
    }
    let enough =
        if needed < MIB { format!("{}k", needed.div_ceil(1024)) } else { format!("{}m", needed.div_ceil(MIB)) };
    format!("{sizes}: set `size` to {enough} or more (at most 64m)")
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => format!("the volume's memory is full ({error})"),
        _ => error.to_string(),
    }
}

/// A size as people write it, rounded up so that what is too large never looks equal.
fn human(bytes: u64) -> String {
    let (unit, name) = if bytes >= MIB { (MIB, "MiB") } else { (1024, "KiB") };
    let tenths = (bytes * 10).div_ceil(unit);
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        rest => format!("{}.{rest} {name}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_does_not_fit_is_told_in_human_units_with_the_way_out() {
        let error = ProjectionError::TooLarge { needed: MIB + 4096, size: MIB };
        assert_eq!(
            error.to_string(),
            "the files need 1.1 MiB, and option `size` allows 1 MiB: set `size` to 2m or more (at most 64m)"
        );
        let error = ProjectionError::TooLarge { needed: 65 * MIB, size: 64 * MIB };
        assert_eq!(
            error.to_string(),
            "the files need 65 MiB, and option `size` allows 64 MiB: no volume may have more than 64m, \
             so divide the files among several volumes"
        );
    }

    #[test]
    fn a_full_tmpfs_is_called_full() {
        let error = Err::<(), _>(io::Error::from_raw_os_error(28)).doing("write file `a`").unwrap_err().to_string();
        assert!(error.starts_with("cannot write file `a`: the volume's memory is full ("), "{error}");
    }
}
