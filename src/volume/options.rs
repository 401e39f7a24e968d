//! Volume options, from the strings that Docker hands over to a [`VolumeSpec`]. Pure: nothing is asked of
//! a provider, so that a volume's existence never depends on one.

use super::{
    on_rotate::OnRotate,
    template::{self, Template},
};
use crate::{
    faults::{self, Faults},
    paths::check_path,
    secret::{RefError, SecretId, SecretRef},
    units,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// The options as Docker sends and stores them: references and settings, never values.
pub type Options = BTreeMap<String, String>;

pub const SIZE_DEFAULT: u64 = 1 << 20;
pub const SIZE_MAX: u64 = 64 << 20;
const MAX_STALE_DEFAULT: Duration = Duration::from_secs(3600);

const PLAIN: [&str; 9] = ["from", "delimiters", "mode", "uid", "gid", "refresh", "max-stale", "size", "on-rotate"];
const PER_PATH: [&str; 5] = ["file", "template", "mode", "uid", "gid"];
/// Parts of option names that announce a credential.
const CREDENTIALS: [&str; 8] =
    ["token", "password", "passwd", "secret-id", "secret-key", "access-key", "credential", "api-key"];

/// What a volume is to hold and how it is to be kept.
#[derive(Clone, Debug)]
pub struct VolumeSpec {
    /// Every field of this secret becomes a file.
    pub from: Option<SecretRef>,
    /// Single files by path.
    pub files: BTreeMap<String, Source>,
    /// Of every file that has no attributes of its own.
    pub attributes: Attributes,
    own_attributes: BTreeMap<String, OwnAttributes>,
    /// `None` where the plugin's setting holds; zero means never.
    pub refresh: Option<Duration>,
    pub max_stale: Duration,
    pub size: u64,
    /// What to do to the containers after a change; `None` where the plugin's setting holds.
    pub on_rotate: Option<OnRotate>,
}

/// Where one file's contents come from.
#[derive(Clone, Debug)]
pub enum Source {
    Secret(SecretRef),
    Template(Template),
}

/// Mode and owner of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct OwnAttributes {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

// === impl VolumeSpec ===

impl VolumeSpec {
    /// Parses options; every fault is in the one error.
    pub fn parse(options: &Options) -> Result<Self, Faults> {
        let (spec, faults) = Self::read(options);
        faults.or(spec)
    }

    /// What can be understood of the options, and every fault of the rest.
    pub fn read(options: &Options) -> (Self, Faults) {
        let mut parser = Parser { options, faults: Faults::default() };
        let spec = parser.spec();
        (spec, parser.faults)
    }

    /// The distinct secrets that the volume needs.
    pub fn secrets(&self) -> BTreeSet<Arc<SecretId>> {
        let from = self.from.iter().map(|reference| reference.id.clone());
        from.chain(self.files.values().flat_map(Source::secrets)).collect()
    }

    /// The options that ask for a secret, as a message names them: "option `from`", "options `file.a`, `template.b`".
    pub fn options_for(&self, id: &SecretId) -> String {
        let from = self.from.iter().filter(|from| *from.id == *id).map(|_| "`from`".to_owned());
        let own = self.files.iter().filter(|(_, source)| source.references().iter().any(|own| *own.id == *id));
        let names: Vec<_> = from.chain(own.map(|(path, source)| format!("`{}.{path}`", source.kind()))).collect();
        format!("option{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
    }

    /// Mode and owner of the file at `path`.
    pub fn attributes_of(&self, path: &str) -> Attributes {
        let own = self.own_attributes.get(path).copied().unwrap_or_default();
        Attributes {
            mode: own.mode.unwrap_or(self.attributes.mode),
            uid: own.uid.unwrap_or(self.attributes.uid),
            gid: own.gid.unwrap_or(self.attributes.gid),
        }
    }

    /// Paths that options name attributes for; with `from` they are known only when it has been read.
    pub fn paths_with_attributes(&self) -> impl Iterator<Item = &str> {
        self.own_attributes.keys().map(String::as_str)
    }
}

// === impl Source ===

impl Source {
    /// The first part of the option's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Secret(_) => "file",
            Self::Template(_) => "template",
        }
    }

    pub fn references(&self) -> Vec<&SecretRef> {
        match self {
            Self::Secret(reference) => vec![reference],
            Self::Template(template) => template.references().collect(),
        }
    }

    fn secrets(&self) -> impl Iterator<Item = Arc<SecretId>> + '_ {
        self.references().into_iter().map(|reference| reference.id.clone())
    }
}

// === parsing ===

struct Parser<'a> {
    options: &'a Options,
    faults: Faults,
}

impl Parser<'_> {
    fn spec(&mut self) -> VolumeSpec {
        let meant_a_source = self.check_names();
        let from = self.value("from", |text| text.parse().map_err(|fault: RefError| fault.of(text)));
        let files = self.files();
        let own_attributes = self.own_attributes(from.is_some(), &files);
        let has_source = |key: &String| key == "from" || key.starts_with("file.") || key.starts_with("template.");
        if !meant_a_source && !self.options.keys().any(has_source) {
            self.faults.push("at least one of `from`, `file.<path>` and `template.<path>` is needed");
        }
        VolumeSpec {
            from,
            files,
            attributes: Attributes {
                mode: self.value("mode", units::mode).unwrap_or(0o444),
                uid: self.value("uid", units::id).unwrap_or(0),
                gid: self.value("gid", units::id).unwrap_or(0),
            },
            own_attributes,
            refresh: self.value("refresh", units::refresh),
            max_stale: self.value("max-stale", units::duration).unwrap_or(MAX_STALE_DEFAULT),
            size: self.value("size", size).unwrap_or(SIZE_DEFAULT),
            on_rotate: self.value("on-rotate", str::parse),
        }
    }

    fn value<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.options.get(key)?;
        self.faults.note(parse(text), format_args!("option `{key}`"))
    }

    /// Whether an unknown name is most likely a mistyped source, which is then not missed as well.
    fn check_names(&mut self) -> bool {
        let mut meant_a_source = false;
        for key in self.options.keys() {
            let known = PLAIN.contains(&key.as_str())
                || key.split_once('.').is_some_and(|(kind, path)| PER_PATH.contains(&kind) && !path.is_empty());
            if known {
                continue;
            }
            let kind = key.split_once('.').map_or(key.as_str(), |(kind, _)| kind);
            let nearest = faults::nearest(kind, PLAIN.into_iter().chain(PER_PATH));
            meant_a_source |= matches!(nearest, Some("from" | "file" | "template"));
            let lower = key.to_ascii_lowercase().replace('_', "-");
            self.faults.push(if CREDENTIALS.iter().any(|name| lower.contains(name)) {
                format!(
                    "option `{key}` would carry a credential: dso takes none in options, since `docker inspect` shows them; \
                     it logs in with the identity that /etc/dso/dso.toml names"
                )
            } else {
                match key.split_once('.') {
                    Some((kind, path)) if !path.is_empty() => faults::unknown("option", kind, PER_PATH),
                    _ => faults::unknown("option", key, PLAIN),
                }
            });
        }
        meant_a_source
    }

    /// `file.<path>` and `template.<path>`.
    fn files(&mut self) -> BTreeMap<String, Source> {
        let delimiters = self.options.get("delimiters").map(String::as_str);
        let syntax = self.faults.note(template::syntax(delimiters), "option `delimiters`").unwrap_or_default();
        let mut files = BTreeMap::new();
        for (key, text) in self.options {
            let Some((kind @ ("file" | "template"), path)) = key.split_once('.') else { continue };
            let source = match kind {
                "file" => text.parse().map(Source::Secret).map_err(|fault: RefError| fault.of(text)),
                _ => Template::parse(text, syntax.clone()).map(Source::Template),
            };
            let source = self.faults.note(source, format_args!("option `{key}`"));
            if self.faults.note(check_path(path), format_args!("option `{key}`")).is_none() {
                continue;
            }
            if key.starts_with("template.") && self.options.contains_key(&format!("file.{path}")) {
                self.faults.push(format!("two sources for `{path}`: `file.{path}` and `template.{path}`"));
                continue;
            }
            if let Some(source) = source {
                files.insert(path.to_owned(), source);
            }
        }
        self.check_directories();
        files
    }

    /// A path that is also a directory of another.
    fn check_directories(&mut self) {
        let paths: BTreeSet<_> = self.options.keys().filter_map(|key| path_of(key, &["file", "template"])).collect();
        for path in &paths {
            let under = format!("{path}/");
            if let Some(other) = paths.iter().find(|other| other.starts_with(&under)) {
                self.faults.push(format!("`{path}` cannot be a file and the directory of `{other}`"));
            }
        }
    }

    fn own_attributes(&mut self, from: bool, files: &BTreeMap<String, Source>) -> BTreeMap<String, OwnAttributes> {
        let mut all = BTreeMap::<String, OwnAttributes>::new();
        for (key, text) in self.options {
            let Some(path) = path_of(key, &["mode", "uid", "gid"]) else { continue };
            let parse = if key.starts_with("mode") { units::mode } else { units::id };
            let Some(number) = self.faults.note(parse(text), format_args!("option `{key}`")) else { continue };
            let named = self.options.contains_key(&format!("file.{path}"))
                || self.options.contains_key(&format!("template.{path}"));
            if !from && !named {
                let hint = faults::nearest(path, files.keys().map(String::as_str));
                let hint = hint.map(|path| format!(": did you mean `{path}`?")).unwrap_or_default();
                self.faults.push(format!("option `{key}` is for a file that the volume does not have{hint}"));
                continue;
            }
            let own = all.entry(path.to_owned()).or_default();
            match &key[..3] {
                "mod" => own.mode = Some(number),
                "uid" => own.uid = Some(number),
                _ => own.gid = Some(number),
            }
        }
        all
    }
}

fn path_of<'a>(key: &'a str, kinds: &[&str]) -> Option<&'a str> {
    key.split_once('.').filter(|(kind, path)| kinds.contains(kind) && !path.is_empty()).map(|(_, path)| path)
}

fn size(text: &str) -> Result<u64, String> {
    let size = units::size(text)?;
    if !(4096..=SIZE_MAX).contains(&size) {
        return Err(format!("`{text}` is out of range: from `4k` to `64m`"));
    }
    Ok(size)
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
