use super::{log_file::LONGEST, *};
use serde_json::{Value, json};
use std::{fs, sync::Arc};

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
    let secrets = vec![Delivered {
        secret: "p://app".into(),
        version: Some("7".into()),
        identity: Some("a role".into()),
        files: vec!["x".into()],
    }];
    Delivery { volume: "v".into(), generation: 1, cause: "mount", mount: Some(mount.into()), secrets, failure: None }
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
    audit.heard(true);
    audit.mounted(delivery("m1"));
    audit.expire();
    assert_eq!(taken(&lines), []);
    tokio::time::advance(WORD).await;
    audit.mounted(delivery("m2"));
    audit.expire();
    let late = json!("the engine has not told of its container within 10s");
    assert_eq!(taken(&lines), [(json!("m1"), Value::Null, late)]);
    audit.end();
    assert_eq!(taken(&lines), [(json!("m2"), Value::Null, json!("the plugin ended first"))]);
    for n in 0..=WAITING {
        audit.mounted(delivery(&n.to_string()));
    }
    assert_eq!(taken(&lines)[0].0, "0", "they are bounded");
}

#[tokio::test(start_paused = true)]
async fn a_container_with_two_volumes_is_recorded_with_both() {
    let (audit, lines) = audit();
    let web = recipient("web", Some(SystemTime::now()));
    audit.mounted(delivery("m1"));
    audit.mounted(Delivery { volume: "w".into(), ..delivery("m2") });
    for volume in ["v", "w", "v"] {
        audit.seen(volume, std::slice::from_ref(&web));
    }
    let both = [(json!("m1"), json!("web"), Value::Null), (json!("m2"), json!("web"), Value::Null)];
    assert_eq!(taken(&lines), both);
    audit.keep(&BTreeSet::from(["web".into()]));
    audit.mounted(delivery("m3"));
    audit.seen("v", &[web]);
    assert_eq!(taken(&lines), [], "its start has a record, and it is still there");
}

#[tokio::test(start_paused = true)]
async fn while_the_engine_is_not_heard_a_mount_waits_longer_and_not_for_ever() {
    let (audit, lines) = audit();
    for is_cut in [false, true] {
        if is_cut {
            audit.heard(true);
            audit.heard(false);
        }
        audit.mounted(delivery("m"));
        tokio::time::advance(WORD * 2).await;
        audit.expire();
        assert_eq!(taken(&lines), [], "its container may be told of yet");
        tokio::time::advance(UNHEARD).await;
        audit.expire();
        let [(_, container, reason)] = &taken(&lines)[..] else { panic!("one record") };
        assert!(container.is_null() && reason.as_str().unwrap().contains("out of reach"), "{reason}");
    }
}

#[test]
fn what_swarm_asks_for_is_recorded_with_its_service_and_task() {
    let (audit, lines) = audit();
    let task = Task { swarm_secret: "db".into(), service: "shop".into(), task: "shop.1".into() };
    audit.handed(&Handed { task, secrets: delivery("").secrets, failure: Some("forbidden") });
    let mut line = lines.lock().unwrap().remove(0);
    line["time"].take();
    let wanted = json!({
        "audit": "delivery", "time": null, "swarm_secret": "db", "service": "shop", "task": "shop.1", "cause": "swarm",
        "secret": "p://app", "version": "7", "identity": "a role", "files": ["x"], "result": "failed", "class": "forbidden", "container": null,
    });
    assert_eq!(line, wanted);
}

#[test]
fn a_file_that_was_set_aside_and_not_begun_anew_is_begun_by_the_next_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogFile::open(dir.path().join("audit")).unwrap();
    let line = "x".repeat(LONGEST as usize / 2);
    log.write(&line).unwrap();
    let path = dir.path().join("audit/audit.jsonl");
    fs::rename(&path, dir.path().join("audit/audit.jsonl.1")).unwrap();
    for _ in 0..2 {
        log.write(&line).unwrap();
    }
    assert!(path.exists());
}

#[test]
fn a_record_says_what_was_given_to_whom() {
    let (audit, lines) = audit();
    let changed = Delivery { cause: "rotation", mount: None, ..delivery("") };
    audit.changed(&changed, &[recipient("a", None)]);
    audit.failed(&Delivery { failure: Some("timeout"), ..delivery("m") });
    let mut lines = std::mem::take(&mut *lines.lock().unwrap());
    lines.iter_mut().for_each(|line| assert!(humantime::parse_rfc3339(line["time"].take().as_str().unwrap()).is_ok()));
    let container = json!({"name": "name-a", "id": "a", "image": "sha256:1", "compose_project": "shop"});
    let given = json!({
        "audit": "delivery", "time": null, "volume": "v", "generation": 1, "cause": "rotation", "secret": "p://app",
        "version": "7", "identity": "a role", "files": ["x"], "result": "delivered", "container": container,
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
