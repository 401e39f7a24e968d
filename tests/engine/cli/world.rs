//! A plugin, its store, and `docker dso` with its output as it is in every run.

use crate::support::{BUSYBOX, SOON, engine::Engine, local::LocalSecrets, plugin::Plugin, wait_for};
use std::process::{Command, Output};

const SCRIPT: &str = "trap 'grep -q ^bad /secrets/password && exit 1' HUP; while :; do sleep 0.05; done";

pub struct Desk {
    pub plugin: Plugin,
    pub store: LocalSecrets,
}

/// How a command ended, and what it wrote, without what differs from run to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

// === impl Desk ===

impl Desk {
    pub fn start(toml: &str) -> Self {
        let plugin = Plugin::on(&Engine::system()).config("dso.toml", toml).start();
        let store = LocalSecrets::in_dir(&plugin.config_dir());
        Self { plugin, store }
    }

    pub fn engine(&self) -> &Engine {
        self.plugin.engine()
    }

    /// A volume, by its name.
    #[track_caller]
    pub fn create(&self, name: &str, options: &[&str]) -> String {
        let (name, driver) = (self.plugin.named(name), self.plugin.driver());
        let options = options.iter().flat_map(|option| ["--opt", option]);
        let words: Vec<_> =
            ["volume", "create", "--driver", &driver].into_iter().chain(options).chain([&*name]).collect();
        self.engine().docker(&words)
    }

    /// A container that has the volume at /secrets, waits, and minds no SIGHUP, but ends at one when the password begins with `bad`;
    /// `words` go to `docker run`.
    #[track_caller]
    pub fn run(&self, name: &str, volume: &str, words: &[&str]) -> String {
        let (name, mount) = (self.plugin.named(name), self.plugin.mount(volume, "/secrets", &[]));
        let run = ["run", "--detach", "--name", &name, "--network=none", "--stop-timeout=0", "--mount", &mount];
        self.engine().docker(&[&run[..], words, &[BUSYBOX, "sh", "-c", SCRIPT]].concat());
        wait_for("the container to be seen", SOON, || {
            let users = self.plugin.status(volume)["containers"].clone();
            users.as_array().into_iter().flatten().any(|user| user["name"] == *name)
        });
        name
    }

    /// `docker dso …`, not started.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.engine().command();
        command.args(["dso", "--plugin", &self.plugin.driver()]).args(words);
        command
    }

    pub fn dso(&self, words: &[&str]) -> Ran {
        self.ran(self.command(words).output().expect("docker dso"))
    }

    /// What a command prints that must succeed.
    #[track_caller]
    pub fn prints(&self, words: &[&str]) -> String {
        let ran = self.dso(words);
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "docker dso {}: {}", words.join(" "), ran.out);
        ran.out
    }

    pub fn ran(&self, output: Output) -> Ran {
        let text = |bytes: Vec<u8>| self.normal(&String::from_utf8(bytes).expect("UTF-8"));
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// `T` is this test's own name, which begins the names of all that it made; times and IDs are their kind.
    ///
    /// By hand, and not by the crate `insta`: what is expected stands beside what is done, and there is little to replace.
    pub fn normal(&self, text: &str) -> String {
        let own = self.plugin.driver();
        let text = text.replace(self.plugin.id(), "ID").replace(own.trim_end_matches(":latest"), "T");
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Columns are as wide as names are long, and names have a process's number.
fn line(text: &str) -> String {
    let indent = text.len() - text.trim_start().len();
    let mut words: Vec<String> = Vec::new();
    for column in text.trim().split("   ").map(str::trim).filter(|column| !column.is_empty()) {
        words.push(column.split(' ').map(word).collect::<Vec<_>>().join(" "));
    }
    let mut line = words.join(" | ");
    for number in 0..60 {
        for unit in ["seconds", "second", "minutes"] {
            line = if_whole(&line, &format!("{number} {unit}"));
        }
    }
    for age in ["less than a second", "about a minute"] {
        line = line.replace(age, "AGE");
    }
    format!("{}{line}", &text[..indent])
}

fn if_whole(line: &str, age: &str) -> String {
    let mut kept = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(age) {
        let digit = rest[..at].ends_with(|c: char| c.is_ascii_digit());
        kept.push_str(&rest[..at]);
        kept.push_str(if digit { age } else { "AGE" });
        rest = &rest[at + age.len()..];
    }
    kept + rest
}

/// Times and IDs, in the quotes that they may have.
fn word(word: &str) -> String {
    let mut shown = String::new();
    for piece in word.split_inclusive(['"', ',', '\'', '(', ')']) {
        let (text, end) = piece.split_at(piece.trim_end_matches(['"', ',', '\'', '(', ')']).len());
        shown += match text {
            _ if text.len() >= 20 && text.ends_with('Z') && text[10..].starts_with('T') => "TIME",
            _ if is_id(text) => "ID",
            _ => text,
        };
        shown += end;
    }
    shown
}

/// Whole, or as Docker shortens it.
fn is_id(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    matches!(text.len(), 12 | 64) && text.bytes().all(hex) && text.bytes().any(|byte| byte.is_ascii_digit())
}

#[test]
fn what_differs_from_run_to_run_is_named_by_its_kind() {
    let id = "0123456789abcdef".repeat(4);
    for (text, normal) in [
        ("VOLUME        AGE", "VOLUME | AGE"),
        ("  a  12 seconds ago   in 1 second", "  a  AGE ago | in AGE"),
        ("\"at\":\"2026-11-27T13:00:00.123Z\",", "\"at\":\"TIME\","),
        (&format!("(\"{id}\")"), "(\"ID\")"),
    ] {
        assert_eq!(line(text), normal);
    }
}
