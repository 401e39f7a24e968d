//! The provider against real files: what it answers, and when it tells of a change.

use super::*;
use crate::{host::HostFiles, secret::SecretRef};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};
use tokio::{sync::mpsc, time::timeout};

/// A host's folder, the provider that reads it, and the store as its administrator changes it.
struct World {
    dir: tempfile::TempDir,
    host: HostFiles,
    provider: Arc<dyn Provider>,
}

impl World {
    /// With a folder that is not there yet.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = HostFiles::on_host(dir.path().join("etc/dso"));
        let provider = Local::build("local", toml::Table::new(), &host).unwrap();
        Self { dir, host, provider }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("etc/dso").join(name)
    }

    fn set(&self, name: &str, value: &str) {
        let store = LocalStore::open("local", toml::Table::new(), &self.host).unwrap();
        store.set(&store.target(name).unwrap(), SecretValue::new(value.as_bytes().to_vec())).unwrap();
    }

    fn remove(&self, name: &str) {
        let store = LocalStore::open("local", toml::Table::new(), &self.host).unwrap();
        assert!(store.remove(&[name]).unwrap()[0].is_ok());
    }

    async fn read(&self, name: &str) -> Result<(String, String), ProviderError> {
        let secret = self.provider.read(&id(name)).await?;
        Ok((String::from_utf8(secret.value.expose().to_vec()).unwrap(), secret.version.label().into()))
    }

    async fn fails(&self, name: &str) -> (ErrorKind, String) {
        let error = self.read(name).await.unwrap_err();
        (error.kind(), error.to_string())
    }
}

fn id(name: &str) -> Arc<SecretId> {
    format!("local://{name}").parse::<SecretRef>().unwrap().id
}

fn pair(value: &str, version: &str) -> (String, String) {
    (value.into(), version.into())
}

#[tokio::test]
async fn a_change_is_read_at_the_next_call_without_any_push() {
    let world = World::new();
    world.set("a", "one");
    assert_eq!(world.read("a").await.unwrap(), pair("one", "1"));
    for n in 2..30 {
        // Same length, and as fast as the clock of the file system ticks.
        let value = format!("{n:03}");
        world.set("a", &value);
        assert_eq!(world.read("a").await.unwrap(), pair(&value, &n.to_string()));
    }
    world.remove("a");
    assert_eq!(world.fails("a").await.0, ErrorKind::NotFound);
}

#[tokio::test]
async fn versions_of_all_secrets_come_from_one_look() {
    let world = World::new();
    world.set("a", "x");
    world.set("b", "y");
    let ids = [id("b"), id("nope"), id("a")];
    assert_eq!(world.provider.batch(&ids[0]), world.provider.batch(&ids[2]));
    let found = world.provider.versions(&ids).await;
    let label = |n: usize| match &found[n] {
        Ok(Observed::Version(version)) => version.label().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!((label(0), label(2)), ("2".into(), "1".into()));
    assert_eq!(found[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    let read = world.provider.read(&ids[0]).await.unwrap();
    assert_eq!(*found[0].as_ref().unwrap(), Observed::Version(read.version));
}

#[tokio::test]
async fn a_store_made_again_has_other_versions_under_the_same_labels() {
    let world = World::new();
    world.set("a", "x");
    let old = world.provider.read(&id("a")).await.unwrap().version;
    fs::remove_file(world.path("local.age")).unwrap();
    world.set("a", "x");
    let new = world.provider.read(&id("a")).await.unwrap().version;
    assert_eq!(old.label(), new.label());
    assert_ne!(old, new);
}

#[test]
fn a_parameter_is_refused() {
    let with = "local://a?version=1".parse::<SecretRef>().unwrap().id;
    assert_eq!(
        World::new().provider.validate(&with).unwrap_err(),
        "provider `local` knows no parameter, and `version` was given"
    );
}

#[tokio::test]
async fn everything_that_can_be_wrong_with_the_files_has_its_own_class_and_message() {
    let world = World::new();
    let no_store =
        "there is no local store at `/etc/dso/local.age` yet: make it on the host with `docker dso secret set NAME`";
    assert_eq!(world.fails("a").await, (ErrorKind::NotFound, no_store.into()));

    world.set("app/db", "hunter2");
    let near = "the local store has no secret `app/bd`: did you mean `app/db`?";
    assert_eq!(world.fails("app/bd").await, (ErrorKind::NotFound, near.into()));
    let far = "the local store has no secret `else`: set it with `docker dso secret set else`";
    assert_eq!(world.fails("else").await, (ErrorKind::NotFound, far.into()));

    let (store, identity) = (world.path("local.age"), world.path("identity"));
    let (sealed, key) = (fs::read(&store).unwrap(), fs::read(&identity).unwrap());
    let mode = |mode| fs::set_permissions(&identity, fs::Permissions::from_mode(mode)).unwrap();
    // The store's file is written anew in each case, as what was read last still counts while it is the same.
    let check = async |sealed: &[u8], kind, message: &str| {
        fs::write(&store, sealed).unwrap();
        let (found, text) = world.fails("app/db").await;
        assert!(found == kind && text.starts_with(message), "{found:?} {text}");
    };
    mode(0o644);
    check(
        &sealed,
        ErrorKind::Misconfigured,
        "the identity file `/etc/dso/identity` is open to other users (mode 0644): run `chmod 600 /etc/dso/identity`",
    )
    .await;
    mode(0o600);
    check(b"", ErrorKind::Malformed, "the local store `/etc/dso/local.age` is an empty file").await;
    let damaged = "the local store `/etc/dso/local.age` is damaged or cut short: restore it from a backup";
    check(b"not age at all", ErrorKind::Malformed, damaged).await;
    for end in [1, 50, sealed.len() - 1] {
        check(&sealed[..end], ErrorKind::Malformed, damaged).await;
    }
    let mut flipped = sealed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    check(&flipped, ErrorKind::Malformed, damaged).await;

    fs::write(&identity, seal::generate().text()).unwrap();
    check(&sealed, ErrorKind::Unauthenticated, "the identity in `/etc/dso/identity` does not open the store").await;
    fs::write(&identity, "nonsense").unwrap();
    check(
        &sealed,
        ErrorKind::Misconfigured,
        "the identity file `/etc/dso/identity` does not hold an age identity alone",
    )
    .await;
    fs::remove_file(&identity).unwrap();
    check(&sealed, ErrorKind::Unauthenticated, "the identity file `/etc/dso/identity` is missing").await;
    fs::create_dir(&identity).unwrap();
    check(&sealed, ErrorKind::Misconfigured, "`/etc/dso/identity` is not a regular file").await;

    fs::remove_dir(&identity).unwrap();
    fs::write(&identity, key).unwrap();
    mode(0o400);
    fs::write(&store, &sealed).unwrap();
    assert_eq!(world.read("app/db").await.unwrap(), pair("hunter2", "1"));
}

#[tokio::test]
async fn a_pipe_in_the_stores_place_holds_nobody_up() {
    let world = World::new();
    fs::create_dir_all(world.path("")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.path("local.age"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let (kind, message) = timeout(Duration::from_secs(5), world.fails("a")).await.unwrap();
    assert_eq!((kind, &*message), (ErrorKind::Misconfigured, "`/etc/dso/local.age` is not a regular file"));
}

#[tokio::test]
async fn a_store_of_a_later_format_is_not_taken_for_damaged() {
    let world = World::new();
    world.set("a", "x");
    let place = Place::read("local", toml::Table::new(), &world.host).unwrap();
    let files = place.files().unwrap();
    let identity = seal::identity(&files.identity).unwrap().unwrap();
    fs::write(world.path("local.age"), seal::seal(&identity, br#"{"format":2}"#, &files).unwrap()).unwrap();
    let message = "the local store `/etc/dso/local.age` has format 2, and this dso knows format 1: \
                   use the version of dso that wrote it";
    assert_eq!(world.fails("a").await, (ErrorKind::Malformed, message.into()));
    // The writing side does not overwrite it either.
    let store = LocalStore::open("local", toml::Table::new(), &world.host).unwrap();
    let target = store.target("b").unwrap();
    assert!(store.set(&target, SecretValue::new(b"y".to_vec())).unwrap_err().to_string().contains("has format 2"));
}

/// A running watch, and what it tells.
struct Watching {
    told: mpsc::UnboundedReceiver<String>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Watching {
    /// Returns when the watch stands, which a probe in the nearest folder that exists shows.
    async fn start(world: &World) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let (provider, token) = (world.provider.clone(), cancel.clone());
        let task = tokio::spawn(async move { provider.run(tell, token).await });
        let mut watching = Self { told, cancel, task };
        let probe = if world.path("").exists() { world.path("identity") } else { world.dir.path().join("etc") };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            assert!(tokio::time::Instant::now() < deadline, "the watch never stood");
            if world.path("").exists() {
                let mode = fs::metadata(&probe).unwrap().permissions();
                fs::set_permissions(&probe, mode).unwrap();
            } else {
                fs::create_dir(&probe).unwrap();
                fs::remove_dir(&probe).unwrap();
            }
            if timeout(Duration::from_millis(50), watching.told.recv()).await.is_ok() {
                watching.quiet().await;
                return watching;
            }
        }
    }

    /// Waits until nothing was told for a while.
    async fn quiet(&mut self) {
        while timeout(Duration::from_millis(60), self.told.recv()).await.is_ok() {}
    }

    async fn expect(&mut self, what: &str) {
        // Far more than the 100 ms of a calm machine, far less than any refresh.
        let told = timeout(Duration::from_secs(3), self.told.recv()).await;
        assert_eq!(told.unwrap_or_else(|_| panic!("not told of: {what}")).as_deref(), Some("local"));
    }

    async fn stop(self) {
        self.cancel.cancel();
        timeout(Duration::from_secs(5), self.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn every_way_to_change_the_store_is_told_and_reading_it_is_not() {
    let world = World::new();
    world.set("a", "one");
    let mut watching = Watching::start(&world).await;
    let store = world.path("local.age");

    world.set("a", "two");
    watching.expect("set").await;
    watching.quiet().await;

    let sealed = fs::read(&store).unwrap();
    fs::write(&store, &sealed).unwrap();
    watching.expect("written in place").await;
    watching.quiet().await;

    fs::write(world.path("local.age~"), &sealed).unwrap();
    fs::rename(world.path("local.age~"), &store).unwrap();
    watching.expect("replaced as editors do").await;
    watching.quiet().await;

    fs::rename(&store, world.path("away")).unwrap();
    watching.expect("moved away").await;
    watching.quiet().await;
    fs::rename(world.path("away"), &store).unwrap();
    watching.expect("moved back").await;
    watching.quiet().await;

    world.read("a").await.unwrap();
    fs::write(world.path("another"), "x").unwrap();
    let told = timeout(Duration::from_millis(200), watching.told.recv()).await;
    assert!(told.is_err(), "told of what is no change");
    watching.stop().await;
}

#[tokio::test]
async fn a_change_is_told_within_a_tenth_of_a_second() {
    let world = World::new();
    world.set("a", "0");
    let mut watching = Watching::start(&world).await;
    let mut best = Duration::MAX;
    // The best of some: the machine that tests may be busy with something else.
    for n in 0..10 {
        world.set("a", &n.to_string());
        let since = tokio::time::Instant::now();
        watching.expect("set").await;
        best = best.min(since.elapsed());
        watching.quiet().await;
    }
    assert!(best < Duration::from_millis(100), "{best:?}");
    watching.stop().await;
}

#[tokio::test]
async fn the_folder_may_be_made_later_be_replaced_and_go() {
    let world = World::new();
    let mut watching = Watching::start(&world).await;
    assert_eq!(world.fails("a").await.0, ErrorKind::NotFound);

    world.set("a", "one");
    watching.expect("a folder made later").await;
    watching.quiet().await;
    world.set("a", "two");
    watching.expect("a change in a folder made later").await;
    watching.quiet().await;
    assert_eq!(world.read("a").await.unwrap(), pair("two", "2"));

    let (here, old) = (world.dir.path().join("etc/dso"), world.dir.path().join("etc/old"));
    fs::rename(&here, &old).unwrap();
    watching.expect("the folder moved away").await;
    watching.quiet().await;
    assert_eq!(world.fails("a").await.0, ErrorKind::NotFound);
    world.set("a", "three");
    watching.expect("another folder in its place").await;
    watching.quiet().await;
    assert_eq!(world.read("a").await.unwrap(), pair("three", "1"));
    world.set("a", "four");
    watching.expect("a change in the new folder").await;
    watching.quiet().await;

    // Not only the folder itself: what it stands in.
    fs::rename(world.dir.path().join("etc"), world.dir.path().join("gone")).unwrap();
    watching.expect("the parent moved away").await;
    watching.quiet().await;
    world.set("a", "five");
    watching.expect("all of it made again").await;
    watching.quiet().await;
    assert_eq!(world.read("a").await.unwrap(), pair("five", "1"));
    watching.stop().await;
}

#[tokio::test]
async fn many_readers_at_once_all_have_the_value() {
    let world = Arc::new(World::new());
    world.set("a", "one");
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.read("a").await.unwrap() })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), pair("one", "1"));
    }
}

#[tokio::test]
async fn a_new_key_opens_the_same_secrets_of_the_same_versions_and_the_old_one_nothing() {
    let mut world = World::new();
    world.set("a", "one");
    world.set("b", "two");
    let old = fs::read(world.path("identity")).unwrap();
    let store = LocalStore::open("local", toml::Table::new(), &world.host).unwrap();
    assert_eq!(store.rotate_key().unwrap(), world.path("identity").to_str().unwrap());
    assert_eq!(world.read("a").await.unwrap(), pair("one", "1"));
    assert_eq!(world.read("b").await.unwrap(), pair("two", "2"));
    let new = fs::read_to_string(world.path("identity")).unwrap();
    assert_eq!(new.matches("AGE-SECRET-KEY-1").count(), 1, "the old key is gone from the file");
    assert_ne!(new.as_bytes(), old);
    assert_eq!(fs::metadata(world.path("identity")).unwrap().permissions().mode() & 0o777, 0o600);
    world.set("a", "three");
    assert_eq!(world.read("a").await.unwrap(), pair("three", "3"));
    fs::write(world.path("identity"), &old).unwrap();
    world.provider = Local::build("local", toml::Table::new(), &world.host).unwrap();
    assert_eq!(world.fails("a").await.0, ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_change_of_the_key_that_was_cut_short_leaves_a_store_that_opens_and_can_be_finished() {
    let world = World::new();
    world.set("a", "one");
    let (first, sealed) =
        (fs::read_to_string(world.path("identity")).unwrap(), fs::read(world.path("local.age")).unwrap());
    let store = LocalStore::open("local", toml::Table::new(), &world.host).unwrap();
    store.rotate_key().unwrap();
    let (second, resealed) =
        (fs::read_to_string(world.path("identity")).unwrap(), fs::read(world.path("local.age")).unwrap());
    // After the first step the store is the old one, after the second the new one; both keys are there.
    for there in [&sealed, &resealed] {
        fs::write(world.path("identity"), format!("{second}{first}")).unwrap();
        fs::write(world.path("local.age"), there).unwrap();
        assert_eq!(world.read("a").await.unwrap(), pair("one", "1"));
        store.rotate_key().unwrap();
        assert_eq!(world.read("a").await.unwrap(), pair("one", "1"));
        assert_eq!(fs::read_to_string(world.path("identity")).unwrap().matches("AGE-SECRET-KEY-1").count(), 1);
    }
}

#[test]
fn who_reads_while_the_key_changes_is_never_refused() {
    let world = World::new();
    world.set("a", "one");
    let store = || LocalStore::open("local", toml::Table::new(), &world.host).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (store, mut reads) = (store(), 0);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(store.get(&store.target("a").unwrap()).unwrap().expose(), b"one");
                reads += 1;
            }
            reads
        });
        let writer = store();
        (0..100).for_each(|_| drop(writer.rotate_key().unwrap()));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 100);
    });
}
