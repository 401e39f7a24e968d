//! An engine that boots while the provider is down.

use crate::{
    support::{
        BUSYBOX, SOON,
        bao::Bao,
        own_engine::OwnEngine,
        plugin::Plugin,
        proxy::{Fault, Proxy},
        until, wait_for,
    },
    vault::world::instance,
};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(2);
/// What a mount may take at most: DESIGN, "Bounded at 25 s".
const MOUNT: Duration = Duration::from_secs(25);

/// How long the engine takes from its start until its API answers.
fn restart(engine: &mut OwnEngine) -> Duration {
    engine.stop();
    let start = Instant::now();
    engine.resume();
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_boots_without_the_provider_and_its_containers_start_when_that_is_back() {
    let (bao, mut engine) = (Bao::start().await, OwnEngine::start());
    let proxy = Proxy::before(&bao.address).await;
    bao.put("secret", "app", json!({"password": "first"})).await;
    engine.load_images();
    engine.forward(proxy.address().rsplit_once(':').unwrap().1.parse().unwrap());
    let plugin = Plugin::on(&engine)
        .config("vault-token", &bao.root)
        .config("dso.toml", instance("vault", proxy.address(), "auth.token_file = '/etc/dso/vault-token'"))
        .start();
    let mount = plugin.mount("v", "/secrets", &["from=vault://secret/app", "refresh=2s"]);
    for (name, policy) in
        [("always", "always"), ("unless", "unless-stopped"), ("stopped", "unless-stopped"), ("never", "no")]
    {
        let words = ["run", "--detach", "--network=none", "--stop-timeout=0", "--name", name, "--restart", policy];
        engine.docker(&[&words[..], &["--mount", &mount, BUSYBOX, "sleep", "10000"]].concat());
    }
    engine.docker(&["stop", "stopped"]);
    let normal = restart(&mut engine);
    let running = |name: &str| engine.json(&["inspect", name], ".State.Running") == true;
    wait_for("the containers to be restored", SOON, || running("always") && running("unless"));

    proxy.fail("/v1/", usize::MAX, Fault::Hang);
    let (booted, back) = {
        let booted = restart(&mut engine);
        assert!(booted <= normal + MOUNT + Duration::from_secs(2), "{booted:?}, and {normal:?} with the provider");
        let running = |name: &str| engine.json(&["inspect", name], ".State.Running") == true;
        wait_for("the start of the containers to fail", MOUNT * 3, || {
            let error = |name: &str| engine.docker(&["inspect", "--format", "{{.State.Error}}", name]);
            error("always").contains("dso: ") && error("unless").contains("dso: ")
        });
        assert!(!running("always") && !running("unless"));
        bao.put("secret", "app", json!({"password": "second"})).await;
        let back = Instant::now();
        proxy.heal();
        eprintln!("{}\n{}", engine.docker(&["inspect", "--format", "{{json .State}}", "always"]), plugin.log());
        until("the containers to be started", INTERVAL + SOON, || {
            (running("always") && running("unless")).then_some(())
        });
        (booted, back.elapsed())
    };
    println!("boot: {normal:?} with the provider, {booted:?} without; started {back:?} after it was back");
    // Two mounts and two starts on a busy machine come on top of the interval.
    assert!(back <= INTERVAL + Duration::from_secs(8), "{back:?}");
    for name in ["always", "unless"] {
        assert_eq!(engine.docker(&["exec", name, "cat", "/secrets/password"]), "second");
    }
    wait_for("the status to name them", SOON, || {
        let status = plugin.status("v");
        status["state"] == "current" && status["containers"].as_array().is_some_and(|all| all.len() == 4)
    });
    for name in ["stopped", "never"] {
        assert_eq!(engine.json(&["inspect", name], ".State.Running"), false, "`{name}` is no business of dso's");
    }
}
