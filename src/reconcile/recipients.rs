//! To whom secrets are delivered, for the record.

use super::table::Table;
use crate::{audit::Recipient, docker::Container, driver::Driver, volume::VolumeName};
use std::collections::BTreeMap;

/// Compose's own labels.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";

/// The table has been brought up to date for this volume.
pub fn seen(driver: &Driver, table: &Table, volume: &VolumeName) {
    if driver.audit().is_open() {
        driver.audit().seen(volume.as_str(), &all(table, volume, |_| true));
    }
}

/// New files were published in place of those of the versions `before`.
pub fn changed(driver: &Driver, table: &Table, volume: &VolumeName, before: &BTreeMap<String, String>) {
    if let Some(delivery) = driver.change(volume, before) {
        driver.audit().changed(&delivery, &all(table, volume, Container::is_up));
    }
}

fn all(table: &Table, volume: &VolumeName, is_wanted: impl Fn(&Container) -> bool) -> Vec<Recipient> {
    table.of(volume.as_str()).iter().filter(|container| is_wanted(container)).map(recipient).collect()
}

fn recipient(container: &Container) -> Recipient {
    Recipient {
        name: container.name.clone(),
        id: container.id.clone(),
        image: container.image.clone(),
        compose_project: container.labels.get(PROJECT).cloned(),
        compose_service: container.labels.get(SERVICE).cloned(),
        started: container.started,
    }
}
