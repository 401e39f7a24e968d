//! What may become of a call to the engine.

use bollard::errors::Error;
use thiserror::Error as ThisError;

/// A call to the engine that failed.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum RuntimeError {
    /// Nobody answers at its socket, or the answer broke off: it may be starting, or restarting.
    #[error("the engine is out of reach: {0}")]
    Unreachable(String),
    #[error("there is no container `{0}` any more")]
    Gone(String),
    /// The engine's own answer.
    #[error("the engine refused to {doing}: {answer}")]
    Refused { doing: String, answer: String },
    #[error("the engine took longer than {seconds} s to {doing}")]
    TimedOut { doing: String, seconds: u64 },
}

/// What an engine says that is about to end, or whose containerd has ended: the same call to its successor may succeed.
const ENDING: [&str; 5] =
    ["shutting down", "transport is closing", "connection is closing", "containerd.sock", "context canceled"];

// === impl RuntimeError ===

impl RuntimeError {
    /// Whether the same call may succeed later with nothing changed by a person.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// The one place that reads the engine's failures. `container` is whom the call was about.
    pub(super) fn of(error: Error, doing: &str, container: Option<&str>) -> Self {
        let refused = |answer: String| Self::Refused { doing: doing.to_owned(), answer };
        match error {
            Error::DockerResponseServerError { status_code, message } => match container {
                Some(id) if status_code == 404 && message.to_lowercase().contains("no such container") => {
                    Self::Gone(id.to_owned())
                }
                _ if is_ending(status_code, &message) => Self::Unreachable(message),
                _ if message.is_empty() => refused(format!("status {status_code}")),
                _ => refused(message),
            },
            // The text of a JSON error quotes what it met, which may be a container's environment.
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                refused("its answer is not of the form that is known".into())
            }
            Error::RequestTimeoutError => Self::Unreachable("it does not answer".into()),
            error => Self::Unreachable(sources(&error)),
        }
    }
}

fn is_ending(status: u16, message: &str) -> bool {
    status == 503 || status == 500 && ENDING.iter().any(|words| message.contains(words))
}

/// An error with what caused it: hyper's own text is a mere "connection error".
fn sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> RuntimeError {
        let error = Error::DockerResponseServerError { status_code, message: message.into() };
        RuntimeError::of(error, "stop it", Some("abc"))
    }

    #[test]
    fn a_container_that_is_not_there_is_gone_and_what_else_is_not_there_is_a_refusal() {
        assert_eq!(answer(404, "No such container: abc"), RuntimeError::Gone("abc".into()));
        assert_eq!(answer(404, "Cannot kill container: abc: No such container: abc"), RuntimeError::Gone("abc".into()));
        let refused = RuntimeError::Refused { doing: "stop it".into(), answer: "network n not found".into() };
        assert_eq!(answer(404, "network n not found"), refused);
    }

    #[test]
    fn an_engine_that_ends_is_out_of_reach_and_one_that_fails_is_not() {
        assert!(answer(503, "not yet").is_transient());
        assert!(answer(500, "rpc error: code = Unavailable desc = transport is closing: unknown").is_transient());
        assert!(!answer(500, "driver failed programming external connectivity").is_transient());
        assert!(!answer(409, "You cannot remove a running container abc").is_transient());
        let lost = Error::IOError { err: std::io::Error::from(std::io::ErrorKind::ConnectionRefused) };
        assert!(RuntimeError::of(lost, "stop it", None).is_transient());
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_quoted() {
        let error = serde_json::from_str::<u32>("\"hunter2\"").unwrap_err();
        let error = RuntimeError::of(Error::JsonSerdeError { err: error }, "inspect it", None);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
