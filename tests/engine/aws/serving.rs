//! Credentials of a container and of an instance serve a secret, and a rotation arrives.

use crate::support::{
    BUSYBOX, SOON,
    aws::{gate::Gate, identity::Identity, moto::Moto},
    bao::unique,
    engine::Engine,
    plugin::Plugin,
    wait_for,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_container_and_of_an_instance_serve_a_secret_and_its_rotation_and_nothing_is_told_of_any() {
    let moto = Moto::start().await;
    let gate = Arc::new(Gate::before(&moto.address).await);
    let engine = Engine::system();
    let preparation = Plugin::on(&engine);
    let identity = Identity::container(&gate, Some(preparation.config_dir().join("token"))).await;
    // So that they are renewed while the test runs.
    identity.last(Duration::from_secs(5));
    let instance = Identity::instance(&gate).await;
    let (token, old, new) = (format!("token-{}", unique()), unique(), unique());
    let toml = format!(
        "[provider.aws]\ntype = 'aws'\nendpoint = '{gate}'\n\
         [provider.ec2]\ntype = 'aws'\nendpoint = '{gate}'\nimds_endpoint = '{}'\n",
        instance.address(),
        gate = gate.address()
    );
    let plugin = preparation
        .config("token", &token)
        .config("dso.toml", toml)
        .set("DSO_REFRESH=1s")
        .set("DSO_LOG=trace")
        .set("AWS_REGION=eu-central-1")
        .set(&format!("AWS_CONTAINER_CREDENTIALS_FULL_URI={}/credentials", identity.address()))
        .set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/etc/dso/token")
        .start();
    let secret = |password: &str| json!({"user": "app", "password": password}).to_string();
    moto.create("app/db", &secret(&old)).await;

    let (name, volume) = (plugin.named("c"), plugin.named("v"));
    let mount =
        plugin.mount(&volume, "/secrets", &["file.password=aws://app/db#password", "file.ec2=ec2://app/db#password"]);
    let run = ["run", "--detach", "--init", "--network=none", "--name", &name, "--mount", &mount, BUSYBOX];
    engine.docker(&[&run[..], &["sleep", "1000"]].concat());
    let read = || ["password", "ec2"].map(|file| engine.docker(&["exec", &name, "cat", &format!("/secrets/{file}")]));
    assert_eq!(read(), [old.as_str(), &old]);

    let version = moto.put("app/db", &secret(&new)).await;
    wait_for("the rotation to arrive", SOON, || read() == [new.as_str(), &new]);
    wait_for("its version to be told", SOON, || plugin.status(&volume)["versions"]["password"] == version.as_str());
    wait_for("the credentials to be renewed", SOON, || identity.given() >= 3);
    assert_eq!(plugin.status(&volume)["state"], "current");
    assert_eq!((gate.count("GetSecretValue"), gate.refused()), (4, vec![]), "one read for each instance and version");
    assert_eq!((instance.given(), instance.refused(), identity.refused()), (1, vec![], vec![]));

    let (log, shown) = (plugin.log(), engine.docker(&["volume", "inspect", &volume]));
    assert!(log.contains("ready"), "the plugin's log was not found: {log}");
    for hidden in [token, old, new].into_iter().chain(gate.secrets()).chain(instance.tokens()) {
        assert!(!log.contains(&hidden), "a secret is in the log");
        assert!(!shown.contains(&hidden), "a secret is in `docker volume inspect`");
    }
}
