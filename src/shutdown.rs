//! The end of the process: the first SIGTERM or SIGINT drains, a second one ends at once.

use std::{io, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long work that has begun may take to end: the engine kills a plugin after 10 s.
pub const GRACE: Duration = Duration::from_secs(8);

/// Cancels the token at the first signal, and exits at the second.
pub fn listen() -> io::Result<CancellationToken> {
    let cancel = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = cancel.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                token.cancel();
            }
        }
        std::process::exit(1);
    });
    Ok(cancel)
}
