//! A small proxy before a server: it counts requests, and fails the next ones in the ways that a test asks for.
#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls};

/// What happens to a request in place of its answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An answer of the proxy's own: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// A redirect of the same path to another server (`http://127.0.0.1:8200`).
    Redirect(u16, String),
    /// The server's answer, but not before [`Proxy::release`].
    Hold,
    /// No answer, as long as the client waits.
    Hang,
    /// The server's answer, cut off in the middle of its body.
    Truncate,
    /// The connection is closed without an answer.
    Close,
}

pub struct Proxy {
    address: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    requests: Vec<(String, String)>,
    tokens: BTreeSet<String>,
    /// What was sent, by path: the newest last.
    bodies: Vec<(String, Bytes)>,
    faults: VecDeque<Planned>,
    released: Arc<Notify>,
}

struct Planned {
    part: String,
    fault: Fault,
    left: usize,
}

/// How the proxy's own face speaks TLS: certificate and key, in PEM.
pub type TlsFace = (PathBuf, PathBuf);

// === impl Fault ===

impl Fault {
    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), r#"{"errors":["injected"]}"#.into())
    }

    pub fn throttle(retry_after: &str) -> Self {
        Self::Answer(429, vec![("Retry-After", retry_after.into())], r#"{"errors":["injected"]}"#.into())
    }

    pub fn body(body: &str) -> Self {
        Self::Answer(200, Vec::new(), body.into())
    }
}

// === impl Proxy ===

impl Proxy {
    /// Before the server at `upstream` (`http://127.0.0.1:8200`).
    pub async fn before(upstream: &str) -> Self {
        Self::listen(upstream, "127.0.0.1", None).await
    }

    /// The same behind TLS, at an address of the loopback network.
    pub async fn before_tls(upstream: &str, ip: &str, face: TlsFace) -> Self {
        Self::listen(upstream, ip, Some(face)).await
    }

    async fn listen(upstream: &str, ip: &str, face: Option<TlsFace>) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let scheme = if face.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let acceptor = face.map(acceptor);
        let task = tokio::spawn(accept(listener, acceptor, upstream.to_owned(), Arc::clone(&state)));
        Self { address, state, task }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many requests of this method had `part` in their path (with the query) so far.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let state = lock(&self.state);
        state.requests.iter().filter(|(of, path)| (method == "*" || of == method) && path.contains(part)).count()
    }

    /// Every request so far: method and path with query.
    pub fn requests(&self) -> Vec<(String, String)> {
        lock(&self.state).requests.clone()
    }

    /// Every token that was sent so far, whoever it was given to: none may be seen elsewhere.
    pub fn tokens(&self) -> Vec<String> {
        lock(&self.state).tokens.iter().cloned().collect()
    }

    /// The JSON that was sent last in a request with `part` in its path.
    pub fn sent(&self, part: &str) -> serde_json::Value {
        let state = lock(&self.state);
        let newest = state.bodies.iter().rev().find(|(path, _)| path.contains(part));
        newest.and_then(|(_, body)| serde_json::from_slice(body).ok()).unwrap_or_default()
    }

    /// Starts counting anew.
    pub fn reset(&self) {
        lock(&self.state).requests.clear();
    }

    /// Fails the next `times` requests that have `part` in their path. Planned faults come one after the other.
    pub fn fail(&self, part: &str, times: usize, fault: Fault) {
        lock(&self.state).faults.push_back(Planned { part: part.into(), fault, left: times });
    }

    /// Lets one answer go that [`Fault::Hold`] holds back, now or later.
    pub fn release(&self) {
        lock(&self.state).released.notify_one();
    }

    /// Takes back every fault that is still planned.
    pub fn heal(&self) {
        lock(&self.state).faults.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, upstream: String, state: Arc<Mutex<State>>) {
    // Aborted with this task, as the connections of a server that is gone.
    let mut connections = tokio::task::JoinSet::new();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([])
        // The far end is a server of the same test.
        .tls_danger_accept_invalid_certs(upstream.starts_with("https"))
        .build()
        .unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (client, upstream, state) = (client.clone(), upstream.clone(), Arc::clone(&state));
        match acceptor.clone() {
            None => drop(connections.spawn(serve(stream, client, upstream, state))),
            Some(acceptor) => drop(connections.spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, client, upstream, state).await;
                }
            })),
        }
    }
}

async fn serve<S>(stream: S, client: reqwest::Client, upstream: String, state: Arc<Mutex<State>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, client.clone(), upstream.clone(), Arc::clone(&state)));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    client: reqwest::Client,
    upstream: String,
    state: Arc<Mutex<State>>,
) -> Result<Response<Reply>, io::Error> {
    let path = request.uri().path_and_query().map_or(String::new(), |path| path.to_string());
    let fault = {
        let mut state = lock(&state);
        state.requests.push((request.method().to_string(), path.clone()));
        let token = request.headers().get("x-vault-token").and_then(|token| token.to_str().ok());
        state.tokens.extend(token.map(str::to_owned));
        state.take_fault(&path)
    };
    match fault {
        None => {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            lock(&state).bodies.push((path.clone(), body.clone()));
            forward(Request::from_parts(parts, Full::new(body)), &client, &format!("{upstream}{path}"), false).await
        }
        Some(Fault::Hold) => {
            let response = forward(request, &client, &format!("{upstream}{path}"), false).await;
            let released = Arc::clone(&lock(&state).released);
            released.notified().await;
            response
        }
        Some(Fault::Truncate) => forward(request, &client, &format!("{upstream}{path}"), true).await,
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Close) => Err(io::Error::other("closed, as planned")),
        Some(Fault::Redirect(status, to)) => {
            let response = Response::builder().status(status).header("Location", format!("{to}{path}"));
            Ok(response.body(Reply::whole(Bytes::new())).unwrap())
        }
        Some(Fault::Answer(status, headers, body)) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Reply::whole(body.into())).unwrap())
        }
    }
}

async fn forward<B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>>(
    request: Request<B>,
    client: &reqwest::Client,
    url: &str,
    truncate: bool,
) -> Result<Response<Reply>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut headers = parts.headers;
    headers.remove("host");
    let sent = client.request(parts.method, url).headers(headers).body(body).send().await;
    let answer = sent.map_err(io::Error::other)?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
        response = response.header(name, value);
    }
    let body = answer.bytes().await.map_err(io::Error::other)?;
    let reply = if truncate { Reply::half(body) } else { Reply::whole(body) };
    Ok(response.body(reply).unwrap())
}

// === impl State ===

impl State {
    fn take_fault(&mut self, path: &str) -> Option<Fault> {
        let planned = self.faults.iter_mut().find(|planned| planned.left > 0 && path.contains(&planned.part))?;
        planned.left -= 1;
        Some(planned.fault.clone())
    }
}

/// A body that may break off in the middle.
struct Reply {
    data: Full<Bytes>,
    breaks_off: bool,
    size: u64,
}

// === impl Reply ===

impl Reply {
    fn whole(body: Bytes) -> Self {
        Self { size: body.len() as u64, data: Full::new(body), breaks_off: false }
    }

    fn half(body: Bytes) -> Self {
        Self { size: body.len() as u64, data: Full::new(body.slice(..body.len() / 2)), breaks_off: true }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match Pin::new(&mut self.data).poll_frame(cx) {
            Poll::Ready(None) if self.breaks_off => Poll::Ready(Some(Err(io::Error::other("cut off, as planned")))),
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {}))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.breaks_off && self.data.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size)
    }
}

fn acceptor((certificate, key): TlsFace) -> TlsAcceptor {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
