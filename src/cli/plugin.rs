//! How Docker's command line calls its plugins.

use std::ffi::OsString;

/// What Docker asks a plugin for before it lists or runs it.
pub const METADATA_COMMAND: &str = "docker-cli-plugin-metadata";

/// Docker's own options that are followed by a value.
const WITH_VALUE: [&str; 9] =
    ["--config", "--context", "-c", "--host", "-H", "--log-level", "-l", "--tlscacert", "--tlscert"];

/// The answer to [`METADATA_COMMAND`].
pub fn metadata() -> String {
    serde_json::json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "dso",
        "Version": env!("CARGO_PKG_VERSION"),
        "ShortDescription": "Secrets for containers, in RAM only",
    })
    .to_string()
}

/// The plugin's arguments without what Docker puts before them: its own options, and the plugin's name.
///
/// `docker --context x dso secret ls` runs `docker-dso --context x dso secret ls`.
pub fn own_arguments(args: Vec<OsString>) -> Vec<OsString> {
    let mut at = 0;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        match arg {
            "dso" => return args[at + 1..].to_vec(),
            _ if WITH_VALUE.contains(&arg) || arg == "--tlskey" => at += 2,
            _ if arg.starts_with('-') => at += 1,
            _ => break,
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_puts_before_the_plugins_arguments_is_dropped() {
        for (given, own) in [
            ("secret ls", "secret ls"),
            ("dso secret ls", "secret ls"),
            ("--context x -D --host=unix:///x dso secret set dso", "secret set dso"),
            ("-H unix:///x dso --config-dir /x secret ls", "--config-dir /x secret ls"),
            ("--config-dir /x secret get dso", "--config-dir /x secret get dso"),
            ("", ""),
        ] {
            let args = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
            assert_eq!(own_arguments(args(given)), args(own), "{given}");
        }
    }
}
