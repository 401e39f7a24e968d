//! `/etc/dso` and swap, on the host that this runs on.

use super::super::{Failure, secret};
use crate::{config::Config, findings::Finding, host::HostFiles, provider::local::StoreError};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use toml::Value;

/// Keys that name files, which anybody may read.
const PUBLIC: [&str; 4] = ["ca_file", "cert_file", "role_id_file", "config_file"];

pub fn examine(config_dir: &Path) -> Vec<Finding> {
    let folder = std::path::absolute(config_dir).unwrap_or_else(|_| config_dir.to_owned());
    let mut findings = vec![directory(&folder)];
    let there = fs::metadata(&folder).is_ok();
    if there {
        let host = HostFiles::on_host(&folder);
        findings.extend(settings(&folder, &host));
        findings.extend(store(&folder));
    }
    findings.extend(swap(&fs::read_to_string("/proc/swaps").unwrap_or_default()));
    findings
}

fn directory(folder: &Path) -> Finding {
    let shown = folder.display().to_string();
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::warning(
            "files",
            shown,
            "is not there: there are no settings and no embedded store",
            "docker dso init",
        ),
        Err(error) => Finding::error("files", shown, format!("cannot be looked at: {error}"), "run this as root"),
        Ok(meta) => match unsafe_owner(&meta).or_else(|| writable(&meta)) {
            Some((fault, advice)) => Finding::error("files", &shown, fault, format!("{advice} {shown}")),
            None => Finding::ok("files", shown, "only its owner may change it"),
        },
    }
}

/// `dso.toml`, and the files of credentials that it names.
fn settings(folder: &Path, host: &HostFiles) -> Vec<Finding> {
    let path = folder.join("dso.toml");
    let shown = path.display().to_string();
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::ok(
                "settings",
                shown,
                "is not there, and need not be: `docker dso init` makes one to fill in",
            )];
        }
        Err(error) => {
            return vec![Finding::error("settings", shown, format!("cannot be read: {error}"), "run this as root")];
        }
    };
    let mut findings = Vec::new();
    if let Some((fault, advice)) = unsafe_owner(&meta).or_else(|| writable(&meta)) {
        findings.push(Finding::error("files", &shown, fault, format!("{advice} {shown}")));
    }
    let (config, faults) = Config::load(&|_| None, host);
    if !faults.is_empty() {
        findings.push(Finding::error(
            "settings",
            &shown,
            faults.to_string(),
            "mend the file: the plugin reads it again by itself",
        ));
    }
    let mut named = Vec::new();
    for (name, table) in &config.providers {
        files_of(&format!("[provider.{name}]"), "", &Value::Table(table.clone()), &mut named);
    }
    for (place, file) in named {
        findings.extend(credential(&place, &file, host));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("settings", shown, "reads without a fault"));
    }
    findings
}

fn files_of(place: &str, key: &str, value: &Value, found: &mut Vec<(String, PathBuf)>) {
    match value {
        Value::Table(table) => table.iter().for_each(|(key, value)| files_of(place, key, value, found)),
        Value::String(path) if key.ends_with("_file") => found.push((format!("{place} `{key}`"), path.into())),
        _ => {}
    }
}

fn credential(place: &str, named: &Path, host: &HostFiles) -> Option<Finding> {
    let path = host.locate(named).ok()?;
    let (shown, key) = (path.display().to_string(), place.split('`').nth(1).unwrap_or_default());
    // Whoever has to open the store makes its identity.
    if key == "identity_file" {
        return None;
    }
    match fs::metadata(&path) {
        Ok(meta) if !PUBLIC.contains(&key) && meta.mode() & 0o077 != 0 => Some(Finding::error(
            "files",
            &shown,
            format!("{place} names it, and other users may read it (mode {:04o})", meta.mode() & 0o7777),
            format!("chmod 600 {shown}, and replace what is in it: it may have been read"),
        )),
        Ok(_) => None,
        Err(error) => {
            let advice = "put the file there, or mend dso.toml";
            Some(Finding::error("files", shown, format!("{place} names it: {error}"), advice))
        }
    }
}

fn store(folder: &Path) -> Vec<Finding> {
    let store = match secret::open("local", folder) {
        Ok(store) => store,
        // Told as a fault of dso.toml, or meant so.
        Err(Failure::Failed(_) | Failure::Usage(_) | Failure::ReaderGone) => return Vec::new(),
    };
    let finding = match store.list() {
        Ok(listed) => Finding::ok("store", store.path(), format!("opens, and holds {} secrets", listed.len())),
        Err(error @ StoreError::NoStore(_)) => Finding::ok("store", store.path(), error.to_string()),
        Err(error) => Finding::error(
            "store",
            store.path(),
            error.to_string(),
            "do as it says; `docker dso secret ls` shows whether it helped",
        ),
    };
    vec![finding]
}

fn unsafe_owner(meta: &fs::Metadata) -> Option<(String, &'static str)> {
    let own = rustix::process::geteuid().as_raw();
    let strange = meta.uid() != 0 && meta.uid() != own;
    strange.then(|| (format!("belongs to user id {}, who may change it", meta.uid()), "chown root"))
}

fn writable(meta: &fs::Metadata) -> Option<(String, &'static str)> {
    let open = meta.mode() & 0o022 != 0;
    open.then(|| (format!("other users may change it (mode {:04o})", meta.mode() & 0o7777), "chmod go-w"))
}

/// Volumes and the plugin are never swapped; what a program has read of them is its own.
fn swap(swaps: &str) -> Vec<Finding> {
    let devices = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    // In RAM, or by the device mapper, as encrypted swap is.
    let plain: Vec<_> = devices.filter(|device| !device.starts_with("/dev/zram") && !device.contains("/dm-")).collect();
    match plain.is_empty() {
        true => vec![Finding::ok("swap", "host", "no swap in the clear")],
        false => vec![Finding::warning(
            "swap",
            plain.join(", "),
            "what programs have read of their secrets can be swapped out in the clear (volumes and the plugin cannot)",
            "encrypt the swap, or turn it off (`swapoff`)",
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Level;

    #[test]
    fn swap_in_the_clear_is_told() {
        let head = "Filename\tType\tSize\tUsed\tPriority\n";
        let level = |rest: &str| swap(&format!("{head}{rest}"))[0].level;
        assert_eq!(level(""), Level::Ok);
        assert_eq!(level("/dev/zram0 partition 1 0 100\n/dev/dm-1 partition 1 0 -2\n"), Level::Ok);
        assert_eq!(level("/dev/sda2 partition 1 0 -2\n"), Level::Warning);
        assert_eq!(level("/swapfile file 1 0 -2\n"), Level::Warning);
    }
}
