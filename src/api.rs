//! The plugin's Unix socket: an accept loop, a task for each connection, and Docker's calls.
//!
//! The shape is wire → driver → wire; no HTTP type travels inward.
//!
//! # Guarantees
//! - The socket listens before anything else is done; calls wait until the driver is ready.
//! - A malformed request, a slow client or a panic in one call touches no other connection.
//! - The end waits for calls that have begun, and not for a client that has not sent a whole request by then.
//!
//! # Limits
//! - A body has at most 4 MiB and has to arrive within 30 s. Idle connections are kept: the engine reuses its own.

mod control;
pub mod protocol;
mod routes;

use crate::driver::Driver;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    io,
    os::unix::net::UnixListener as StdListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const BODY_MAX: usize = 4 << 20;
const BODY_TIME: Duration = Duration::from_secs(30);
/// How long to wait when no connection can be accepted, as without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the end waits for a connection without a call: to send the rest of an answer takes no time.
const LINGER: Duration = Duration::from_millis(500);

/// What connections need; the driver comes once it has started.
#[derive(Clone)]
pub struct Context {
    pub driver: watch::Receiver<Option<Arc<Driver>>>,
    pub tasks: TaskTracker,
}

/// Binds the socket, in place of one that an earlier process left.
pub fn bind(path: &Path) -> io::Result<StdListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `cancel`; connections end with their current call.
pub async fn serve(listener: StdListener, context: Context, cancel: CancellationToken) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    loop {
        let stream = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (context, cancel) = (context.clone(), cancel.clone());
        context.tasks.clone().spawn(connection(stream, context, cancel));
    }
}

async fn connection(stream: UnixStream, context: Context, cancel: CancellationToken) {
    let engine: Arc<str> = engine_of(&stream).into();
    let in_call = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        let (context, engine, in_call) = (context.clone(), engine.clone(), in_call.clone());
        async move { Ok::<_, Infallible>(answer(request, context, &engine, &in_call).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match in_call.load(Ordering::Relaxed) {
                true => connection.await,
                false => timeout(LINGER, connection).await.unwrap_or(Ok(())),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(
    request: Request<Incoming>,
    mut context: Context,
    engine: &str,
    in_call: &AtomicBool,
) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().map(str::to_owned));
    let is_post = request.method() == Method::POST;
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(fault) => return reply(StatusCode::BAD_REQUEST, &protocol::Failure::new(format!("{path}: {fault}"))),
    };
    let driver = match context.driver.wait_for(Option::is_some).await.map(|driver| driver.clone()) {
        Ok(Some(driver)) => driver,
        _ => return reply(StatusCode::SERVICE_UNAVAILABLE, &protocol::Failure::new("dso is shutting down".into())),
    };
    tracing::debug!(call = path, "request");
    in_call.store(true, Ordering::Relaxed);
    // In a task of its own: a panic is this call's and no other's, and ends without the connection.
    let engine = engine.to_owned();
    let (send, receive) = tokio::sync::oneshot::channel();
    let call = async move {
        let operator = match is_post {
            true => control::route(&driver, &path, query.as_deref()).await,
            false => control::show(&driver, &path),
        };
        let _ = send.send(match operator {
            Some(answer) => answer,
            None => routes::route(&driver, &path, &body, &engine).await,
        });
    };
    let guard = AbortOnDrop(context.tasks.spawn(call));
    let answer = receive.await;
    in_call.store(false, Ordering::Relaxed);
    drop(guard);
    match answer {
        Ok(answer) => reply_bytes(answer.status, answer.body),
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, &protocol::Failure::new(protocol::INTERNAL.into())),
    }
}

/// Ends the call when its connection does; the driver's own work is detached from both.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(request.into_body(), BODY_MAX).collect();
    match timeout(BODY_TIME, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(format!("the request's body is broken off or has more than {} MiB", BODY_MAX >> 20)),
        Err(_) => Err(format!("the request's body did not arrive within {} s", BODY_TIME.as_secs())),
    }
}

fn reply(status: StatusCode, body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    reply_bytes(status, serde_json::to_vec(body).unwrap_or_default())
}

/// The one place that makes responses.
fn reply_bytes(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let content_type = hyper::header::HeaderValue::from_static(protocol::CONTENT_TYPE);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, content_type);
    response
}

/// Names the run of the engine that is at the other end: its process and when that began. A mount that was
/// counted for an earlier run is void when the new one mounts the same ID again.
fn engine_of(stream: &UnixStream) -> String {
    let Some(pid) = stream.peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0) else {
        return String::new();
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc(5): field 22 is the start time; the name in field 2 is in parentheses and may hold anything.
    let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    format!("{pid}:{}", started.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt, time::Instant};

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
}
