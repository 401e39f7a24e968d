//! The engine's socket: a connection for each request, and the API version that is spoken on it.
//!
//! bollard makes the requests, over a transport of ours, since three things are needed that it does not do by itself:
//! - It never puts the version into a request's path, so an engine would speak its newest. Here each request names the version that
//!   both sides know.
//! - Its stream of events does not tell when the engine has accepted the subscription.
//! - Its models lose every field that they do not know, and refuse a word that they do not know where the engine's
//!   description lists the words. What is read of containers, and what is made of it, therefore goes as plain JSON:
//!   [`Connection::get`] and [`Connection::post`].

use super::RuntimeError;
use bollard::{API_DEFAULT_VERSION, BollardRequest, ClientVersion, Docker, errors::Error};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, Uri,
    body::{Body, Incoming},
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    error::Error as StdError,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::UnixStream, sync::Notify, time::timeout};

/// How long the engine may take to say that it is there.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// The limit of every call is set where it is made; bollard's own would cut long ones.
const NO_LIMIT: u64 = 24 * 60 * 60;

/// An engine that has just answered. It is not kept: the next engine at the same socket may speak another version.
pub(super) struct Connection {
    pub(super) docker: Docker,
    socket: PathBuf,
    prefix: String,
}

// === impl Connection ===

impl Connection {
    pub(super) async fn to(socket: &Path) -> Result<Self, RuntimeError> {
        Self::hearing(socket, None).await
    }

    /// As [`Connection::to`], in the engine's own newest version: what is read and written back whole must lose nothing
    /// that this engine knows and bollard does not.
    pub(super) async fn to_newest(socket: &Path) -> Result<Self, RuntimeError> {
        let version = ping_in_time(socket).await?;
        Self::speaking(socket, version, None)
    }

    /// As [`Connection::to`]; `heard` is told whenever the engine has begun to answer a request of `docker`.
    pub(super) async fn hearing(socket: &Path, heard: Option<Arc<Notify>>) -> Result<Self, RuntimeError> {
        let engine = ping_in_time(socket).await?;
        // The newest version that the engine and bollard's models both know.
        let version = if engine < *API_DEFAULT_VERSION { engine } else { *API_DEFAULT_VERSION };
        Self::speaking(socket, version, heard)
    }

    fn speaking(socket: &Path, version: ClientVersion, heard: Option<Arc<Notify>>) -> Result<Self, RuntimeError> {
        let prefix = format!("/v{version}");
        let (socket, to, before) = (socket.to_owned(), socket.to_owned(), prefix.clone());
        let transport = move |request: BollardRequest| {
            let (to, before, heard) = (to.clone(), before.clone(), heard.clone());
            async move {
                let response = send(&to, &before, request).await?;
                heard.inspect(|heard| heard.notify_one());
                Ok(response)
            }
        };
        let docker = Docker::connect_with_custom_transport(transport, Some("http://engine"), NO_LIMIT, &version);
        let docker = docker.map_err(|error| RuntimeError::of(error, "connect", None))?;
        Ok(Self { docker, socket, prefix })
    }

    /// The body of a successful answer.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, Error> {
        let request = Request::builder().method(Method::GET).uri(path).body(Full::<Bytes>::default())?;
        whole(send(&self.socket, &self.prefix, request).await?).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Bytes, Error> {
        let request = Request::builder().method(Method::POST).uri(path).header(CONTENT_TYPE, "application/json");
        let request = request.body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?;
        whole(send(&self.socket, &self.prefix, request).await?).await
    }
}

async fn ping_in_time(socket: &Path) -> Result<ClientVersion, RuntimeError> {
    match timeout(ANSWERS_WITHIN, ping(socket)).await {
        Ok(version) => version.map_err(|error| RuntimeError::of(error, "say its version", None)),
        Err(_) => Err(RuntimeError::Unreachable("it does not answer".into())),
    }
}

/// The newest version that the engine knows.
async fn ping(socket: &Path) -> Result<ClientVersion, Error> {
    let request = Request::builder().method(Method::GET).uri("/_ping").body(Full::<Bytes>::default())?;
    let response = send(socket, "", request).await?;
    let says = response.headers().get("api-version").and_then(|value| value.to_str().ok()).and_then(version);
    whole(response).await?;
    says.ok_or(Error::APIVersionParseError {})
}

fn version(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}

/// One request on a connection of its own, which ends with the answer: one that was kept could be to an engine that has ended.
async fn send<B>(socket: &Path, prefix: &str, mut request: Request<B>) -> Result<Response<Incoming>, Error>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = format!("{prefix}{path}").parse::<Uri>().map_err(hyper::http::Error::from)?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("engine"));
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself: once the answer has been read, or nobody wants it any more.
    tokio::spawn(connection.with_upgrades());
    Ok(sender.send_request(request).await?)
}

/// The whole body, or what the engine says is wrong.
async fn whole(response: Response<Incoming>) -> Result<Bytes, Error> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let answer = serde_json::from_slice::<Value>(&body).unwrap_or_else(|_| json!({}));
    let message = answer["message"].as_str().unwrap_or_default().to_owned();
    Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
}
