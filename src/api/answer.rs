//! What is answered: whole, or line by line for as long as somebody listens.

use super::protocol;
use futures_util::{StreamExt, stream::BoxStream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::{Bytes, Frame},
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;
use std::convert::Infallible;
use zeroize::Zeroizing;

/// An answer that is not on the wire yet.
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    Lines(BoxStream<'static, String>),
}

pub type Sent = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Serialize)]
struct Refused {
    message: String,
}

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

// === impl Answer ===

impl Answer {
    /// To the engine.
    pub fn plugin(status: StatusCode, body: &impl Serialize) -> Self {
        Self::text(status, protocol::CONTENT_TYPE, serde_json::to_vec(body).unwrap_or_default())
    }

    /// To an operator.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self::text(status, JSON, serde_json::to_vec(body).unwrap_or_default())
    }

    pub fn refuse(status: StatusCode, message: impl ToString) -> Self {
        Self::json(status, &Refused { message: message.to_string() })
    }

    pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, body: Body::Whole(body.into()) }
    }

    /// Lines of JSON as they come; the connection's end ends the stream, and its end the answer.
    pub fn lines(lines: BoxStream<'static, String>) -> Self {
        Self { status: StatusCode::OK, content_type: LINES, body: Body::Lines(lines) }
    }

    /// The one place that makes responses. `end` ends what would go on for ever.
    pub fn send(self, end: impl Future<Output = ()> + Send + 'static) -> Response<Sent> {
        let body = match self.body {
            // It may be a secret's value, for Swarm.
            Body::Whole(bytes) => Full::new(Bytes::from_owner(Zeroizing::new(bytes))).boxed_unsync(),
            Body::Lines(lines) => {
                let frame = |line: String| Ok(Frame::data(Bytes::from(line + "\n")));
                StreamBody::new(lines.take_until(Box::pin(end)).map(frame)).boxed_unsync()
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response
    }
}
