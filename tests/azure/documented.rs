//! The settings of docs/providers.md, as they stand there: each makes an instance.

use dso::{config::Config, host::HostFiles, provider::azure::Azure};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};
use toml::Table;

/// Of each identity, what `docker plugin set` may be given.
const SETTINGS: [&[(&str, &str)]; 4] = [
    &[("AZURE_CLIENT_ID", "c"), ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")],
    &[("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token"), ("IDENTITY_HEADER", "h"), ("AZURE_CLIENT_ID", "c")],
    &[
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/etc/dso/t"),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
    ],
    &[("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_CERTIFICATE_PATH", "/etc/dso/c")],
];

#[test]
fn the_plugins_settings_make_an_instance_for_each_identity_and_there_are_no_others() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (host, mut set) = (HostFiles::on_host("/nowhere"), BTreeSet::new());
    for settings in SETTINGS {
        let value = |name: &str| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        let (config, _) = Config::load(&value, &host);
        let mut instance = config.providers["azure"].clone();
        instance.remove("type");
        let built = Azure::build("azure", instance.clone(), &host);
        assert!(built.is_ok(), "{settings:?}: {}", built.err().unwrap());
        let leaves = instance.values().map(|value| value.as_table().map_or(1, Table::len)).sum::<usize>();
        assert_eq!(leaves, settings.len(), "{instance:?}");
        set.extend(settings.iter().map(|(name, _)| name.to_string()));
    }
    let config: Value = serde_json::from_str(&fs::read_to_string(root.join("config.json")).unwrap()).unwrap();
    let names = config["env"].as_array().unwrap().iter().map(|setting| setting["name"].as_str().unwrap().to_owned());
    let ours = |name: &String| name.starts_with("AZURE_") || name.starts_with("IDENTITY_");
    assert_eq!(names.filter(ours).collect::<BTreeSet<_>>(), set);
}

#[test]
fn every_example_of_the_page_makes_an_instance() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md")).unwrap();
    let (_, section) = page.split_once("\n## `azure`: Azure Key Vault\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let examples: Vec<_> = section.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 5, "{}", examples.len());
    for example in examples {
        let table: Table = example.parse().unwrap();
        for (name, instance) in table["provider"].as_table().unwrap() {
            let mut instance = instance.as_table().unwrap().clone();
            assert_eq!(instance.remove("type").unwrap().as_str(), Some("azure"));
            let built = Azure::build(name, instance, &HostFiles::on_host("/nowhere"));
            assert!(built.is_ok(), "{example}: {}", built.err().unwrap());
        }
    }
}
