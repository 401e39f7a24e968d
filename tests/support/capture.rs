//! Everything that is logged while the tests run, at the finest level, to be searched for what must never be in it.

use std::{
    io,
    sync::{Mutex, Once, PoisonError},
};
use tracing_subscriber::{Layer, filter::filter_fn, fmt::format::FmtSpan, layer::SubscriberExt};

static CAPTURED: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static ONCE: Once = Once::new();

struct Writer;

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        CAPTURED.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What goes through the `log` crate: reqwest, rustls and others.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {} {}\n", record.level(), record.target(), record.args());
        let _ = io::Write::write(&mut Writer, line.as_bytes());
    }

    fn flush(&self) {}
}

/// Begins with the events of those targets that `wanted` wants.
pub fn start(wanted: impl Fn(&str) -> bool + Send + Sync + 'static) {
    ONCE.call_once(|| {
        let lines = tracing_subscriber::fmt::layer()
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(|| Writer)
            .with_filter(filter_fn(move |event| wanted(event.target())));
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}

pub fn contains(text: &str) -> bool {
    let captured = CAPTURED.lock().unwrap_or_else(PoisonError::into_inner);
    captured.windows(text.len()).any(|window| window == text.as_bytes())
}
