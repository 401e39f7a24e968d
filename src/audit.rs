//! Who was given which secret: one line of JSON for each delivery of a secret to a container.
//!
//! A secret is delivered when a volume is mounted, before it is known for which container: the engine's word of that follows. A
//! mount waits here for its container, for a bounded time, and is then recorded without one, which the record says.
//!
//! # Guarantees
//! - No value: references, versions, names.
//! - What `DSO_LOG` lets through makes no difference to it.
//!
//! # Caveats
//! - Of two containers that start within the same moment with the same volume, the records may have each other's mount ID; both
//!   have been given the same.

use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// How long a mount waits for the engine's word of its container.
pub const WORD: Duration = Duration::from_secs(10);
/// Mounts that wait; the oldest is recorded without its container when there are more.
const WAITING: usize = 1024;
/// A file that has become longer is set aside as `….1`, in place of the one before.
const LONGEST: u64 = 16 << 20;
/// A container's start is noted by the engine's clock, after the mount.
const BLUR: Duration = Duration::from_secs(1);

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// stdout, which the engine puts into its own log: the journal, on most machines.
    Log,
    /// `audit/audit.jsonl` in the plugin's data folder.
    File,
}

/// Does nothing until it is opened.
#[derive(Default)]
pub struct Audit {
    state: Mutex<State>,
}

/// Secrets that were given to a container, or were not because of a failure.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub volume: String,
    pub generation: u64,
    pub cause: &'static str,
    /// The engine's ID of the mount.
    pub mount: Option<String>,
    pub secrets: Vec<Delivered>,
    /// The class of the failure, if it failed.
    pub failure: Option<&'static str>,
}

/// One secret, and the files that are made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivered {
    pub secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub files: Vec<String>,
}

/// A container, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recipient {
    pub name: String,
    pub id: String,
    /// The digest of its image.
    pub image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose_project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose_service: Option<String>,
    #[serde(skip)]
    pub started: Option<SystemTime>,
}

type Sink = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

#[derive(Default)]
struct State {
    sink: Option<Sink>,
    waiting: VecDeque<Mounted>,
    /// Starts of containers that have a record already, by container.
    recorded: BTreeMap<String, SystemTime>,
}

struct Mounted {
    delivery: Delivery,
    at: SystemTime,
    since: Instant,
}

#[derive(Serialize)]
struct Record<'a> {
    audit: &'static str,
    time: String,
    volume: &'a str,
    generation: u64,
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount: Option<&'a str>,
    #[serde(flatten)]
    secret: &'a Delivered,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    container: Option<&'a Recipient>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

// === impl Audit ===

impl Audit {
    /// Records from now on; `data` is the plugin's data folder.
    pub fn open(&self, to: Destination, data: &Path) -> io::Result<()> {
        let sink: Sink = match to {
            Destination::Log => Box::new(|line| {
                let mut out = io::stdout().lock();
                writeln!(out, "{line}")?;
                out.flush()
            }),
            Destination::File => {
                let mut log = LogFile::open(data.join("audit"))?;
                Box::new(move |line| log.write(line))
            }
        };
        self.record_to(sink);
        Ok(())
    }

    pub fn record_to(&self, sink: Sink) {
        self.lock().sink = Some(sink);
    }

    pub fn is_open(&self) -> bool {
        self.lock().sink.is_some()
    }

    /// A volume was mounted, for a container that is not known yet.
    pub fn mounted(&self, delivery: Delivery) {
        let mut state = self.lock();
        if state.sink.is_none() {
            return;
        }
        if state.waiting.len() == WAITING
            && let Some(oldest) = state.waiting.pop_front()
        {
            state.write(&oldest.delivery, oldest.at, None, Some("too many mounts waited for the engine's word"));
        }
        state.waiting.push_back(Mounted { delivery, at: SystemTime::now(), since: Instant::now() });
    }

    /// A mount failed: there is no container to wait for.
    pub fn failed(&self, delivery: &Delivery) {
        self.lock().write(delivery, SystemTime::now(), None, None);
    }

    /// Containers that have the volume were given this while they run.
    pub fn changed(&self, delivery: &Delivery, recipients: &[Recipient]) {
        let (mut state, now) = (self.lock(), SystemTime::now());
        for recipient in recipients {
            state.write(delivery, now, Some(recipient), None);
        }
        if recipients.is_empty() {
            state.write(delivery, now, None, Some("the engine has not told of a container that has the volume"));
        }
    }

    /// These containers have the volume, as the engine says: those that began after a mount are whom it was for.
    pub fn seen(&self, volume: &str, recipients: &[Recipient]) {
        let mut state = self.lock();
        let mut started: Vec<_> = recipients.iter().filter_map(|one| Some((one.started?, one))).collect();
        started.sort_by_key(|(at, _)| *at);
        for (at, recipient) in started {
            let is_recorded = state.recorded.get(&recipient.id).is_some_and(|recorded| *recorded >= at);
            let is_for = |mounted: &Mounted| mounted.delivery.volume == volume && mounted.at <= at + BLUR;
            let found = state.waiting.iter().position(is_for).filter(|_| !is_recorded);
            let Some(mounted) = found.and_then(|found| state.waiting.remove(found)) else { continue };
            state.recorded.insert(recipient.id.clone(), at);
            state.write(&mounted.delivery, mounted.at, Some(recipient), None);
        }
    }

    /// Forgets containers that are not there any more.
    pub fn keep(&self, containers: &BTreeSet<String>) {
        self.lock().recorded.retain(|id, _| containers.contains(id));
    }

    /// Records what has waited long enough; at the end of the process, all.
    pub fn expire(&self, all: bool) {
        let mut state = self.lock();
        while state.waiting.front().is_some_and(|oldest| all || oldest.since.elapsed() >= WORD) {
            let Some(oldest) = state.waiting.pop_front() else { return };
            let reason =
                if all { "the plugin ended first" } else { "the engine has not told of its container within 10s" };
            state.write(&oldest.delivery, oldest.at, None, Some(reason));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn write(&mut self, of: &Delivery, at: SystemTime, container: Option<&Recipient>, reason: Option<&str>) {
        let Some(sink) = &mut self.sink else { return };
        for secret in &of.secrets {
            let record = Record {
                audit: "delivery",
                time: humantime::format_rfc3339_millis(at).to_string(),
                volume: &of.volume,
                generation: of.generation,
                cause: of.cause,
                mount: of.mount.as_deref(),
                secret,
                result: if of.failure.is_some() { "failed" } else { "delivered" },
                class: of.failure,
                container,
                reason,
            };
            if let Err(error) = sink(&serde_json::to_string(&record).unwrap_or_default()) {
                tracing::error!(volume = of.volume, secret = secret.secret, %error, "a delivery could not be recorded");
            }
        }
    }
}

/// A file that does not grow for ever.
struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
}

// === impl LogFile ===

impl LogFile {
    fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let path = dir.join("audit.jsonl");
        let file = append(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, file, length })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.length + line.len() as u64 >= LONGEST {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
            (self.file, self.length) = (append(&self.path)?, 0);
        }
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    type Lines = Arc<Mutex<Vec<Value>>>;

    fn audit() -> (Audit, Lines) {
        let (audit, lines) = (Audit::default(), Lines::default());
        let kept = lines.clone();
        audit.record_to(Box::new(move |line| {
            kept.lock().unwrap().push(serde_json::from_str(line).unwrap());
            Ok(())
        }));
        (audit, lines)
    }

    fn delivery(mount: &str) -> Delivery {
        let secrets = vec![Delivered { secret: "p://app".into(), version: Some("7".into()), files: vec!["x".into()] }];
        Delivery {
            volume: "v".into(),
            generation: 1,
            cause: "mount",
            mount: Some(mount.into()),
            secrets,
            failure: None,
        }
    }

    fn recipient(id: &str, started: Option<SystemTime>) -> Recipient {
        let (compose_project, compose_service) = (Some("shop".into()), None);
        Recipient {
            name: format!("name-{id}"),
            id: id.into(),
            image: "sha256:1".into(),
            compose_project,
            compose_service,
            started,
        }
    }

    fn taken(lines: &Lines) -> Vec<(Value, Value, Value)> {
        let lines = std::mem::take(&mut *lines.lock().unwrap());
        lines
            .into_iter()
            .map(|line| (line["mount"].clone(), line["container"]["id"].clone(), line["reason"].clone()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_mount_is_recorded_with_the_container_that_began_after_it_each_start_once() {
        let (audit, lines) = audit();
        let now = SystemTime::now();
        let old = recipient("old", Some(now - Duration::from_secs(60)));
        audit.mounted(delivery("m1"));
        audit.seen("w", &[recipient("a", Some(now))]);
        audit.seen("v", &[old.clone(), recipient("created", None)]);
        assert_eq!(taken(&lines), [], "none of them began after it");
        audit.seen("v", &[old.clone(), recipient("a", Some(now))]);
        audit.mounted(delivery("m2"));
        audit.seen("v", &[old, recipient("a", Some(now))]);
        assert_eq!(taken(&lines), [(json!("m1"), json!("a"), Value::Null)], "its start has a record");
        audit.seen("v", &[recipient("a", Some(now + Duration::from_secs(5)))]);
        assert_eq!(taken(&lines), [(json!("m2"), json!("a"), Value::Null)], "it was started again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_container_is_told_of_is_recorded_without_one_and_says_so() {
        let (audit, lines) = audit();
        audit.mounted(delivery("m1"));
        audit.expire(false);
        assert_eq!(taken(&lines), []);
        tokio::time::advance(WORD).await;
        audit.mounted(delivery("m2"));
        audit.expire(false);
        let late = json!("the engine has not told of its container within 10s");
        assert_eq!(taken(&lines), [(json!("m1"), Value::Null, late)]);
        audit.expire(true);
        assert_eq!(taken(&lines), [(json!("m2"), Value::Null, json!("the plugin ended first"))]);
        for n in 0..=WAITING {
            audit.mounted(delivery(&n.to_string()));
        }
        assert_eq!(taken(&lines)[0].0, "0", "they are bounded");
    }

    #[test]
    fn a_record_says_what_was_given_to_whom() {
        let (audit, lines) = audit();
        let changed = Delivery { cause: "rotation", mount: None, ..delivery("") };
        audit.changed(&changed, &[recipient("a", None)]);
        audit.failed(&Delivery { failure: Some("timeout"), ..delivery("m") });
        let mut lines = std::mem::take(&mut *lines.lock().unwrap());
        lines
            .iter_mut()
            .for_each(|line| assert!(humantime::parse_rfc3339(line["time"].take().as_str().unwrap()).is_ok()));
        let container = json!({"name": "name-a", "id": "a", "image": "sha256:1", "compose_project": "shop"});
        let given = json!({
            "audit": "delivery", "time": null, "volume": "v", "generation": 1, "cause": "rotation", "secret": "p://app",
            "version": "7", "files": ["x"], "result": "delivered", "container": container,
        });
        assert_eq!(lines[0], given);
        assert_eq!(
            (&lines[1]["result"], &lines[1]["class"], &lines[1]["container"]),
            (&json!("failed"), &json!("timeout"), &Value::Null)
        );
    }

    #[test]
    fn a_file_is_ours_alone_goes_on_after_a_start_and_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit/audit.jsonl");
        for _ in 0..2 {
            let audit = Audit::default();
            assert!(!audit.is_open());
            audit.failed(&delivery("before it is opened"));
            audit.open(Destination::File, dir.path()).unwrap();
            audit.failed(&delivery("m"));
        }
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains(r#""mount":"m""#)).count(), 2, "{text}");
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap()) & 0o777, 0o600);
        let mut log = LogFile::open(dir.path().join("audit")).unwrap();
        let line = "x".repeat(1 << 20);
        for _ in 0..40 {
            log.write(&line).unwrap();
        }
        let length = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(length(&path) < LONGEST && length(&path.with_extension("jsonl.1")) < LONGEST);
        assert_eq!(fs::read_dir(dir.path().join("audit")).unwrap().count(), 2);
    }
}
