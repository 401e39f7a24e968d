//! What can be measured, in Prometheus' text format.
//!
//! Names have their unit, counters end in `_total`, and a label has few values: a provider's instance, a result, a class of
//! failure. A volume's name is the one that may have many, and is bounded: see [`LISTED`].

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Volumes that have metrics of their own; the others are counted.
pub const LISTED: usize = 200;

/// How a call of the cache got its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It was held, and young enough.
    Hit,
    /// The provider was asked.
    Miss,
    /// Somebody else was asking the provider.
    Shared,
    /// The provider is out of reach, and the last known value was not too old.
    LastKnown,
}

/// One volume, as it is now.
#[derive(Clone, Debug)]
pub struct VolumeSample {
    pub name: String,
    pub state: &'static str,
    /// When its files were written, and when a provider last confirmed the oldest of them; for a mounted one.
    pub published: Option<SystemTime>,
    pub confirmed: Option<SystemTime>,
}

/// Everything that is measured in this process.
pub struct Metrics {
    registry: Registry,
    mounts: IntCounterVec,
    mount_failures: IntCounterVec,
    reads: HistogramVec,
    checks: HistogramVec,
    provider_errors: IntCounterVec,
    cache: IntCounterVec,
    rotations: IntCounterVec,
    rollouts: Histogram,
    event_lag: Histogram,
    event_connections: IntCounter,
    is_connected: IntGauge,
    queue: IntGaugeVec,
    queue_wait: Histogram,
    events_lost: IntCounter,
    volumes: IntGaugeVec,
    unlisted: IntGauge,
    published: GaugeVec,
    confirmed: GaugeVec,
    is_stale: IntGaugeVec,
    /// Held by who sets what is looked up only when it is asked for.
    gathering: Mutex<()>,
}

/// One thing to do, while it waits or runs.
pub struct InQueue(IntGauge);

/// Of calls over a network.
const CALL: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Of rollouts, which wait for health checks.
const ROLLOUT: [f64; 9] = [1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Of events on one machine.
const LAG: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// Classes of mounts that failed.
pub const FAILURES: [&str; 16] = [
    "options",
    "render",
    "projection",
    "state",
    "out_of_sight",
    "unreachable",
    "tls",
    "timeout",
    "unavailable",
    "throttled",
    "unauthenticated",
    "forbidden",
    "not_found",
    "redirected",
    "malformed",
    "misconfigured",
];

const STATES: [&str; 5] = ["idle", "current", "stale", "failed", "orphaned"];

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let all = Group(&registry);
        let build = all.gauges("dso_build_info", "The version that runs; always 1", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            mounts: all.counters(
                "dso_mounts_total",
                "Mounts by result: fresh (filled for it), joined (it was mounted already), failed",
                &["result"],
            ),
            mount_failures: all.counters("dso_mount_failures_total", "Mounts that failed, by class", &["class"]),
            reads: all.histograms(
                "dso_provider_read_duration_seconds",
                "How long reads of a secret took, by provider instance",
                &CALL,
            ),
            checks: all.histograms(
                "dso_provider_check_duration_seconds",
                "How long checks of versions took, by provider instance; one may be for many secrets",
                &CALL,
            ),
            provider_errors: all.counters(
                "dso_provider_errors_total",
                "Reads and checks that failed, by provider instance and class; a check of many secrets counts for each",
                &["provider", "class"],
            ),
            cache: all.counters(
                "dso_cache_requests_total",
                "How values were had: hit (held), miss (the provider was asked), shared (another's call was waited for), \
                 last_known (the provider is out of reach)",
                &["result"],
            ),
            rotations: all.counters("dso_rotations_total", "Changes of a volume's files, by what became of them", &["result"]),
            rollouts: all.histogram(
                "dso_rollout_duration_seconds",
                "How long it took from the files' change until all containers were told, or put back",
                &ROLLOUT,
            ),
            event_lag: all.histogram("dso_engine_event_lag_seconds", "How old the engine's events were when they came", &LAG),
            event_connections: all.counter(
                "dso_engine_event_connections_total",
                "How often the stream of the engine's events was begun: at the start, after each cut, and after long silence",
            ),
            is_connected: all.gauge("dso_engine_event_connected", "Whether the stream of the engine's events stands"),
            queue: all.gauges(
                "dso_queue_keys",
                "Things to do: waiting (due, and not begun), running, planned for later",
                &["state"],
            ),
            queue_wait: all.histogram(
                "dso_queue_wait_duration_seconds",
                "How long what was due had to wait until it was begun",
                &LAG,
            ),
            events_lost: all.counter("dso_events_lost_total", "Events that slow listeners of the plugin's socket have lost"),
            volumes: all.gauges("dso_volumes", "Volumes by state", &["state"]),
            unlisted: all.gauge(
                "dso_volumes_unlisted",
                "Mounted volumes without metrics of their own: 200 have them, stale ones first",
            ),
            published: all.floats(
                "dso_volume_published_timestamp_seconds",
                "When the files that a mounted volume shows were written",
                &["volume"],
            ),
            confirmed: all.floats(
                "dso_volume_confirmed_timestamp_seconds",
                "When providers last confirmed the oldest of the versions that a mounted volume shows",
                &["volume"],
            ),
            is_stale: all.gauges(
                "dso_volume_stale",
                "Whether a mounted volume shows other files than its provider has, or the provider cannot tell",
                &["volume"],
            ),
            gathering: Mutex::default(),
            registry,
        };
        metrics.begin();
        metrics
    }
}

impl Metrics {
    /// Makes counters of which all values are known begin with 0, as `rate()` wants it.
    fn begin(&self) {
        for result in ["fresh", "joined", "failed"] {
            self.mounts.with_label_values(&[result]);
        }
        for class in FAILURES {
            self.mount_failures.with_label_values(&[class]);
        }
        for served in [Served::Hit, Served::Miss, Served::Shared, Served::LastKnown] {
            self.cache.with_label_values(&[served.as_str()]);
        }
        for result in ["published", "verified", "unverified", "rolled_back", "kept", "deferred"] {
            self.rotations.with_label_values(&[result]);
        }
        for state in ["waiting", "running", "planned"] {
            self.queue.with_label_values(&[state]);
        }
    }

    /// A mount succeeded: `fresh` or `joined`.
    pub fn mounted(&self, how: &str) {
        self.mounts.with_label_values(&[how]).inc();
    }

    pub fn mount_failed(&self, class: &str) {
        self.mounts.with_label_values(&["failed"]).inc();
        self.mount_failures.with_label_values(&[class]).inc();
    }

    pub fn read(&self, provider: &str, took: Duration) {
        self.reads.with_label_values(&[provider]).observe(took.as_secs_f64());
    }

    pub fn checked(&self, provider: &str, took: Duration) {
        self.checks.with_label_values(&[provider]).observe(took.as_secs_f64());
    }

    pub fn provider_failed(&self, provider: &str, class: &str) {
        self.provider_errors.with_label_values(&[provider, class]).inc();
    }

    pub fn served(&self, how: Served) {
        self.cache.with_label_values(&[how.as_str()]).inc();
    }

    /// A change was decided on; `took` where containers were to be told.
    pub fn rotated(&self, result: &str, took: Option<Duration>) {
        self.rotations.with_label_values(&[&result.replace(' ', "_")]).inc();
        if let Some(took) = took {
            self.rollouts.observe(took.as_secs_f64());
        }
    }

    /// The engine told of something that happened at `at`.
    pub fn heard(&self, at: SystemTime) {
        self.event_lag.observe(SystemTime::now().duration_since(at).unwrap_or_default().as_secs_f64());
    }

    /// The stream of the engine's events stands, or was cut.
    pub fn connected(&self, is_connected: bool) {
        if is_connected {
            self.event_connections.inc();
        }
        self.is_connected.set(is_connected.into());
    }

    /// So many things are planned for later.
    pub fn planned(&self, number: usize) {
        self.queue.with_label_values(&["planned"]).set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// One thing to do is in this state, until the answer is dropped.
    pub fn in_queue(&self, state: &str) -> InQueue {
        let gauge = self.queue.with_label_values(&[state]);
        gauge.inc();
        InQueue(gauge)
    }

    /// What was due had to wait so long.
    pub fn waited(&self, time: Duration) {
        self.queue_wait.observe(time.as_secs_f64());
    }

    /// Everything, with the volumes as they are now, and how many events were lost until now.
    pub fn exposition(&self, mut volumes: Vec<VolumeSample>, lost: u64) -> String {
        let _one = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        self.events_lost.inc_by(lost.saturating_sub(self.events_lost.get()));
        for state in STATES {
            let number = volumes.iter().filter(|volume| volume.state == state).count();
            self.volumes.with_label_values(&[state]).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        volumes.retain(|volume| volume.published.is_some());
        volumes.sort_by(|a, b| (a.state != "stale", &a.name).cmp(&(b.state != "stale", &b.name)));
        self.unlisted.set(i64::try_from(volumes.len().saturating_sub(LISTED)).unwrap_or(i64::MAX));
        for gauges in [&self.published, &self.confirmed] {
            gauges.reset();
        }
        self.is_stale.reset();
        for volume in volumes.iter().take(LISTED) {
            let label = [volume.name.as_str()];
            let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            for (gauges, at) in [(&self.published, volume.published), (&self.confirmed, volume.confirmed)] {
                if let Some(at) = at {
                    gauges.with_label_values(&label).set(seconds(at));
                }
            }
            self.is_stale.with_label_values(&label).set((volume.state == "stale").into());
        }
        // It writes to memory, and every name was checked when it was registered.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

// === impl InQueue ===

impl Drop for InQueue {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl Served ===

impl Served {
    fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Shared => "shared",
            Self::LastKnown => "last_known",
        }
    }
}

/// Makes metrics that belong to a registry. Their names are written here alone, so that a fault of one shows in every test.
struct Group<'a>(&'a Registry);

impl Group<'_> {
    fn add<M: Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        made.and_then(|metric| self.0.register(Box::new(metric.clone())).map(|()| metric))
            .unwrap_or_else(|error| unreachable!("a metric's name: {error}"))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn floats(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    /// By provider instance.
    fn histograms(&self, name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &["provider"]))
    }
}

#[cfg(test)]
mod tests;
