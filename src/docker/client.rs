//! HTTP to an engine or to the plugin's socket as `docker dso` speaks it: one connection, request after request, plain JSON.
//!
//! The plugin's own calls to the engine are not made here: see [`super::Engine`]. This one reaches engines on other hosts too,
//! by `docker system dial-stdio`, whose stdin and stdout are a connection to the engine of its context. Thus ssh,
//! certificates and contexts are Docker's business, and there is no second client for them.

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{ffi::OsString, fmt, io, path::PathBuf, process::Stdio, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::UnixStream,
    process::{Child, ChildStderr, Command},
    time::timeout,
};

/// An answer in one piece, or a line of one in many.
const ANSWER_MAX: usize = 64 << 20;
/// Of what a program says when it fails.
const SAID_MAX: u64 = 4096;
/// A program that has failed says so and ends.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    Socket(PathBuf),
    /// A program whose stdin and stdout are the connection.
    Program {
        program: OsString,
        arguments: Vec<OsString>,
    },
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("{error}")]
    Absent { kind: io::ErrorKind, error: String },
    #[error("{message}")]
    Refused { status: u16, message: String },
    /// It began to answer, or should have.
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// A connection.
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    program: Option<Program>,
}

/// It ends with the connection.
struct Program {
    child: Child,
    stderr: ChildStderr,
}

/// An answer of lines, which may come for as long as the server likes.
pub struct Lines {
    body: Incoming,
    read: Vec<u8>,
    ended: bool,
    /// Keeps the connection open.
    _client: Client,
}

// === impl Client ===

impl Client {
    pub async fn connect(dial: &Dial) -> Result<Self, ClientError> {
        match dial {
            Dial::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                Self::over(stream.map_err(|error| absent(&error))?, None).await
            }
            Dial::Program { program, arguments } => {
                let mut command = Command::new(program);
                command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let mut child = command.kill_on_drop(true).spawn().map_err(|error| ClientError::Absent {
                    kind: error.kind(),
                    error: format!("cannot run `{}`: {error}", program.to_string_lossy()),
                })?;
                let (Some(stdin), Some(stdout), Some(stderr)) =
                    (child.stdin.take(), child.stdout.take(), child.stderr.take())
                else {
                    return Err(ClientError::Broken("a program has no stdin or stdout".into()));
                };
                Self::over(tokio::io::join(stdout, stdin), Some(Program { child, stderr })).await
            }
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        program: Option<Program>,
    ) -> Result<Self, ClientError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends by itself, with the sender.
        tokio::spawn(connection);
        Ok(Self { sender, program })
    }

    pub async fn get(&mut self, path: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let response = self.send(method, path, body).await?;
        let body = whole(response).await?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        // A parser's error quotes what it met.
        serde_json::from_slice(&body).map_err(|_| ClientError::Broken("it is no JSON".into()))
    }

    /// The answer line by line.
    pub async fn lines(mut self, method: &str, path: &str) -> Result<Lines, ClientError> {
        let method = if method == "POST" { Method::POST } else { Method::GET };
        let response = self.send(method, path, None).await?;
        Ok(Lines { body: response.into_body(), read: Vec::new(), ended: false, _client: self })
    }

    /// An answer that is a success; any other is an error with what the server says.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "docker");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(text))).map_err(broken)?;
        let sent = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let response = match sent.await {
            Ok(response) => response,
            Err(error) => return Err(self.explain(error).await),
        };
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(refusal(status, &whole(response).await?)) }
    }

    /// A program that could not connect has said why.
    async fn explain(&mut self, error: hyper::Error) -> ClientError {
        let Some(Program { child, stderr }) = &mut self.program else { return broken(error) };
        let mut said = Vec::new();
        let _ = timeout(ENDS_WITHIN, stderr.take(SAID_MAX).read_to_end(&mut said)).await;
        let ended = timeout(ENDS_WITHIN, child.wait()).await;
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        match ended {
            Ok(Ok(status)) if !status.success() && !said.is_empty() => {
                ClientError::Absent { kind: io::ErrorKind::Other, error: said }
            }
            _ => broken(error),
        }
    }
}

// === impl Lines ===

impl Lines {
    /// The next line, without its end; `None` when the server has ended its answer.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let line = std::mem::replace(&mut self.read, rest);
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.ended {
                let last = std::mem::take(&mut self.read);
                return Ok((!last.is_empty()).then(|| String::from_utf8_lossy(&last).into_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(mut data) = frame.into_data() {
                        if self.read.len() + data.remaining() > ANSWER_MAX {
                            return Err(ClientError::Broken("a line is too long".into()));
                        }
                        self.read.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                    }
                }
                Some(Err(error)) => return Err(broken(error)),
                None => self.ended = true,
            }
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    body.map(|body| body.to_bytes()).map_err(broken)
}

/// The engine and the plugin say it in the same form.
fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    let answer = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let message = match answer["message"].as_str() {
        Some(message) if !message.is_empty() => message.to_owned(),
        _ => format!("status {status}"),
    };
    ClientError::Refused { status: status.as_u16(), message }
}

fn absent(error: &io::Error) -> ClientError {
    ClientError::Absent { kind: error.kind(), error: error.to_string() }
}

fn broken(error: impl fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}
