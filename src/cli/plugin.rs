//! How Docker's command line calls its plugins.

use std::ffi::OsString;

/// What Docker asks a plugin for before it lists or runs it.
pub const METADATA_COMMAND: &str = "docker-cli-plugin-metadata";

/// Docker's own options that are followed by a value.
const WITH_VALUE: [&str; 10] =
    ["--config", "--context", "-c", "--host", "-H", "--log-level", "-l", "--tlscacert", "--tlscert", "--tlskey"];

/// Docker's own options that stand alone.
const ALONE: [&str; 4] = ["--debug", "-D", "--tls", "--tlsverify"];

/// What Docker puts before a plugin's arguments: its own options, as they were given, and then the plugin's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerOptions(pub Vec<OsString>);

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

/// Docker's options and the plugin's own arguments.
///
/// `docker --context x dso secret ls` runs `docker-dso --context x dso secret ls`.
pub fn own_arguments(args: Vec<OsString>) -> (DockerOptions, Vec<OsString>) {
    let mut at = 0;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        let name = arg.split('=').next().unwrap_or_default();
        match arg {
            "dso" => return (DockerOptions(args[..at].to_vec()), args[at + 1..].to_vec()),
            _ if WITH_VALUE.contains(&arg) => at += 2,
            _ if ALONE.contains(&name) || WITH_VALUE.contains(&name) || joined(arg).is_some() => at += 1,
            _ => break,
        }
    }
    let at = at.min(args.len());
    (DockerOptions(args[..at].to_vec()), args[at..].to_vec())
}

/// `docker help dso ls` runs `docker-dso help dso ls`: it is `ls --help` that is meant.
pub fn help_as_option(args: Vec<OsString>) -> Vec<OsString> {
    match args.split_first() {
        Some((first, rest)) if first == "help" => {
            let named = usize::from(rest.first().is_some_and(|word| word == "dso"));
            rest[named..].iter().cloned().chain(["--help".into()]).collect()
        }
        _ => args,
    }
}

/// `-Hunix:///x` is `-H` with its value.
fn joined(arg: &str) -> Option<(&str, &str)> {
    let is_short = |option: &&str| !option.starts_with("--") && arg.len() > option.len();
    let short = WITH_VALUE.into_iter().filter(is_short).find(|option| arg.starts_with(option))?;
    Some((short, &arg[short.len()..]))
}

// === impl DockerOptions ===

impl DockerOptions {
    /// The last value of an option, by all of its names.
    pub fn value(&self, names: &[&str]) -> Option<String> {
        let mut found = None;
        let mut words = self.0.iter().map(|word| word.to_string_lossy());
        while let Some(word) = words.next() {
            if WITH_VALUE.contains(&&*word) {
                let value = words.next();
                if names.contains(&&*word) {
                    found = value.map(Into::into);
                }
                continue;
            }
            let parts = word.split_once('=').filter(|(name, _)| name.starts_with("--")).or_else(|| joined(&word));
            if let Some((_, value)) = parts.filter(|(name, _)| names.contains(name)) {
                found = Some(value.trim_start_matches('=').to_owned());
            }
        }
        found
    }

    /// Whether one of the options that make a connection over TLS is there.
    pub fn has_tls(&self) -> bool {
        self.0.iter().any(|word| word.to_string_lossy().starts_with("--tls"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> (DockerOptions, Vec<OsString>) {
        own_arguments(words(line))
    }

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn what_docker_puts_before_the_plugins_arguments_is_taken_apart() {
        for (given, docker, own) in [
            ("secret ls", "", "secret ls"),
            ("dso secret ls", "", "secret ls"),
            ("--context x -D --host=unix:///x dso secret set dso", "--context x -D --host=unix:///x", "secret set dso"),
            ("-H unix:///x dso --config-dir /x secret ls", "-H unix:///x", "--config-dir /x secret ls"),
            ("-H unix:///x ls", "-H unix:///x", "ls"),
            ("--tlsverify=false -cx dso ls", "--tlsverify=false -cx", "ls"),
            ("--config-dir /x secret get dso", "", "--config-dir /x secret get dso"),
            ("--plugin dso ls", "", "--plugin dso ls"),
            ("-H", "-H", ""),
            ("", "", ""),
        ] {
            let (options, arguments) = split(given);
            assert_eq!((options.0, arguments), (words(docker), words(own)), "{given}");
        }
    }

    #[test]
    fn help_may_be_asked_for_by_a_word_before() {
        for (given, meant) in [
            ("help dso", "--help"),
            ("help dso secret set", "secret set --help"),
            ("help ls", "ls --help"),
            ("help", "--help"),
            ("secret get help", "secret get help"),
        ] {
            assert_eq!(help_as_option(words(given)), words(meant), "{given}");
        }
    }

    #[test]
    fn an_option_is_found_in_each_way_of_writing_it() {
        for (given, context) in [
            ("--context x dso", Some("x")),
            ("--context=x dso", Some("x")),
            ("-c x dso", Some("x")),
            ("-cx dso", Some("x")),
            ("-H --context dso", None),
            ("--config x -c y -cz dso", Some("z")),
            ("dso --context x", None),
        ] {
            assert_eq!(split(given).0.value(&["--context", "-c"]).as_deref(), context, "{given}");
        }
    }
}
