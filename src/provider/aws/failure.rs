//! What an answer of AWS, or the lack of one, means: the one place where `aws` makes errors of them.
//!
//! The texts are dso's own. AWS's messages name identities and can echo what was sent, so they are looked at, never
//! passed on.

use super::target::{Target, Want};
use crate::provider::{
    ErrorKind,
    error::{self, find},
};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::{ConnectorError, DisplayErrorContext, ProvideErrorMetadata, SdkError};
use rustls::{CertificateError, Error as TlsError};
use std::{
    error::Error,
    io,
    time::{Duration, SystemTime},
};

/// What was asked: the API's action, which is also the policy's, and of which secret.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub action: &'static str,
    pub target: &'a Target,
}

type Failure = (ErrorKind, String);

/// A call that is no success.
pub fn of_answer<E>(error: &SdkError<E>, asked: Asked<'_>) -> Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(told) => {
            let (code, message) = (told.err().code().unwrap_or_default(), told.err().message().unwrap_or_default());
            of_code(code, message, told.raw().status().as_u16(), asked)
        }
        SdkError::TimeoutError(_) => {
            (ErrorKind::Timeout, "no answer in time: is the endpoint reachable from this host?".into())
        }
        SdkError::DispatchFailure(failed) => failed.as_connector_error().map_or_else(broken, of_connection),
        SdkError::ResponseError(told) if told.raw().status().is_server_error() => {
            (ErrorKind::Unavailable, format!("{} AWS failed at {}", told.raw().status().as_u16(), asked.action))
        }
        SdkError::ResponseError(_) if find::<io::Error>(error).is_some() || says(error, "IncompleteBody") => broken(),
        SdkError::ResponseError(_) => {
            (ErrorKind::Malformed, format!("the answer to {} is not what AWS answers: check `endpoint`", asked.action))
        }
        _ => (
            ErrorKind::Misconfigured,
            format!("the request for {} cannot be made: check `region` and `endpoint`", asked.target.id),
        ),
    }
}

fn of_code(code: &str, message: &str, status: u16, Asked { action, target }: Asked<'_>) -> Failure {
    let id = &target.id;
    match code {
        "ResourceNotFoundException" => missing(target, message),
        "InvalidRequestException" if says_deleted(message) => deleted(id),
        "InvalidRequestException" | "InvalidParameterException" | "ValidationException" => {
            (ErrorKind::Misconfigured, format!("{code} for {id}: AWS does not take such a name, version or stage"))
        }
        "DecryptionFailure" | "KMSAccessDeniedException" => (
            ErrorKind::Forbidden,
            format!("{code} for {id}: allow kms:Decrypt on the secret's key to the identity, and keep the key enabled"),
        ),
        "AccessDeniedException" | "AccessDenied" if message.contains("KMS") || message.contains("kms") => {
            (ErrorKind::Forbidden, format!("{code} for {id}: allow kms:Decrypt on the secret's key to the identity"))
        }
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => (
            ErrorKind::Forbidden,
            format!(
                "{code} for {id}: allow secretsmanager:{action} on it in the identity's policy, and see whether the secret's own policy denies it"
            ),
        ),
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "OptInRequired" => (
            ErrorKind::Unauthenticated,
            format!("{code}: AWS does not take the host's credentials: see whether its role still exists"),
        ),
        "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "RequestExpired"
        | "RequestTimeTooSkewed" => (
            ErrorKind::Unauthenticated,
            format!(
                "{code}: AWS does not take the request's signature: check the host's clock, and that nothing on the way changes requests"
            ),
        ),
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "LimitExceededException" => {
            (ErrorKind::Throttled, format!("{code}: too many requests: dso asks again later"))
        }
        _ => match status {
            429 => (ErrorKind::Throttled, "429 too many requests: dso asks again later".into()),
            401 | 403 => (
                ErrorKind::Forbidden,
                format!("{status} for {id}: allow secretsmanager:{action} on it to the identity"),
            ),
            500.. => (ErrorKind::Unavailable, format!("{status} AWS failed at {action}: it will be asked again")),
            _ => (ErrorKind::Malformed, format!("{status} for {action} is not what AWS answers: check `endpoint`")),
        },
    }
}

fn missing(target: &Target, message: &str) -> Failure {
    let id = &target.id;
    let text = match &target.want {
        Want::Version(version) => format!("there is no {id} of version {version}: correct `?version=` or the name"),
        Want::Stage(stage) => format!("there is no {id} with stage {stage}: correct `?stage=` or the name"),
        Want::Current if message.contains("staging label") => no_stage(id, &target.want),
        Want::Current => format!("there is no secret {id} in this region: create it, or correct the reference"),
    };
    (ErrorKind::NotFound, text)
}

/// No version of a secret has the stage that is wanted.
pub fn no_stage(id: &str, want: &Want) -> String {
    match want {
        Want::Current => format!("{id} has no value yet: put one"),
        _ => format!("no version of {id} has stage {}: correct `?stage=`, or move the stage", want.stage()),
    }
}

/// A secret within its recovery window.
pub fn deleted(id: &str) -> Failure {
    (ErrorKind::NotFound, format!("{id} is marked for deletion: restore it (RestoreSecret), or correct the reference"))
}

fn says_deleted(message: &str) -> bool {
    message.contains("deletion") || message.contains("deleted")
}

/// No credentials, and `assuming` a role or not.
pub fn of_credentials(error: &CredentialsError, assuming: bool) -> Failure {
    let says = |word: &str| says(error, word);
    let role = if assuming { "`role_arn`" } else { "its role" };
    if says("AccessDenied") {
        return (
            ErrorKind::Forbidden,
            format!(
                "AWS does not let the host take on {role}: allow sts:AssumeRole to the host's identity, and let the role's trust policy name it (with the external id, if it asks for one)"
            ),
        );
    }
    if says("InvalidIdentityToken") || says("ExpiredToken") || says("IDPRejectedClaim") {
        return (ErrorKind::Unauthenticated, "AWS does not take the host's token: see whether `web_identity_token_file` is kept fresh, and what audience the role's trust policy asks for".into());
    }
    match error {
        CredentialsError::CredentialsNotLoaded(_) => (
            ErrorKind::Unauthenticated,
            "the host has no identity: give the instance a role, or set the container's, web identity's or profile's settings".into(),
        ),
        CredentialsError::ProviderTimedOut(_) => {
            (ErrorKind::Timeout, "whoever gives the host its credentials did not answer in time".into())
        }
        CredentialsError::InvalidConfiguration(_) => {
            (ErrorKind::Misconfigured, "the settings of the host's identity do not work: check the container's address and token file, and the profile".into())
        }
        _ if says("Throttl") => (ErrorKind::Throttled, "whoever gives the host its credentials asks for fewer requests".into()),
        _ if find::<io::Error>(error).is_some_and(|error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)) => {
            (ErrorKind::Misconfigured, "the token file of the host's identity cannot be read: check `container_token_file` or `web_identity_token_file`".into())
        }
        _ => (ErrorKind::Unavailable, "whoever gives the host its credentials (instance metadata, container endpoint, STS) failed: it will be asked again".into()),
    }
}

fn of_connection(error: &ConnectorError) -> Failure {
    if let Some(error) = find::<TlsError>(error) {
        return (ErrorKind::Tls, tls_text(error));
    }
    if error.is_timeout() {
        return (ErrorKind::Timeout, "no connection in time: is the endpoint reachable from this host?".into());
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => {
            (ErrorKind::Unreachable, "connection refused: check `endpoint`".into())
        }
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            (ErrorKind::Unreachable, "no route to AWS: check the host's network".into())
        }
        _ if says(error, "dns error") => (
            ErrorKind::Unreachable,
            "its host name cannot be resolved: check `region`, `endpoint` and the host's DNS".into(),
        ),
        _ => broken(),
    }
}

fn tls_text(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the endpoint's certificate is not trusted: set `ca_file` to the PEM file of the CA that issued it".into()
        }
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the endpoint's certificate has expired: check the host's clock".into()
        }
        TlsError::InvalidCertificate(_) => {
            "the endpoint's certificate is not trusted: check it, its name and `endpoint`".into()
        }
        _ => "TLS failed: the endpoint and dso could not agree on a safe connection".into(),
    }
}

fn broken() -> Failure {
    (ErrorKind::Unreachable, "the connection broke before the whole answer was there".into())
}

/// `Retry-After` of an answer.
pub fn retry_after<E>(error: &SdkError<E>) -> Option<Duration> {
    error::retry_after(error.raw_response()?.headers().get("retry-after")?, SystemTime::now())
}

/// Whether a word stands in what the SDK knows of an error, which is for nobody's eyes.
fn says(error: &(dyn Error + 'static), word: &str) -> bool {
    DisplayErrorContext(error).to_string().contains(word)
}
