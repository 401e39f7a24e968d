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

mod answer;
pub mod control;
mod health;
pub mod measures;
pub mod protocol;
mod routes;
mod watching;

use crate::driver::Driver;
use answer::Answer;
use control::Call;

use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, StatusCode,
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
        let end = cancel.clone().cancelled_owned();
        async move { Ok::<_, Infallible>(answer(request, context, &engine, &in_call).await.send(end)) }
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

async fn answer(request: Request<Incoming>, mut context: Context, engine: &str, in_call: &AtomicBool) -> Answer {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().map(str::to_owned));
    let method = request.method().clone();
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(fault) => return fail(&path, StatusCode::BAD_REQUEST, format!("{path}: {fault}")),
    };
    let started = context.driver.borrow().clone();
    let call = Call { method: &method, path: &path, query: query.as_deref(), body: &body };
    if let Some(answer) = control::early(&call, started.as_deref()) {
        return answer;
    }
    let driver = match context.driver.wait_for(Option::is_some).await.map(|driver| driver.clone()) {
        Ok(Some(driver)) => driver,
        _ => return fail(&path, StatusCode::SERVICE_UNAVAILABLE, "dso is shutting down".into()),
    };
    tracing::debug!(call = path, "request");
    in_call.store(true, Ordering::Relaxed);
    // In a task of its own: a panic is this call's and no other's, and ends without the connection.
    let (engine, asked) = (engine.to_owned(), path.clone());
    let (send, receive) = tokio::sync::oneshot::channel();
    let call = async move {
        let call = Call { method: &method, path: &path, query: query.as_deref(), body: &body };
        let _ = send.send(match control::route(&driver, &call).await {
            Some(answer) => answer,
            None => routes::route(&driver, &path, &body, &engine).await,
        });
    };
    let guard = AbortOnDrop(context.tasks.spawn(call));
    let answer = receive.await;
    in_call.store(false, Ordering::Relaxed);
    drop(guard);
    answer.unwrap_or_else(|_| fail(&asked, StatusCode::INTERNAL_SERVER_ERROR, protocol::INTERNAL.into()))
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

/// A fault of the server itself, in the form of who has asked.
fn fail(path: &str, status: StatusCode, message: String) -> Answer {
    if control::is_for_operators(path) {
        return Answer::refuse(status, message);
    }
    Answer::plugin(status, &protocol::Failure::new(message))
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
mod tests;
