//! `GET /metrics`: at the plugin's socket, and at an address if one is set.
//!
//! # Guarantees
//! - At the address there is `GET /metrics` and `GET /healthz`, and nothing else: whoever reaches it can change nothing, and sees
//!   names of volumes and providers, and numbers.
//! - At most [`CONNECTIONS`] are served at a time, each for one request that has to come within [`REQUEST_TIME`].
//!
//! # Caveats
//! - There is no TLS and no password: an address of the loopback, or of a network that is trusted.

use super::{
    answer::{Answer, Sent},
    health,
};
use crate::driver::Driver;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub const PATH: &str = "/metrics";

const CONNECTIONS: usize = 16;
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// A client has so long to take the answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn answer(driver: &Driver) -> Answer {
    Answer::text(StatusCode::OK, TEXT, driver.exposition())
}

/// Serves at `address` until `cancel`. Where that is not possible it says so, and the plugin does without.
pub async fn serve(address: SocketAddr, driver: Arc<Driver>, tasks: TaskTracker, cancel: CancellationToken) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            let advice = "set another DSO_METRICS_ADDR, or end what listens there";
            return tracing::error!(%address, %error, advice, "metrics cannot be served at DSO_METRICS_ADDR");
        }
    };
    tracing::info!(%address, "metrics are served");
    accept(listener, driver, tasks, cancel).await;
}

async fn accept(listener: TcpListener, driver: Arc<Driver>, tasks: TaskTracker, cancel: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            // It is never closed.
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = cancel.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let (driver, cancel) = (driver.clone(), cancel.clone());
                tasks.spawn(async move {
                    let _slot = slot;
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        _ = timeout(ANSWER_TIME, connection(stream, driver)) => {}
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection for metrics");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, driver: Arc<Driver>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = route(&request, &driver);
        async move { Ok::<Response<Sent>, Infallible>(answer.send(std::future::pending())) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME).keep_alive(false);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection for metrics ended early");
    }
}

fn route(request: &Request<Incoming>, driver: &Driver) -> Answer {
    match (request.uri().path(), request.method() == Method::GET) {
        (PATH, true) => answer(driver),
        (health::PATH, true) => health::answer(Some(driver)),
        (PATH | health::PATH, false) => Answer::refuse(StatusCode::METHOD_NOT_ALLOWED, "this path is for GET"),
        _ => Answer::refuse(StatusCode::NOT_FOUND, "here are /metrics and /healthz alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::workbench::Bench;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn start() -> (Bench, SocketAddr, CancellationToken, TaskTracker) {
        let (bench, cancel, tasks) = (Bench::new().await, CancellationToken::new(), TaskTracker::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(accept(listener, bench.driver.clone(), tasks.clone(), cancel.clone()));
        (bench, address, cancel, tasks)
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: dso\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn at_the_address_there_are_metrics_and_health_and_nothing_else() {
        let (_bench, address, cancel, tasks) = start().await;
        let answer = ask(address, "GET /metrics?x=y").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("\ndso_mounts_total{result=\"fresh\"} 0\n"),
            "{answer}"
        );
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(ask(address, "GET /healthz").await.ends_with(r#"{"alive":true,"ready":true}"#));
        for (request, status) in [
            ("POST /metrics", 405),
            ("GET /", 404),
            ("GET /dso/v1/events", 404),
            ("GET /dso/v1/settings", 404),
            ("POST /dso/v1/volumes/v/refresh", 404),
            ("POST /VolumeDriver.List", 404),
        ] {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
        cancel.cancel();
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_hang_keep_others_waiting_for_a_few_seconds_only() {
        let (_bench, address, cancel, _tasks) = start().await;
        let mut hanging = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /met").await.unwrap();
            hanging.push(stream);
        }
        let answer = timeout(REQUEST_TIME * 2, ask(address, "GET /metrics")).await.expect("its turn comes");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        cancel.cancel();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_told_and_the_plugin_does_without() {
        let (bench, address, cancel, tasks) = start().await;
        serve(address, bench.driver.clone(), tasks.clone(), cancel.clone()).await;
        assert!(ask(address, "GET /healthz").await.contains("true"), "the other one still serves");
        cancel.cancel();
    }
}
