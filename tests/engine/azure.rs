//! Azure through the real plugin: the identity of a machine and of App Service, a Key Vault written for the tests, a rotation
//! that arrives.

use crate::support::{
    BUSYBOX, SOON,
    azure::{directory::Directory, identity::Identity, tls::Certificates, vault::KeyVault},
    bao::unique,
    engine::Engine,
    plugin::Plugin,
    wait_for,
};
use serde_json::json;
use std::{fs, sync::Arc, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn identities_of_a_machine_and_of_app_service_serve_a_secret_and_its_rotation_and_nothing_is_told_of_any() {
    let (directory, certificates) = (Arc::new(Directory::new()), Certificates::new());
    // So that tokens are renewed while the test runs.
    directory.last(Duration::from_secs(5));
    let vault = KeyVault::start(&directory, &certificates).await;
    let (header, old, new) = (format!("header-{}", unique()), unique(), unique());
    let machine = Identity::machine(&directory).await;
    let service = Identity::app_service(&directory, &header).await;
    let engine = Engine::system();
    let common = format!(
        "type = 'azure'\ndns_suffix = '{}'\nprivate_endpoint = '127.0.0.1'\nca_file = '/etc/dso/ca.pem'\n",
        vault.suffix()
    );
    let toml = format!(
        "[provider.azure]\n{common}[provider.app]\n{common}auth.identity_endpoint = '{}/msi/token'\n\
         auth.identity_header_file = '/etc/dso/header'\n",
        service.address()
    );
    let plugin = Plugin::on(&engine)
        .config("ca.pem", fs::read(certificates.ca_file()).unwrap())
        .config("header", &header)
        .config("dso.toml", toml)
        .set("DSO_REFRESH=1s")
        .set("DSO_LOG=trace")
        .set(&format!("AZURE_POD_IDENTITY_AUTHORITY_HOST={}", machine.address()))
        .start();
    let secret = |password: &str| json!({"user": "app", "password": password}).to_string();
    vault.put("db", &secret(&old));

    let (name, volume) = (plugin.named("c"), plugin.named("v"));
    let mount = plugin.mount(
        &volume,
        "/secrets",
        &["file.password=azure://corp/db#password", "file.app=app://corp/db#password"],
    );
    let run = ["run", "--detach", "--init", "--network=none", "--name", &name, "--mount", &mount, BUSYBOX];
    engine.docker(&[&run[..], &["sleep", "1000"]].concat());
    let read = || ["password", "app"].map(|file| engine.docker(&["exec", &name, "cat", &format!("/secrets/{file}")]));
    assert_eq!(read(), [old.as_str(), &old]);

    let version = vault.put("db", &secret(&new));
    wait_for("the rotation to arrive", SOON, || read() == [new.as_str(), &new]);
    wait_for("its version to be told", SOON, || plugin.status(&volume)["versions"]["password"] == version.as_str());
    wait_for("the tokens to be renewed", SOON, || machine.asked().len() >= 3 && service.asked().len() >= 3);
    assert_eq!(plugin.status(&volume)["state"], "current");
    assert_eq!(vault.count("get"), 4, "one read for each instance and version");
    assert!(vault.refused().iter().all(|why| why == "no token"), "{:?}", vault.refused());
    assert_eq!((machine.refused(), service.refused()), (vec![], vec![]));

    let (log, shown) = (plugin.log(), engine.docker(&["volume", "inspect", &volume]));
    assert!(log.contains("ready"), "the plugin's log was not found: {log}");
    for hidden in [header, old, new].into_iter().chain(directory.issued()) {
        assert!(!log.contains(&hidden), "a secret is in the log");
        assert!(!shown.contains(&hidden), "a secret is in `docker volume inspect`");
    }
}
