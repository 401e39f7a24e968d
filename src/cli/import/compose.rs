//! Reads which secrets a Compose file gives to which service, and where they stand.

use super::{
    dotenv,
    names::Choice,
    numeric,
    variables::{Lookup, interpolate},
    yaml::{Kind, Node, Pair, Tree},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
};
use zeroize::Zeroizing;

/// A Compose file, and what is around it.
pub struct Project<'a> {
    pub text: &'a str,
    pub tree: Tree,
    pub folder: PathBuf,
    pub lookup: Lookup<'a>,
    pub choice: &'a Choice,
}

/// What was found.
#[derive(Default)]
pub struct Found {
    pub services: Vec<Service>,
    /// Secrets of the file's own `secrets:` that no service needs from Compose any more.
    pub replaced: BTreeSet<String>,
    /// What stays to be done by a person, or was left alone.
    pub notes: Vec<String>,
    /// Files that hold what was taken, and the lines where that is known.
    pub sources: BTreeMap<PathBuf, BTreeSet<usize>>,
    /// Variables whose values were taken.
    pub variables: BTreeSet<String>,
    /// Values that must not be shown, wherever they stand.
    pub masks: Vec<Range<usize>>,
}

pub struct Service {
    pub name: String,
    pub node: Rc<Node>,
    pub secrets: Vec<Secret>,
}

pub struct Secret {
    pub name: String,
    /// `None` where another entry of the name hides it: it moves along, and nothing of it is taken.
    pub value: Option<Zeroizing<Vec<u8>>>,
    pub place: Place,
    /// Options of the file: `mode`, `uid`, `gid`.
    pub owner: Vec<(&'static str, String)>,
}

/// Where a service has a secret from.
pub enum Place {
    /// `NAME: value`
    Variable { key: Range<usize>, value: Range<usize> },
    /// `- NAME=value`
    Item(Range<usize>),
    /// In an `env_file`, which is left as it is.
    EnvFile,
    /// In `secrets:` of the service, which is this pair.
    Secrets(Pair),
}

/// A file's own `secrets:`, by name.
type Defined = BTreeMap<String, Result<Zeroizing<Vec<u8>>, String>>;

// === impl Project ===

impl Project<'_> {
    pub fn read(&self) -> Result<Found, String> {
        let mut found = Found::default();
        let services =
            self.tree.get(&self.tree.root, "services").ok_or("has no `services`, so it is no Compose file")?;
        let defined = self.defined(&mut found)?;
        let services: Vec<Pair> = self.tree.pairs(&services.value);
        // Beside a secret of Compose's own there can be no volume at /run/secrets.
        let convertible = self.all_convertible(&services, &defined, &mut found);
        for pair in &services {
            let Some(name) = self.tree.text(&pair.key) else { continue };
            if let Kind::Alias(_) = pair.value.kind {
                found.notes.push(format!("service {name} is an alias of another as a whole, and is left as it is"));
                continue;
            }
            let node = pair.value.clone();
            let mut service = Service { name: name.into(), node, secrets: Vec::new() };
            self.environment(&mut service, &mut found)?;
            self.env_files(&mut service, &mut found)?;
            if convertible {
                self.secrets(&mut service, &defined)?;
            }
            if self.tree.get(&service.node, "extends").is_some() {
                found.notes.push(format!("service {name} extends another: what it has from there is not looked at"));
            }
            found.services.push(service);
        }
        if convertible {
            self.replace(&services, &defined, &mut found);
        }
        if self.tree.get(&self.tree.root, "include").is_some() {
            found.notes.push("files under `include:` are not looked at: import each".into());
        }
        Ok(found)
    }

    fn environment(&self, service: &mut Service, found: &mut Found) -> Result<(), String> {
        let Some(environment) = self.tree.get(&service.node, "environment") else { return Ok(()) };
        let environment = self.tree.resolve(&environment.value);
        let mut seen = BTreeSet::new();
        match &environment.kind {
            Kind::Map(_) => {
                for Pair { key, value } in self.tree.pairs(&environment) {
                    let Some(name) = self.tree.text(&key).map(str::to_owned) else { continue };
                    let resolved = self.tree.resolve(&value);
                    let Some(text) = self.tree.text(&resolved) else { continue };
                    let given = if resolved.is_null() { None } else { Some(text) };
                    let shadowed = !seen.insert(name.clone());
                    let place = Place::Variable { key: key.range.clone(), value: value.range.clone() };
                    self.refuse_number(&service.name, &name, &resolved)?;
                    found.masks.extend(self.secret_range(&name, given, &resolved));
                    self.variable(service, found, name, given, shadowed, place)?;
                }
            }
            Kind::List(items) => {
                for item in items {
                    let resolved = self.tree.resolve(item);
                    let Some(text) = self.tree.text(&resolved) else { continue };
                    let (name, given) = match text.split_once('=') {
                        Some((name, value)) => (name, Some(value)),
                        None => (text, None),
                    };
                    let shadowed = !seen.insert(name.to_owned());
                    if self.taken(name, given) {
                        found.masks.push(after_the_name(self.text, &resolved.range));
                    }
                    self.variable(service, found, name.to_owned(), given, shadowed, Place::Item(item.range.clone()))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn variable(
        &self,
        service: &mut Service,
        found: &mut Found,
        name: String,
        given: Option<&str>,
        shadowed: bool,
        place: Place,
    ) -> Result<(), String> {
        let (value, used) = match given {
            Some(text) => {
                interpolate(text, self.lookup).map_err(|why| format!("service {}: `{name}`: {why}", service.name))?
            }
            None => match (self.lookup)(&name) {
                Some(value) => (value, BTreeSet::from([name.clone()])),
                None => return Ok(()),
            },
        };
        let takes = match shadowed {
            true => service.secrets.iter().any(|secret| secret.name == name),
            false => self.choice.takes(&name, &value),
        };
        if !takes {
            return Ok(());
        }
        found.variables.extend(used);
        let value = (!shadowed).then(|| Zeroizing::new(value.as_bytes().to_vec()));
        service.secrets.push(Secret { name, value, place, owner: Vec::new() });
        Ok(())
    }

    fn refuse_number(&self, service: &str, name: &str, node: &Node) -> Result<(), String> {
        match &node.kind {
            Kind::Scalar { text, plain: true } if numeric::is_rewritten(text) && self.choice.takes(name, text) => {
                Err(format!(
                    "service {service}: `{name}` is a number without quotes, which Compose hands on in another writing: put it \
                     into quotes as the container has it (`docker compose config` shows that)"
                ))
            }
            _ => Ok(()),
        }
    }

    fn taken(&self, name: &str, given: Option<&str>) -> bool {
        let value = given.and_then(|text| interpolate(text, self.lookup).ok());
        value.is_some_and(|(value, _)| self.choice.takes(name, &value) || super::names::is_secret(name, &value))
    }

    fn secret_range(&self, name: &str, given: Option<&str>, node: &Node) -> Option<Range<usize>> {
        self.taken(name, given).then(|| node.range.clone())
    }

    fn env_files(&self, service: &mut Service, found: &mut Found) -> Result<(), String> {
        let Some(files) = self.tree.get(&service.node, "env_file") else { return Ok(()) };
        let listed = self.tree.items(&files.value);
        let files = if listed.is_empty() { vec![files.value] } else { listed };
        let environment = self.environment_names(&service.node);
        let mut entries: BTreeMap<String, (Zeroizing<String>, PathBuf, usize)> = BTreeMap::new();
        for file in files {
            let path = self.tree.get(&file, "path").map_or(file.clone(), |pair| pair.value);
            let required =
                self.tree.get(&file, "required").is_none_or(|pair| self.tree.text(&pair.value) != Some("false"));
            let Some(named) = self.tree.text(&self.tree.resolve(&path)).map(str::to_owned) else { continue };
            let path = self.folder.join(&*interpolate(&named, self.lookup)?.0);
            let text = match fs::read_to_string(&path) {
                Ok(text) => Zeroizing::new(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => continue,
                Err(error) => {
                    return Err(format!("service {}: cannot read `{}`: {error}", service.name, path.display()));
                }
            };
            let parsed = dotenv::parse(&text, self.lookup).map_err(|why| format!("{}: {why}", path.display()))?;
            for entry in parsed {
                let Some(value) = entry.value.or_else(|| (self.lookup)(&entry.name)) else { continue };
                entries.insert(entry.name, (value, path.clone(), entry.line));
            }
        }
        for (name, (value, path, line)) in entries {
            if self.choice.takes(&name, &value) && !environment.contains(&name) {
                let value = Some(Zeroizing::new(value.as_bytes().to_vec()));
                found.sources.entry(path.clone()).or_default().insert(line);
                found.notes.push(format!(
                    "take the line {line} ({name}) out of {}: until then service {} has the value in its environment too",
                    path.display(),
                    service.name
                ));
                service.secrets.push(Secret { name, value, place: Place::EnvFile, owner: Vec::new() });
            }
        }
        Ok(())
    }

    /// Which variables a service has by `environment`.
    fn environment_names(&self, service: &Rc<Node>) -> BTreeSet<String> {
        let Some(environment) = self.tree.get(service, "environment") else { return BTreeSet::new() };
        let keys = self
            .tree
            .pairs(&environment.value)
            .into_iter()
            .filter_map(|pair| self.tree.text(&pair.key).map(str::to_owned));
        let items = self.tree.items(&environment.value).into_iter().filter_map(|item| {
            let text = self.tree.text(&item)?;
            Some(text.split('=').next().unwrap_or(text).to_owned())
        });
        keys.chain(items).collect()
    }

    /// The file's own secrets, with their values or why they are left to Compose.
    fn defined(&self, found: &mut Found) -> Result<Defined, String> {
        let Some(secrets) = self.tree.get(&self.tree.root, "secrets") else { return Ok(Defined::new()) };
        let mut defined = Defined::new();
        for Pair { key, value } in self.tree.pairs(&secrets.value) {
            let Some(name) = self.tree.text(&key) else { continue };
            let text = |key: &str| {
                let pair = self.tree.get(&value, key)?;
                let node = self.tree.resolve(&pair.value);
                self.tree.text(&node).map(str::to_owned)
            };
            let source = match (text("file"), text("environment")) {
                (Some(file), _) => {
                    let path = self.folder.join(&*interpolate(&file, self.lookup)?.0);
                    match fs::read(&path) {
                        Ok(bytes) => {
                            found.sources.entry(path).or_default();
                            Ok(Zeroizing::new(bytes))
                        }
                        Err(error) => Err(format!("cannot read `{}`: {error}", path.display())),
                    }
                }
                (None, Some(variable)) => match (self.lookup)(&variable) {
                    Some(value) => {
                        found.variables.insert(variable);
                        Ok(Zeroizing::new(value.as_bytes().to_vec()))
                    }
                    None => Err(format!("the variable `{variable}` has no value")),
                },
                _ => Err("it is not defined by `file` or `environment`".into()),
            };
            let source = match self.chosen(name) {
                true => source,
                false => Err("it was not chosen".into()),
            };
            defined.insert(name.to_owned(), source);
        }
        Ok(defined)
    }

    /// A secret needs no telling name, but may be left out by a person.
    fn chosen(&self, name: &str) -> bool {
        let among = |names: &[String]| names.iter().any(|known| known == name);
        !among(&self.choice.except) && (self.choice.only.is_empty() || among(&self.choice.only))
    }

    fn all_convertible(&self, services: &[Pair], defined: &Defined, found: &mut Found) -> bool {
        let mut all = true;
        for service in services {
            let Some(pair) = self.tree.get(&service.value, "secrets") else { continue };
            let name = self.tree.text(&service.key).unwrap_or_default();
            for item in self.tree.items(&pair.value) {
                let Some(source) = self.source_of(&item) else { continue };
                if let Some(Err(why)) = defined.get(&source) {
                    found.notes.push(format!(
                        "secret {source} of service {name} stays Compose's, and so do all others: {why}"
                    ));
                    all = false;
                }
            }
            if self.tree.resolve(&service.value).flow {
                found.notes.push(format!(
                    "service {name} is written in braces: its `secrets` stay Compose's, and so do all others"
                ));
                all = false;
            }
        }
        all
    }

    fn source_of(&self, item: &Rc<Node>) -> Option<String> {
        let item = self.tree.resolve(item);
        let long = self.tree.get(&item, "source").and_then(|pair| self.tree.text(&pair.value).map(str::to_owned));
        long.or_else(|| self.tree.text(&item).map(str::to_owned))
    }

    fn secrets(&self, service: &mut Service, defined: &Defined) -> Result<(), String> {
        let Some(pair) = self.tree.get(&service.node, "secrets") else { return Ok(()) };
        for item in self.tree.items(&pair.value) {
            let Some(source) = self.source_of(&item) else { continue };
            let Some(Ok(value)) = defined.get(&source) else {
                return Err(format!("service {}: secret {source} is not defined under `secrets:`", service.name));
            };
            let of_item = |key: &str| {
                let pair = self.tree.get(&item, key)?;
                self.tree.text(&pair.value).map(str::to_owned)
            };
            let target = of_item("target").unwrap_or_else(|| source.clone());
            let name = target.strip_prefix("/run/secrets/").unwrap_or(&target).to_owned();
            if name.starts_with('/') {
                return Err(format!(
                    "service {}: secret {source} has its target outside of /run/secrets: `--except {source}`",
                    service.name
                ));
            }
            let owner = ["mode", "uid", "gid"].into_iter().filter_map(|key| Some((key, of_item(key)?))).collect();
            service.secrets.push(Secret {
                name,
                value: Some(value.clone()),
                place: Place::Secrets(pair.clone()),
                owner,
            });
        }
        Ok(())
    }

    /// Which of the file's own secrets nobody needs any more.
    fn replace(&self, services: &[Pair], defined: &Defined, found: &mut Found) {
        let of_build = |service: &Pair| {
            let build = self.tree.get(&service.value, "build")?;
            let secrets = self.tree.get(&build.value, "secrets")?;
            Some(self.tree.items(&secrets.value).iter().filter_map(|item| self.source_of(item)).collect::<Vec<_>>())
        };
        let building: BTreeSet<String> = services.iter().filter_map(of_build).flatten().collect();
        let used = |name: &&String| {
            services.iter().any(|service| {
                let pair = self.tree.get(&service.value, "secrets");
                pair.is_some_and(|pair| {
                    self.tree.items(&pair.value).iter().any(|item| self.source_of(item).as_ref() == Some(name))
                })
            })
        };
        let replaced =
            defined.iter().filter(|(name, value)| value.is_ok() && !building.contains(*name)).map(|(name, _)| name);
        found.replaced = replaced.filter(used).cloned().collect();
    }
}

/// Of `NAME=value`, quoted or not, where the value stands.
fn after_the_name(text: &str, range: &Range<usize>) -> Range<usize> {
    let at = text[range.clone()].find('=').map_or(range.start, |at| range.start + at + 1);
    at..range.end
}

/// Where `path` is, for messages: relative to the folder where that is shorter.
pub fn shown(path: &Path, folder: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}
