//! The log: what informs to stdout, what failed to stderr; the engine keeps both in its own log.
//!
//! Only dso's own events are logged. The crates beneath trace requests and answers, headers and bodies: no
//! setting lets those out, so that no level of `DSO_LOG` can show a value or a token.

use crate::config::LogConfig;
use std::io;
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::filter_fn,
    fmt::{self, writer::MakeWriterExt},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Starts logging. A filter that cannot be parsed is told, and the default one holds.
pub fn start(config: &LogConfig) -> Result<(), String> {
    let parsed = EnvFilter::try_new(&config.filter);
    let fault = parsed
        .as_ref()
        .err()
        .map(|_| format!("DSO_LOG is `{}`: write it as `info` or `info,dso::driver=debug`", config.filter));
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    let writer = io::stderr.with_max_level(Level::ERROR).or_else(io::stdout);
    let format = fmt::layer().with_writer(writer).with_ansi(false);
    let own = filter_fn(|metadata| metadata.target() == "dso" || metadata.target().starts_with("dso::"));
    let layer = match config.json {
        true => format.json().flatten_event(true).with_filter(own).boxed(),
        // The engine stamps each line with its own time.
        false => format.without_time().with_filter(own).boxed(),
    };
    tracing_subscriber::registry().with(layer).with(filter).init();
    log_panics();
    fault.map_or(Ok(()), Err)
}

/// A panic's place is logged, its message is not: it may quote anything.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic: this is a fault of dso's own");
    }));
}
