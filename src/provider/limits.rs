//! How long calls of a provider may take: the same for all of them.

use crate::settings::Settings;
use std::{ops::RangeInclusive, time::Duration};

/// The most of a call's time that connecting may take.
pub const CONNECT: Duration = Duration::from_secs(5);

const WHOLE: Duration = Duration::from_secs(10);
const WHOLES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// The setting `timeout`: for a whole read or check.
pub fn timeout(settings: &mut Settings) -> Duration {
    match settings.duration("timeout") {
        None => WHOLE,
        Some(time) if WHOLES.contains(&time) => time,
        Some(_) => settings.wrong("timeout", "must be between `100ms` and `1m`").unwrap_or(WHOLE),
    }
}
