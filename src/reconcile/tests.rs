//! The loop over a driver, in paused time: an hour passes in no time, and nothing depends on the machine.

use super::*;
use crate::driver::{State, workbench::Bench, workbench::down};
use tokio::task::JoinHandle;

struct Running {
    bench: Bench,
    pushes: mpsc::UnboundedSender<String>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn new() -> Self {
        Self::over(Bench::new().await)
    }

    fn over(mut bench: Bench) -> Self {
        let (pushes, pushed) = mpsc::unbounded_channel();
        let (cancel, (_, none)) = (CancellationToken::new(), mpsc::unbounded_channel());
        let told = std::mem::replace(&mut bench.told, none);
        let sources = Sources { driver: told, pushes: pushed };
        let task = tokio::spawn(run(bench.driver.clone(), sources, cancel.clone()));
        Self { bench, pushes, cancel, task }
    }

    /// Waits until the volume's file has `text`; returns how long that took.
    async fn until_reads(&self, name: &str, file: &str, text: &str) -> Duration {
        let began = Instant::now();
        while self.bench.read(name, file) != text {
            assert!(began.elapsed() < Duration::from_secs(3600), "`{text}` does not arrive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }

    async fn pass(&self, seconds: u64) {
        // In steps: what is due in between runs when it is due.
        for _ in 0..seconds * 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_arrives_within_one_interval() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.pass(100).await;
    running.bench.provider.put("app", "2", b"new");
    assert!(running.until_reads("v", "x", "new").await <= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn checks_are_one_for_each_secret_and_interval_and_reads_are_one_for_each_change() {
    let running = Running::new().await;
    for secret in 0..5 {
        running.bench.provider.put(&format!("s{secret}"), "1", b"x");
    }
    for n in 0..200 {
        let (name, reference) = (format!("v{n}"), format!("p://s{}", n % 5));
        running.bench.volume(&name, &[("file.x", &reference)]).await;
        running.bench.mount(&name, "a").await.unwrap();
    }
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(300).await;
    let (reads, checks) = running.bench.provider.calls();
    assert_eq!(reads, 0);
    // An interval is 27 to 30 s: 10 to 11.1 of them in 300 s.
    assert!((50..=60).contains(&checks), "{checks} checks");
    running.bench.provider.put("s3", "2", b"y");
    running.pass(31).await;
    assert_eq!(running.bench.provider.calls().0, 1);
    for n in 0..200 {
        assert_eq!(running.bench.read(&format!("v{n}"), "x"), if n % 5 == 3 { "y" } else { "x" });
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_call_for_all_of_its_secrets() {
    let running = Running::new().await;
    running.bench.provider.batch_all();
    for secret in 0..10 {
        running.bench.provider.put(&format!("s{secret}"), "1", b"x");
        running.bench.volume(&format!("v{secret}"), &[("file.x", &format!("p://s{secret}"))]).await;
        running.bench.mount(&format!("v{secret}"), "a").await.unwrap();
    }
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(300).await;
    let (_, checks) = running.bench.provider.calls();
    assert!((10..=12).contains(&checks), "{checks} checks");
}

#[tokio::test(start_paused = true)]
async fn a_push_is_followed_at_once() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app"), ("refresh", "1h")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.pass(10).await;
    running.bench.provider.put("app", "2", b"new");
    running.pushes.send("p".into()).unwrap();
    assert!(running.until_reads("v", "x", "new").await <= Duration::from_millis(100));
}

/// A check a moment before the change confirmed the value that it replaces.
#[tokio::test(start_paused = true)]
async fn pushes_in_quick_succession_are_each_followed_at_once() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app"), ("refresh", "1h")]).await;
    running.bench.mount("v", "a").await.unwrap();
    for version in 2..10 {
        let text = format!("value {version}");
        running.bench.provider.put("app", &version.to_string(), text.as_bytes());
        running.pushes.send("p".into()).unwrap();
        assert!(running.until_reads("v", "x", &text).await <= Duration::from_millis(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_is_followed_also_right_after_a_mount_or_a_check() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app"), ("refresh", "1h")]).await;
    running.bench.mount("v", "a").await.unwrap();
    for (version, text) in [("2", "newer"), ("3", "newest")] {
        tokio::time::sleep(Duration::from_millis(50)).await;
        running.bench.provider.put("app", version, text.as_bytes());
        running.pushes.send("p".into()).unwrap();
        assert!(running.until_reads("v", "x", text).await <= Duration::from_millis(100));
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_are_checked_on_when_their_provider_can_tell_them_together_no_more_or_again() {
    let running = Running::new().await;
    running.bench.provider.batch_all();
    for secret in 0..5 {
        running.bench.provider.put(&format!("s{secret}"), "1", b"x");
        running.bench.volume(&format!("v{secret}"), &[("file.x", &format!("p://s{secret}"))]).await;
        running.bench.mount(&format!("v{secret}"), "a").await.unwrap();
    }
    running.pass(60).await;
    running.bench.provider.batch_none();
    running.pass(60).await;
    running.bench.provider.put("s3", "2", b"y");
    assert!(running.until_reads("v3", "x", "y").await <= Duration::from_secs(31));
    running.bench.provider.calls();
    running.pass(300).await;
    let (_, checks) = running.bench.provider.calls();
    assert!((50..=60).contains(&checks), "{checks} checks, each secret by itself");
    running.bench.provider.batch_all();
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(300).await;
    let (_, checks) = running.bench.provider.calls();
    assert!((10..=12).contains(&checks), "{checks} checks, all together again");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_check_does_not_end_the_checks() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.bench.provider.panic_once();
    running.pass(31).await;
    running.bench.provider.put("app", "2", b"new");
    assert!(running.until_reads("v", "x", "new").await <= Duration::from_secs(100));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_asked_about_less_and_less_often_and_its_end_is_seen_within_an_interval() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app"), ("refresh", "60s")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.pass(61).await;
    running.bench.provider.fail(down());
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(600).await;
    let (_, checks) = running.bench.provider.calls();
    assert!((8..=20).contains(&checks), "{checks} checks in ten minutes");
    assert_eq!(running.bench.status("v").state, State::Stale);
    running.bench.provider.put("app", "2", b"new");
    running.bench.provider.fail(None);
    assert!(running.until_reads("v", "x", "new").await <= Duration::from_secs(60));
    assert_eq!(running.bench.status("v").state, State::Current);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_checked_that_nobody_has_mounted() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"x");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.bench.unmount("v", "a").await;
    running.pass(60).await;
    running.bench.provider.calls();
    running.pass(600).await;
    assert_eq!(running.bench.provider.calls(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_what_has_begun() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.pass(1).await;
    running.bench.provider.put("app", "2", b"new");
    running.bench.provider.delay(Duration::from_secs(3));
    running.pushes.send("p".into()).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    running.cancel.cancel();
    running.task.await.unwrap();
    assert_eq!(running.bench.provider.calls().1, 1, "the check that had begun has ended");
}
