mod openapi;

use super::*;
use crate::driver::{Event, workbench::Bench};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    time::Instant,
};

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_a_client_that_hangs_in_its_headers_or_its_body() {
    let dir = tempfile::tempdir().unwrap();
    let (path, tasks, cancel) = (dir.path().join("socket"), TaskTracker::new(), CancellationToken::new());
    let (_ready, driver) = watch::channel(None);
    let context = Context { driver, tasks: tasks.clone() };
    tasks.spawn(serve(bind(&path).unwrap(), context, cancel.clone()));
    let mut clients = Vec::new();
    for part in ["POST /VolumeDriver.Get HT", "POST /VolumeDriver.Get HTTP/1.1\r\nContent-Length: 50\r\n\r\n{"] {
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(part.as_bytes()).await.unwrap();
        clients.push(client);
    }
    while tasks.len() < 1 + clients.len() {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    cancel.cancel();
    tasks.close();
    timeout(Duration::from_secs(60), tasks.wait()).await.expect("it waits for them");
    assert!(began.elapsed() <= LINGER + Duration::from_secs(1), "{:?}", began.elapsed());
}

/// The socket over a driver of memory.
struct Server {
    bench: Bench,
    path: std::path::PathBuf,
    ready: watch::Sender<Option<Arc<Driver>>>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    async fn start() -> Self {
        let bench = Bench::new().await;
        let (path, tasks, cancel) =
            (bench.dir.path().join("state/socket"), TaskTracker::new(), CancellationToken::new());
        let (ready, driver) = watch::channel(Some(bench.driver.clone()));
        let context = Context { driver, tasks: tasks.clone() };
        tasks.spawn(serve(bind(&path).unwrap(), context, cancel.clone()));
        Self { bench, path, ready, cancel, tasks }
    }

    async fn send(&self, method: &str, target: &str, body: &str) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: dso\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        BufReader::new(stream)
    }

    /// Status and body of a whole answer.
    async fn ask(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let mut answer = String::new();
        self.send(method, target, body).await.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    async fn until_listeners(&self, number: usize) {
        let reached = async {
            while self.bench.driver.events().listeners() != number {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), reached).await.expect("as many listeners");
    }
}

/// The next event of a stream.
async fn next(stream: &mut BufReader<UnixStream>) -> Option<Value> {
    let mut line = String::new();
    while !line.starts_with('{') {
        line.clear();
        let read = timeout(Duration::from_secs(20), stream.read_line(&mut line)).await.expect("a line, or the end");
        if read.unwrap() == 0 {
            return None;
        }
    }
    Some(serde_json::from_str(&line).unwrap())
}

#[tokio::test]
async fn what_is_not_asked_rightly_is_refused_with_what_to_do() {
    let server = Server::start().await;
    for (method, target, body, status, message) in [
        ("GET", "/dso/v1/event", "", 404, "dso has no such call"),
        ("POST", "/dso/v1/events", "", 405, "this path is for GET"),
        ("GET", "/dso/v1/check", "", 405, "this path is for POST"),
        ("GET", "/dso/v1/events?folow", "", 400, "unknown parameter `folow`: did you mean `follow`?"),
        ("POST", "/dso/v1/volumes/v/refresh?wait=maybe", "", 400, "`wait` must be `true` or `false`"),
        ("POST", "/dso/v1/volumes/v/refresh?wait", "", 404, "there is no volume `v`"),
        ("POST", "/dso/v1/volumes/v/w/refresh", "", 404, "dso has no such call"),
        (
            "POST",
            "/dso/v1/check",
            "{",
            400,
            r#"the body must be {"name": "…", "options": {"…": "…"}}, and is not (line 1, column 1)"#,
        ),
    ] {
        assert_eq!(server.ask(method, target, body).await, (status, json!({"message": message})), "{method} {target}");
    }
    assert_eq!(server.bench.driver.events().listeners(), 0);
}

#[tokio::test]
async fn faults_of_the_server_itself_have_the_form_of_who_asks() {
    let server = Server::start().await;
    let long = " ".repeat(BODY_MAX + 1);
    for (target, field) in [("/dso/v1/check", "message"), ("/VolumeDriver.Get", "Err")] {
        let (status, answer) = server.ask("POST", target, &long).await;
        let told = answer[field].as_str().unwrap_or_default();
        assert!(status == 400 && told.contains("has more than 4 MiB"), "{target}: {status} {answer}");
    }
    let mut stream = server.send("GET", "/dso/v1/events?follow=", "").await;
    server.until_listeners(1).await;
    server.cancel.cancel();
    stream.read_to_string(&mut String::new()).await.unwrap();
}

#[tokio::test]
async fn a_check_tells_what_would_be_mounted() {
    let server = Server::start().await;
    server.bench.provider.put("app", "7", b"canary");
    let options = json!({"file.x": "p://app"});
    let (status, answer) =
        server.ask("POST", "/dso/v1/check", &json!({"name": "v", "options": options}).to_string()).await;
    let sources = json!([{"reference": "p://app", "version": "7"}]);
    let file = json!({"path": "x", "mode": "0444", "uid": 0, "gid": 0, "bytes": 6, "sources": sources});
    assert_eq!(
        (status, &answer["ok"], &answer["files"], &answer["faults"]),
        (200, &json!(true), &json!([file]), &json!([]))
    );
    assert_eq!(answer["size"]["limit"], 1 << 20);
    let wrong = json!({"name": "v", "options": {"file.x": "p://none"}}).to_string();
    let (status, answer) = server.ask("POST", "/dso/v1/check", &wrong).await;
    let fault = "option `file.x`: `p://none`: there is no `p://none`";
    assert_eq!((status, answer), (200, json!({"ok": false, "files": [], "faults": [fault], "size": null})));
}

#[tokio::test]
async fn events_are_told_and_then_followed_and_a_client_that_leaves_is_forgotten() {
    let server = Server::start().await;
    server.bench.provider.put("app", "7", b"x");
    server.bench.volume("v", &[("file.x", "p://app")]).await;
    server.bench.mount("v", "a").await.unwrap();
    let mut stream = server.send("GET", "/dso/v1/events", "").await;
    let mounted = next(&mut stream).await.unwrap();
    assert_eq!(
        (&mounted["event"], &mounted["volume"], &mounted["mount"]),
        (&json!("mounted"), &json!("v"), &json!("fresh"))
    );
    assert_eq!((&mounted["generation"], &mounted["stale"]), (&json!(1), &json!(false)));
    assert_eq!(next(&mut stream).await, None);

    let mut stream = server.send("GET", "/dso/v1/events?follow", "").await;
    assert_eq!(next(&mut stream).await.unwrap()["id"], 1);
    server.bench.mount("v", "b").await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap()["mount"], "joined");
    server.bench.unmount("v", "b").await;
    let unmounted = next(&mut stream).await.unwrap();
    assert_eq!((&unmounted["event"], &unmounted["left"]), (&json!("unmounted"), &json!(1)));
    server.bench.volume("w", &[("file.x", "p://none")]).await;
    server.bench.mount("w", "a").await.unwrap_err();
    let failed = next(&mut stream).await.unwrap();
    assert_eq!((&failed["event"], &failed["class"]), (&json!("mount_failed"), &json!("not_found")));
    assert_eq!(server.bench.driver.events().listeners(), 1);
    drop(stream);
    server.until_listeners(0).await;
}

#[tokio::test]
async fn who_waits_for_a_refresh_hears_of_it_until_its_end() {
    let mut server = Server::start().await;
    server.bench.volume("v", &[("file.x", "p://app")]).await;
    assert_eq!(server.ask("POST", "/dso/v1/volumes/v/refresh?force", "").await, (202, json!({})));
    let mut stream = server.send("POST", "/dso/v1/volumes/v/refresh?wait&force=true", "").await;
    let (mut left, mut requests) = (2, Vec::new());
    while left > 0 {
        if let Some(Event::Forced(name, request)) = server.bench.told.recv().await {
            assert_eq!(name.as_str(), "v");
            requests.push(request);
            left -= 1;
        }
    }
    let events = server.bench.driver.events();
    events.answer("refreshed", "v", requests[0], json!({"ok": false}));
    events.tell("stale", Some("v"), json!({"error": "e"}));
    events.answer("refreshed", "v", requests[1], json!({"ok": true, "result": "unchanged"}));
    assert_eq!(next(&mut stream).await.unwrap()["error"], "e", "the end of another's request is not told");
    assert_eq!(next(&mut stream).await.unwrap()["result"], "unchanged");
    assert_eq!(next(&mut stream).await, None);
    server.until_listeners(0).await;
}

#[tokio::test]
async fn it_says_whether_it_is_ready_before_it_is_and_ends_streams_at_the_end() {
    let server = Server::start().await;
    server.ready.send_replace(None);
    assert_eq!(server.ask("GET", "/healthz", "").await, (503, json!({"alive": true, "ready": false})));
    assert_eq!(
        server.ask("GET", "/dso/v1/version", "").await,
        (200, json!({"version": env!("CARGO_PKG_VERSION"), "api": "1"}))
    );
    server.ready.send_replace(Some(server.bench.driver.clone()));
    assert_eq!(server.ask("GET", "/healthz", "").await, (200, json!({"alive": true, "ready": true})));
    assert_eq!(server.ask("GET", "/dso/v1/settings", "").await, (200, json!({"fault": null})));

    let mut stream = server.send("GET", "/dso/v1/events?follow", "").await;
    server.until_listeners(1).await;
    server.cancel.cancel();
    server.tasks.close();
    let mut rest = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut rest)).await.expect("it ends").unwrap();
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "it is ended, and not broken off: {rest}");
    timeout(Duration::from_secs(20), server.tasks.wait()).await.expect("it ends though somebody listens");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_stands_still_is_not_alive() {
    let bench = Bench::new().await;
    let status = |bench: &Bench| health::answer(Some(&bench.driver)).send(std::future::pending()).status();
    bench.driver.note_turn();
    assert_eq!(status(&bench), 200);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(status(&bench), 503);
    bench.driver.note_turn();
    assert_eq!(status(&bench), 200);
}
