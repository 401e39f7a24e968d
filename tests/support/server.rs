//! A small HTTP server that answers by a function.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, future::Future, io, path::Path, pin::Pin, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// A whole request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// The connection breaks in the middle of the body.
    pub cut: bool,
}

pub type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Ends when it is dropped.
pub struct Server {
    address: String,
    task: JoinHandle<()>,
}

// === impl Seen ===

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

// === impl Reply ===

impl Reply {
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: false }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A failure as the JSON protocol has it.
    pub fn fault(status: u16, code: &str) -> Self {
        let body = serde_json::json!({"__type": code, "message": "as planned"}).to_string();
        Self::new(status, body).header("content-type", "application/x-amz-json-1.1")
    }
}

// === impl Server ===

impl Server {
    pub async fn start(answer: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(None, answer).await
    }

    /// Behind TLS, with the PEM files of a certificate and its key.
    pub async fn start_tls(
        (certificate, key): (&Path, &Path),
        answer: impl Fn(Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        Self::listen(Some(TlsAcceptor::from(Arc::new(config))), answer).await
    }

    async fn listen(tls: Option<TlsAcceptor>, answer: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, tls) = (Arc::clone(&answer), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, task }
    }

    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    answer: Arc<impl Fn(Seen) -> Answer + Send + Sync + 'static>,
) {
    let service = service_fn(move |request| handle(request, Arc::clone(&answer)));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn handle(
    request: Request<Incoming>,
    answer: Arc<impl Fn(Seen) -> Answer + Send + Sync + 'static>,
) -> Result<Response<BoxBody<Bytes, io::Error>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    let reply = answer(seen).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    let body = match reply.cut {
        false => Full::new(reply.body).map_err(|never| match never {}).boxed(),
        true => {
            let half = reply.body.slice(..reply.body.len() / 2);
            // What there is goes out while the rest is waited for.
            let first = stream::once(async { Ok(Frame::data(half)) });
            let end = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::other("cut off, as planned"))
            });
            BodyExt::boxed(StreamBody::new(Box::pin(first.chain(end))))
        }
    };
    Ok(response.body(body).unwrap())
}
