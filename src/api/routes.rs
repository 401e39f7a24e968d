//! From a path and a body to a use case and its reply.

use super::{
    answer::Answer,
    protocol::{
        Activated, CONTENT_TYPE, Capabilities, Done, Failure, Got, Listed, Mounted, Scope, SecretRequest, Volume,
        VolumeRequest, secret_reply,
    },
};
use crate::{
    driver::{Asked, Driver, DriverError},
    volume::MountId,
};
use hyper::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// Answers one call of `engine`.
pub async fn route(driver: &Arc<Driver>, path: &str, body: &[u8], engine: &str) -> Answer {
    let result = match path {
        "/Plugin.Activate" => ok(&Activated { implements: ["VolumeDriver", "SecretProvider"] }),
        "/VolumeDriver.Capabilities" => ok(&Capabilities { capabilities: Scope { scope: "local" } }),
        "/VolumeDriver.List" => list(driver),
        "/VolumeDriver.Create" => create(driver, body).await,
        "/VolumeDriver.Get" => get(driver, body).await,
        "/VolumeDriver.Path" => where_is(driver, body),
        "/VolumeDriver.Mount" => mount(driver, body, engine).await,
        "/VolumeDriver.Unmount" => unmount(driver, body).await,
        "/VolumeDriver.Remove" => remove(driver, body, engine).await,
        "/SecretProvider.GetSecret" => secret(driver, body).await,
        _ => return Answer::plugin(StatusCode::NOT_FOUND, &Failure::new(format!("dso has no call `{path}`"))),
    };
    result.unwrap_or_else(|Fault(message)| Answer::plugin(StatusCode::OK, &Failure::new(message)))
}

/// What the engine is told in `Err`.
struct Fault(String);

impl From<DriverError> for Fault {
    fn from(error: DriverError) -> Self {
        Self(format!("dso: {error}"))
    }
}

fn list(driver: &Driver) -> Result<Answer, Fault> {
    let volumes = driver.list().into_iter().map(|(name, mountpoint)| Volume {
        name: name.to_string(),
        mountpoint: mountpoint.unwrap_or_default(),
        created_at: None,
        status: None,
    });
    ok(&Listed { volumes: volumes.collect(), err: "" })
}

async fn create(driver: &Arc<Driver>, body: &[u8]) -> Result<Answer, Fault> {
    let request: VolumeRequest = parse(body)?;
    driver.create(&request.name, request.opts.unwrap_or_default()).await?;
    done()
}

async fn get(driver: &Driver, body: &[u8]) -> Result<Answer, Fault> {
    let request: VolumeRequest = parse(body)?;
    let found = driver.inspect(&request.name)?;
    ok(&Got {
        volume: Volume {
            name: request.name,
            mountpoint: found.mountpoint.unwrap_or_default(),
            created_at: Some(found.created),
            status: Some(found.status),
        },
        err: "",
    })
}

fn where_is(driver: &Driver, body: &[u8]) -> Result<Answer, Fault> {
    let mountpoint = driver.path(&parse::<VolumeRequest>(body)?.name)?.unwrap_or_default();
    ok(&Mounted { mountpoint, err: "" })
}

async fn mount(driver: &Arc<Driver>, body: &[u8], engine: &str) -> Result<Answer, Fault> {
    let request: VolumeRequest = parse(body)?;
    let mountpoint = driver.mount(&request.name, mount_id(&request)?, engine).await?;
    ok(&Mounted { mountpoint, err: "" })
}

async fn unmount(driver: &Arc<Driver>, body: &[u8]) -> Result<Answer, Fault> {
    let request: VolumeRequest = parse(body)?;
    driver.unmount(&request.name, &mount_id(&request)?).await?;
    done()
}

async fn remove(driver: &Arc<Driver>, body: &[u8], engine: &str) -> Result<Answer, Fault> {
    driver.remove(&parse::<VolumeRequest>(body)?.name, engine).await?;
    done()
}

async fn secret(driver: &Arc<Driver>, body: &[u8]) -> Result<Answer, Fault> {
    let request: SecretRequest = parse(body)?;
    let asked = Asked {
        secret: request.secret_name,
        labels: request.secret_labels.unwrap_or_default(),
        service: request.service_name,
        service_labels: request.service_labels.unwrap_or_default(),
        task: request.task_name,
    };
    let served = driver.serve(asked).await.map_err(|fault| Fault(format!("dso: {fault}")))?;
    let reply = secret_reply(served.value.expose(), served.reusable);
    Ok(Answer::text(StatusCode::OK, CONTENT_TYPE, reply))
}

/// After a plugin died in a call, the engine repeats that call with an empty body.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    if body.is_empty() {
        return Err(Fault(
            "dso: the request is empty, as the engine's repetition of a broken-off one is: try again".into(),
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        // The place alone: what stands there may be anything.
        Fault(format!("dso: the request is not what Docker sends (line {}, column {})", error.line(), error.column()))
    })
}

fn mount_id(request: &VolumeRequest) -> Result<MountId, Fault> {
    match request.id.as_str() {
        "" => Err(Fault(format!("dso: volume `{}`: the request has no mount ID", request.name))),
        id => Ok(MountId::new(id)),
    }
}

fn done() -> Result<Answer, Fault> {
    ok(&Done { err: "" })
}

fn ok(body: &impl Serialize) -> Result<Answer, Fault> {
    Ok(Answer::plugin(StatusCode::OK, body))
}
