//! Holds the house's rules: which module may import which, where foreign crates stay, how long a file may be.
//!
//! What stands in a file's own tests may break them: fakes come from elsewhere.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Module → what it may import of ours. A name with `::` is that part alone.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("api", &["driver", "volume"]),
    ("reconcile", &["driver", "docker", "volume", "secret"]),
    ("driver", &["volume", "provider", "projection", "secret"]),
    ("docker", &["volume"]),
    ("provider", &["secret"]),
    ("projection", &["secret"]),
    ("volume", &["secret"]),
    ("cli", &["docker", "volume", "provider::local", "config"]),
    ("config", &[]),
    ("logging", &["config"]),
    ("secret", &[]),
    ("shutdown", &[]),
];

/// Stand beneath everything: any module may import them, and they import one another alone.
const LEAVES: [&str; 11] =
    ["audit", "events", "metrics", "faults", "findings", "host", "settings", "paths", "memory", "units", "watch"];

/// May import everything: where the parts are put together.
const ROOTS: [&str; 4] = ["app", "main", "bin", "lib"];

/// A foreign path → the modules that it stays in.
const STAYS_IN: [(&str, &[&str]); 21] = [
    ("prometheus", &["metrics"]),
    ("hyper", &["api", "docker"]),
    ("hyper_util", &["api", "docker"]),
    ("http_body_util", &["api", "docker"]),
    ("bollard", &["docker"]),
    ("aws_config", &["provider::aws"]),
    ("aws_credential_types", &["provider::aws"]),
    ("aws_sdk_secretsmanager", &["provider::aws"]),
    ("aws_sigv4", &["provider::aws"]),
    ("aws_smithy_http_client", &["provider::aws"]),
    ("aws_lc_rs", &["provider::azure"]),
    ("azure_core", &["provider::azure"]),
    ("azure_identity", &["provider::azure"]),
    ("azure_security_keyvault_secrets", &["provider::azure"]),
    ("vaultrs", &["provider::vault"]),
    ("reqwest", &["provider::azure", "provider::trust", "provider::vault"]),
    ("age", &["provider::local"]),
    ("saphyr_parser", &["cli::import"]),
    ("std::env::var", &["config", "main", "bin"]),
    ("std::env::var_os", &["config", "main", "bin"]),
    ("std::env::vars", &["config", "main", "bin"]),
];

/// Where no secret value may come.
const WITHOUT_VALUES: [&str; 3] = ["docker", "volume", "reconcile"];

/// Near 300 is the aim; past this a file has become two.
const LONGEST: usize = 450;

#[test]
fn every_module_imports_only_what_the_design_lets_it() {
    hold(imports);
}

#[test]
fn foreign_crates_and_the_environment_stay_where_they_belong() {
    hold(foreigners);
}

#[test]
fn secret_values_stay_out_of_modules_that_need_none() {
    hold(values);
}

#[test]
fn no_file_is_too_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [rust_files(&root.join("src")), rust_files(&root.join("tests"))].concat();
    let long = files.iter().filter_map(|path| {
        let lines = fs::read_to_string(path).unwrap().lines().count();
        (lines > LONGEST).then(|| format!("{}: {lines} lines, and {LONGEST} is the most", path.display()))
    });
    assert_eq!(long.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn each_rule_finds_a_fault_that_was_planted() {
    let faults = |module: &str, text: &str, rule: fn(&File) -> Vec<String>| {
        rule(&File { place: module.into(), module: module.into(), text: product(text) }).len()
    };
    assert_eq!(faults("volume", "use crate::{\n    secret::SecretRef, provider::{Provider, local},\n};", imports), 2);
    assert_eq!(faults("volume", "use crate::{faults::Faults, secret::SecretRef, volume::x};", imports), 0);
    assert_eq!(faults("volume", "fn f() { crate::driver::run() }", imports), 1);
    assert_eq!(faults("volume", "/// As [`crate::driver`].\n// crate::app\nfn f() {}", imports), 0);
    assert_eq!(faults("volume", "#[cfg(test)]\nmod tests {\n    use crate::provider::Provider;\n}", imports), 0);
    assert_eq!(faults("volume", "#[cfg(test)]\nuse crate::provider::Provider;\nuse crate::driver::D;", imports), 1);
    assert_eq!(faults("cli", "use crate::provider::{local::Store, vault};", imports), 1);
    assert_eq!(faults("volume", "use super::super::provider::Provider;", imports), 1);
    assert_eq!(faults("stray", "", imports), 1, "a module that is not in the table");
    assert_eq!(faults("faults", "use crate::secret::SecretRef;", imports), 1);
    assert_eq!(faults("driver", "use hyper::body::Incoming;", foreigners), 1);
    assert_eq!(faults("driver", "fn f(body: hyper::body::Incoming) {}", foreigners), 1);
    assert_eq!(faults("driver", "fn f() { tokio_hyper::x() }", foreigners), 0);
    assert_eq!(faults("driver", "use std::{env::{self, var}, fs};", foreigners), 1);
    assert_eq!(faults("driver", "use std::{env, fs};\nfn f() { env::var(\"X\") }", foreigners), 1);
    assert_eq!(faults("provider::vault::client", "use vaultrs::client::Client;", foreigners), 0);
    assert_eq!(faults("provider::vaultless", "use vaultrs::client::Client;", foreigners), 1);
    assert_eq!(faults("volume", "use crate::secret::{SecretRef, SecretValue};", values), 1);
}

/// A file of the product without comments and tests.
struct File {
    /// How messages name it.
    place: String,
    /// `provider::vault::client`
    module: String,
    text: String,
}

fn hold(rule: fn(&File) -> Vec<String>) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let faults = rust_files(&source).into_iter().flat_map(|path| {
        let place = path.strip_prefix(&source).unwrap().display().to_string();
        let module = place.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        let is_test = module.split("::").any(|part| part == "tests");
        let text = product(&fs::read_to_string(&path).unwrap());
        if is_test { Vec::new() } else { rule(&File { place, module, text }) }
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

fn imports(file: &File) -> Vec<String> {
    let top = file.module.split("::").next().unwrap();
    if ROOTS.contains(&top) {
        return Vec::new();
    }
    let table = BTreeMap::from(MAY_IMPORT);
    let Some(allowed) = table.get(top).copied().or(LEAVES.contains(&top).then_some(&[][..])) else {
        return vec![format!("src/{}: module `{top}` is not in the table of tests/house.rs", file.place)];
    };
    let mut faults = Vec::new();
    for path in paths(&file.text, "crate") {
        let ours = path.strip_prefix("crate::").unwrap();
        let is = |name: &&str| ours == *name || ours.starts_with(&format!("{name}::"));
        if !(is(&top) || LEAVES.iter().any(is) || allowed.iter().any(is)) {
            faults.push(format!("src/{}: `{top}` may not import `{path}`", file.place));
        }
    }
    // A way around: from a module's own file `super` is the crate, from one below it `super::super`.
    let depth = file.module.split("::").count();
    if file.text.contains(&format!("{}::", vec!["super"; depth].join("::"))) {
        faults.push(format!("src/{}: leaves its module by `super`: say `crate::`", file.place));
    }
    faults
}

fn foreigners(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    for (foreign, homes) in STAYS_IN {
        let at_home = homes.iter().any(|home| file.module == *home || file.module.starts_with(&format!("{home}::")));
        let root = foreign.split("::").next().unwrap();
        let mut named = paths(&file.text, root);
        if root == "std" {
            named.extend(paths(&file.text, "env").into_iter().map(|path| format!("std::{path}")));
        }
        if !at_home && named.iter().any(|path| path == foreign || path.starts_with(&format!("{foreign}::"))) {
            faults.push(format!("src/{}: `{foreign}` stays in {homes:?}", file.place));
        }
    }
    faults
}

fn values(file: &File) -> Vec<String> {
    let top = file.module.split("::").next().unwrap();
    let found = WITHOUT_VALUES.contains(&top) && file.text.contains("SecretValue");
    found.then(|| format!("src/{}: no `SecretValue` in `{top}`", file.place)).into_iter().collect()
}

/// Every path that begins with `root::`, with its groups taken apart: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(text: &str, root: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&format!("{root}::")) {
        let before = text[..at].chars().next_back();
        if !before.is_some_and(|character| character.is_alphanumeric() || "_:".contains(character)) {
            take_apart("", &text[at..], &mut found);
        }
    }
    found
}

/// Reads one path at the start of `text`, and says how much of it that was.
fn take_apart(prefix: &str, text: &str, found: &mut Vec<String>) -> usize {
    let word = |text: &str| text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (mut path, mut at) = (prefix.to_owned(), 0);
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            loop {
                at += text[at..].len() - text[at..].trim_start_matches(|c: char| c.is_whitespace() || c == ',').len();
                if text[at..].is_empty() || text[at..].starts_with('}') {
                    return (at + 1).min(text.len());
                }
                let taken = take_apart(&path, &text[at..], found);
                // What is no path (`*`, `as x`) is passed over.
                at += taken.max(1);
            }
        }
        let length = word(rest);
        path.push_str(&rest[..length]);
        at += length;
        if length == 0 || !text[at..].starts_with("::") {
            found.push(path.trim_end_matches("::").trim_end_matches("::self").to_owned());
            return at;
        }
        path.push_str("::");
        at += 2;
    }
}

/// Without comments, the tests at the end, and single lines that are for tests alone.
fn product(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            if lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{')) {
                break;
            }
            lines.next();
        } else if !line.trim_start().starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}
