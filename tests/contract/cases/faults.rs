//! What cannot be read has its class, ends in time, and is never taken for a value.

use crate::{
    support::bao::eventually,
    world::{Fault, PATIENT, World, json_of},
};
use dso::provider::{ErrorKind, ProviderError};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, timeout},
};

/// How long calls may take where the case waits for that to pass.
const SHORT: Duration = Duration::from_secs(1);

pub async fn what_is_missing_is_told_by_a_read_and_by_a_check(world: &impl World) {
    let provider = world.instance(PATIENT);
    world.put("app", &json!({"n": 1})).await;
    // A name that another one begins with is another name.
    for name in ["none", "ap", "app2"] {
        let error = world.refused(&*provider, name).await;
        assert_eq!((error.kind(), error.kind().is_transient()), (ErrorKind::NotFound, false), "{error}");
        assert!(error.to_string().contains(name), "it is named: {error}");
        let error = provider.versions(&[world.id(name)]).await.remove(0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    // Also among others.
    let ids = ["ap", "none", "app", "app2"].map(|name| world.id(name));
    let checked: Vec<_> = provider.versions(&ids).await.into_iter().map(|found| found.err()).collect();
    let read: Vec<_> = provider.read_many(&ids).await.into_iter().map(|found| found.err()).collect();
    for found in [checked, read] {
        let kinds: Vec<_> = found.iter().map(|error| error.as_ref().map(ProviderError::kind)).collect();
        assert_eq!(kinds, [Some(ErrorKind::NotFound), Some(ErrorKind::NotFound), None, Some(ErrorKind::NotFound)]);
    }
}

pub async fn what_is_forbidden_is_refused_for_good(world: &impl World) {
    world.put("app", &json!({"password": world.canary()})).await;
    let kind = world.forbid("app").await;
    let error = world.refused(&*world.instance(PATIENT), "app").await;
    assert_eq!((error.kind(), error.kind().is_transient()), (kind, false), "{error}");
}

/// A world with a secret that was read once; and whether the fault is planned for its next read.
macro_rules! planned {
    ($world:expr, $fault:expr, $timeout:expr) => {{
        let (world, provider) = ($world, $world.instance($timeout));
        for name in ["app", "other"] {
            world.put(name, &json!({"name": name, "password": world.canary()})).await;
            world.read(&*provider, name).await;
        }
        if !world.fail($fault) {
            return world.without_wire($fault, "app").await;
        }
        provider
    }};
}

pub async fn a_throttled_read_is_told_with_the_pause_and_not_repeated(world: &impl World) {
    let provider = planned!(world, Fault::Throttled, PATIENT);
    let before = world.reads();
    let error = world.refused(&*provider, "app").await;
    assert_eq!((error.kind(), error.delay()), (ErrorKind::Throttled, Some(Duration::from_secs(7))), "{error}");
    assert_eq!(world.reads(), before + 1, "the seam tries again, not the provider");
    world.read(&*provider, "app").await;
}

pub async fn a_slow_answer_is_waited_for_and_holds_up_no_other_secret(world: &impl World) {
    let provider = planned!(world, Fault::Held, PATIENT);
    let (before, slow, id) = (world.reads(), Arc::clone(&provider), world.id("app"));
    let mut read = tokio::spawn(async move { slow.read(&id).await });
    eventually("the read has come", async || world.reads() > before).await;
    world.read(&*provider, "other").await;
    assert!(timeout(Duration::ZERO, &mut read).await.is_err(), "it is still held");
    world.release();
    assert_eq!(json_of(&read.await.unwrap().unwrap())["name"], "app");
}

pub async fn no_answer_at_all_ends_in_time(world: &impl World) {
    let provider = planned!(world, Fault::Hang, SHORT);
    let began = Instant::now();
    let error = world.refused(&*provider, "app").await;
    assert_eq!((error.kind(), error.kind().is_transient()), (ErrorKind::Timeout, true), "{error}");
    assert!(began.elapsed() < SHORT * 5, "{:?}", began.elapsed());
    world.read(&*provider, "app").await;
}

pub async fn half_an_answer_is_no_value(world: &impl World) {
    let provider = planned!(world, Fault::Cut, PATIENT);
    let error = world.refused(&*provider, "app").await;
    assert_eq!((error.kind(), error.kind().is_transient()), (ErrorKind::Unreachable, true), "{error}");
    world.read(&*provider, "app").await;
}

pub async fn a_half_closed_connection_ends_at_once(world: &impl World) {
    let _ = planned!(world, Fault::HalfClosed, PATIENT);
    let (address, came) = half_closing().await;
    let provider = world.instance_at(&address, PATIENT);
    let began = Instant::now();
    let error = world.refused(&*provider, "app").await;
    // Were the end of the connection not noticed, it would be a time-out.
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(began.elapsed() < PATIENT / 2 && came.load(Ordering::Relaxed) <= 2, "{came:?} connections");
}

/// A server that ends its own side of each connection when a request has begun, and keeps the other side open.
async fn half_closing() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            if stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {
                stream.shutdown().await.unwrap();
            }
            open.push(stream);
        }
    });
    (address, came)
}
