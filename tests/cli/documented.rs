//! What the README, docs/ and examples/ show is what the product takes: every block is parsed by what it is written for,
//! and every command line exists with the options that it uses. Blocks of docs/providers.md also log in, in tests/provider.

use dso::{
    config::Config,
    host::HostFiles,
    provider::Registry,
    volume::{OnRotate, VolumeSpec},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A fenced block, and where it stands.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => found.extend(files(&path, ending)),
            false if path.to_str().unwrap().ends_with(ending) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

fn blocks() -> Vec<Block> {
    let pages =
        [vec![root().join("README.md")], files(&root().join("docs"), ".md"), files(&root().join("examples"), ".md")];
    let blocks: Vec<_> = pages.concat().iter().flat_map(|page| blocks_of(page)).collect();
    assert!(blocks.len() > 30, "{} blocks: are they still found?", blocks.len());
    blocks
}

fn blocks_of(page: &Path) -> Vec<Block> {
    let (text, name) = (fs::read_to_string(page).unwrap(), page.strip_prefix(root()).unwrap().display());
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (number, line) in text.lines().enumerate() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if let Some(block) = &mut open {
                block.text.push_str(line);
                block.text.push('\n');
            }
            continue;
        };
        match open.take() {
            Some(block) => blocks.push(block),
            None => {
                let place = format!("{name}:{}", number + 1);
                open = Some(Block { place, language: language.trim().to_owned(), text: String::new() });
            }
        }
    }
    assert!(open.is_none(), "{name}: a block has no end");
    blocks
}

/// What Compose makes of a file: the real one, without an engine.
fn compose(text: &str) -> Result<Value, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), text).unwrap();
    let program = root().join("target/world/venv/bin/docker-compose");
    let words = ["config", "--format", "json", "--no-interpolate", "--no-consistency"];
    let done =
        Command::new(program).args(words).current_dir(folder.path()).output().expect("run `make test-world` first");
    match done.status.success() {
        true => Ok(serde_json::from_slice(&done.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

/// Faults of dso's parts of a Compose file, and how many volumes of dso's it has.
fn check_compose(text: &str) -> (Vec<String>, usize) {
    let project = match compose(text) {
        Ok(project) => project,
        Err(error) => return (vec![error], 0),
    };
    let (mut faults, mut volumes) = (Vec::new(), 0);
    for (name, volume) in
        project["volumes"].as_object().into_iter().flatten().filter(|(_, volume)| volume["driver"] == "dso")
    {
        volumes += 1;
        let options = volume["driver_opts"].as_object().cloned().unwrap_or_default();
        let options: BTreeMap<_, _> = options.into_iter().map(|(key, value)| (key, text_of(&value))).collect();
        faults.extend(VolumeSpec::parse(&options).err().map(|fault| format!("volume `{name}`: {fault}")));
    }
    for (name, service) in project["services"].as_object().into_iter().flatten() {
        for (label, value) in
            service["labels"].as_object().into_iter().flatten().filter(|(label, _)| label.starts_with("dso."))
        {
            let fault = match label.as_str() {
                "dso.on-rotate" => text_of(value).parse::<OnRotate>().err(),
                "dso.verify-timeout" | "dso.on-failure" | "dso.allow" => None,
                _ => Some("unknown".into()),
            };
            faults.extend(fault.map(|fault| format!("service `{name}`: label `{label}`: {fault}")));
        }
    }
    (faults, volumes)
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn compose_files_are_such_for_compose_and_for_dso() {
    let (mut faults, mut volumes) = (Vec::new(), 0);
    let mut check = |place: &str, text: &str| {
        let (found, count) = check_compose(text);
        faults.extend(found.into_iter().map(|fault| format!("{place}: {fault}")));
        volumes += count;
    };
    for block in blocks().iter().filter(|block| matches!(block.language.as_str(), "yaml" | "yml")) {
        let top = |key: &str| block.text.lines().any(|line| line.starts_with(key));
        match top("services:") || top("volumes:") || top("secrets:") {
            true => check(&block.place, &block.text),
            false => assert!(
                top("scrape_configs:") || top("groups:") || top("rule_files:"),
                "{}: of what is this?",
                block.place
            ),
        }
    }
    for file in files(&root().join("examples"), "compose.yaml") {
        check(&file.display().to_string(), &fs::read_to_string(&file).unwrap());
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(volumes >= 8, "{volumes} volumes of dso's: are they still found?");
}

#[test]
fn a_fault_in_a_compose_file_would_be_found() {
    let file = |option: &str, label: &str| {
        format!(
            "services: {{ a: {{ image: x, labels: {{ {label} }} }} }}\nvolumes: {{ v: {{ driver: dso, driver_opts: {{ {option} }} }} }}\n"
        )
    };
    let count = |text: &str| check_compose(text).0.len();
    assert_eq!(count(&file("from: 'local://a'", "dso.on-rotate: restart")), 0);
    assert_eq!(count(&file("form: 'local://a'", "dso.on-rotate: restart")), 1);
    assert_eq!(count(&file("from: 'local://a'", "dso.on-rotate: reboot")), 1);
    assert_eq!(count("services: ["), 1);
}

#[test]
fn settings_are_those_of_dso_toml() {
    let mut faults = Vec::new();
    let blocks = blocks();
    let settings: Vec<_> = blocks.iter().filter(|block| block.language == "toml").collect();
    assert!(settings.len() > 10, "{} blocks: are they still found?", settings.len());
    for block in settings {
        // Keys of a login alone are for a table that stands further up on the page, with the address.
        let text = match block.text.contains('[') {
            true => block.text.clone(),
            false => format!("[provider.vault]\ntype = 'vault'\naddress = 'https://vault.example'\n{}", block.text),
        };
        faults.extend(check_settings(&text).into_iter().map(|fault| format!("{}: {fault}", block.place)));
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(
        check_settings("[provider.vault]\ntype = 'vault'\naddress = 'https://x'\nauth.methd = 'jwt'\n").len(),
        1
    );
    assert_eq!(check_settings("refesh = '1s'\n").len(), 1);
}

fn check_settings(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dso.toml"), text).unwrap();
    let host = HostFiles::on_host(folder.path());
    let (config, found) = Config::load(&|_: &str| None, &host);
    let registry = Registry::build(config.providers, &host);
    let broken = registry.broken().map(|(name, faults)| format!("[provider.{name}]: {faults}"));
    broken.chain((!found.is_empty()).then(|| found.to_string())).collect()
}

/// Programs of others that a block may call.
const OTHERS: [&str; 30] = [
    "#",
    "apt-get",
    "aws",
    "az",
    "bao",
    "base64",
    "cat",
    "cd",
    "chmod",
    "chown",
    "cp",
    "export",
    "head",
    "install",
    "jq",
    "journalctl",
    "kubectl",
    "ls",
    "mkdir",
    "openssl",
    "printf",
    "psql",
    "rm",
    "sh",
    "sudo",
    "systemctl",
    "tar",
    "umask",
    "vault",
    "promtool",
];

#[test]
fn command_lines_exist_with_the_options_that_they_use() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut faults = Vec::new();
    let mut own = 0;
    for block in blocks().iter().filter(|block| matches!(block.language.as_str(), "" | "sh" | "bash" | "console")) {
        let joined = block.text.replace("\\\n", " ");
        for command in joined.lines().flat_map(commands) {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            // A block without a language may also be a picture, or what a command prints.
            let is_shell = !block.language.is_empty();
            let fault = match words[..] {
                ["docker", "dso", ref arguments @ ..] => {
                    own += 1;
                    refused_by_dso(arguments)
                }
                ["docker", ..] => refused_by_docker(&words[1..]),
                ["make", target, ..] => (!makefile.lines().any(|line| line.starts_with(&format!("{target}:"))))
                    .then(|| "no such target".into()),
                ["curl", ..] => words.iter().find_map(|word| unknown_call(word)),
                [first, ..] => (is_shell && !OTHERS.contains(&first))
                    .then(|| "a program that the page's reader may not have".into()),
                [] => None,
            };
            faults.extend(fault.map(|fault| format!("{}: `{}`: {fault}", block.place, words.join(" "))));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(own >= 5, "{own} commands of dso's: are they still found?");
}

/// The commands of a line in words, without comments, what is printed and where it goes.
fn commands(line: &str) -> Vec<Vec<String>> {
    let line = line.trim_start_matches("$ ");
    let Ok(words) = shell_words::split(line) else { return Vec::new() };
    let words: Vec<_> = words.into_iter().take_while(|word| !word.starts_with('#')).collect();
    let commands = words.split(|word| matches!(word.as_str(), "|" | "&&" | "||" | ";" | "&"));
    let is_plain = |word: &&String| !word.starts_with(['<', '>']) && !word.starts_with("2>");
    let own = |command: &[String]| {
        let assigned = command.iter().take_while(|word| word.contains('=') && !word.starts_with('-')).count();
        command[assigned..].iter().filter(is_plain).cloned().collect::<Vec<_>>()
    };
    commands.map(own).filter(|command| !command.is_empty()).collect()
}

/// The parser of the real command, which stops at `--help`. Of a synopsis, what stands before the first choice.
fn refused_by_dso(arguments: &[&str]) -> Option<String> {
    let choice = |word: &&&str| word.contains('|') || word.starts_with('[') || **word == "…";
    let arguments: Vec<_> = arguments.iter().take_while(|word| !choice(word)).collect();
    let done = Command::new(env!("CARGO_BIN_EXE_docker-dso")).args(&arguments).arg("--help").output().unwrap();
    (!done.status.success()).then(|| String::from_utf8_lossy(&done.stderr).into_owned())
}

/// Docker's own help knows the subcommand and its options.
fn refused_by_docker(words: &[&str]) -> Option<String> {
    let depth = match words {
        ["compose", ..] => return None,
        [
            "plugin" | "volume" | "secret" | "service" | "swarm" | "stack" | "node" | "context" | "container"
            | "system",
            ..,
        ] => 2,
        _ => 1,
    };
    let command = &words[..depth.min(words.len())];
    let done = Command::new("docker").args(command).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() || !help.contains(&format!("docker {}", command.join(" "))) {
        return Some("no such command".into());
    }
    let options = words[command.len()..].iter().take_while(|word| word.starts_with('-'));
    let long =
        options.filter_map(|word| word.strip_prefix("--")).map(|word| word.split('=').next().unwrap_or_default());
    long.filter(|name| !help.contains(&format!("--{name}"))).map(|name| format!("no option --{name}")).next()
}

/// A path under the plugin's socket that its own description does not have.
fn unknown_call(word: &str) -> Option<String> {
    let (_, path) = word.split_once("http://dso/")?;
    let path = path.split('?').next().unwrap_or_default();
    let described: Value =
        serde_json::from_str(&fs::read_to_string(root().join("docs/openapi.json")).unwrap()).unwrap();
    let is_it = |known: &String| {
        let (known, path) = (known.trim_start_matches('/').split('/'), path.split('/'));
        known.clone().count() == path.clone().count()
            && known.zip(path).all(|(known, own)| known.starts_with('{') || known == own)
    };
    (!described["paths"].as_object().unwrap().keys().any(is_it)).then(|| format!("no call `/{path}`"))
}

#[test]
fn a_command_that_is_not_there_would_be_found() {
    assert!(refused_by_dso(&["secret", "ls"]).is_none());
    assert!(refused_by_dso(&["secret", "list-all"]).is_some());
    assert!(refused_by_dso(&["ls", "--colour"]).is_some());
    assert!(refused_by_docker(&["volume", "inspect", "x"]).is_none());
    assert!(refused_by_docker(&["volume", "look", "x"]).is_some());
    assert!(refused_by_docker(&["plugin", "disable", "--softly", "x"]).is_some());
    let line = "A=1 printf %s x | docker dso secret set app/db#password >/dev/null # as above";
    assert_eq!(commands(line), [vec!["printf", "%s", "x"], vec!["docker", "dso", "secret", "set", "app/db#password"]]);
}
