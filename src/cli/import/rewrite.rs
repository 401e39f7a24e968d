//! The edits that make a Compose file take its secrets from dso.

use super::{
    compose::{Found, Place, Project, Secret, Service},
    edits::Edits,
    store::Plan,
    yaml::{Kind, Node, Pair},
};
use std::{collections::BTreeSet, ops::Range, rc::Rc};

/// Where containers find their secrets, as Docker's own.
pub const FOLDER: &str = "/run/secrets";
/// Where something else is there.
const ELSEWHERE: &str = "/run/dso";

pub struct Rewrite<'a> {
    project: &'a Project<'a>,
    plan: &'a Plan,
    edits: Edits,
    notes: Vec<String>,
    folder: &'static str,
    /// How far the file indents.
    step: usize,
    newline: &'static str,
}

/// The edits, and what stays for a person to do.
pub fn rewrite(project: &Project<'_>, found: &Found, plan: &Plan) -> Result<(Edits, Vec<String>), String> {
    let newline = if project.text.contains("\r\n") { "\r\n" } else { "\n" };
    let folder = if is_taken(project, found) { ELSEWHERE } else { FOLDER };
    let mut rewrite =
        Rewrite { project, plan, edits: Edits::default(), notes: Vec::new(), folder, step: step(project), newline };
    found.masks.iter().for_each(|range| rewrite.edits.mask(range.clone()));
    let with_secrets: Vec<&Service> = found.services.iter().filter(|service| !service.secrets.is_empty()).collect();
    let names = volume_names(project, &with_secrets);
    for (service, volume) in with_secrets.iter().zip(&names) {
        rewrite.service(service, volume)?;
    }
    rewrite.definitions(found);
    rewrite.volumes(&with_secrets, &names)?;
    Ok((rewrite.edits, rewrite.notes))
}

fn step(project: &Project<'_>) -> usize {
    let services = project.tree.get(&project.tree.root, "services");
    services.filter(|pair| !pair.value.flow).map_or(2, |pair| column(project.text, &pair.value)).clamp(2, 8)
}

/// Where a block's first word is in its line.
fn column(text: &str, node: &Node) -> usize {
    let before = &text[..node.range.start];
    before.len() - before.rfind('\n').map_or(0, |at| at + 1)
}

/// Whether a service has something at the usual folder, or keeps secrets of Compose's.
fn is_taken(project: &Project<'_>, found: &Found) -> bool {
    let tree = &project.tree;
    found.services.iter().any(|service| {
        let keeps = tree.get(&service.node, "secrets").is_some()
            && !service.secrets.iter().any(|secret| matches!(secret.place, Place::Secrets(_)));
        let mounts = ["volumes", "tmpfs"].into_iter().filter_map(|key| tree.get(&service.node, key));
        let mut ranges = Vec::new();
        mounts.for_each(|pair| tree.resolve(&pair.value).words(&mut ranges));
        keeps || ranges.into_iter().any(|range| project.text[range].contains(FOLDER))
    })
}

fn volume_names(project: &Project<'_>, services: &[&Service]) -> Vec<String> {
    let tree = &project.tree;
    let existing = tree.get(&tree.root, "volumes").map(|pair| tree.pairs(&pair.value)).unwrap_or_default();
    let existing: BTreeSet<String> =
        existing.iter().filter_map(|pair| tree.text(&pair.key)).map(str::to_owned).collect();
    let free = |service: &&Service| {
        let plain = format!("{}-secrets", service.name);
        if existing.contains(&plain) { format!("{plain}-dso") } else { plain }
    };
    services.iter().map(free).collect()
}

// === impl Rewrite ===

impl Rewrite<'_> {
    fn service(&mut self, service: &Service, volume: &str) -> Result<(), String> {
        let mut added = Vec::new();
        for secret in &service.secrets {
            let path = format!("{}/{}", self.folder, secret.name);
            match &secret.place {
                Place::Variable { key, value } => self.variable(secret, key, value, &path),
                Place::Item(range) => self.edits.replace(range.clone(), format!("{}_FILE={path}", secret.name)),
                Place::EnvFile => added.push((format!("{}_FILE", secret.name), path)),
                Place::Secrets(pair) => self.remove(pair),
            }
        }
        // What goes into a list or map of the service before what follows it.
        let mut keys = String::new();
        let indent = column(self.project.text, &service.node);
        if !added.is_empty() {
            keys.push_str(&self.environment(service, &added, indent));
        }
        keys.push_str(&self.mount(service, volume, indent)?);
        if keys.is_empty() {
            return Ok(());
        }
        self.after_the_line(service.node.end(), &keys);
        Ok(())
    }

    fn variable(&mut self, secret: &Secret, key: &Range<usize>, value: &Range<usize>, path: &str) {
        self.edits.replace(key.clone(), format!("{}_FILE", secret.name));
        match value.is_empty() {
            false => self.edits.replace(value.clone(), path),
            true => {
                let colon = self.project.text[key.end..].find(':').map_or(key.end, |at| key.end + at + 1);
                self.edits.replace(colon..colon, format!(" {path}"));
            }
        }
    }

    /// Adds variables to the service's environment; returns what has to become a new key of the service.
    fn environment(&mut self, service: &Service, added: &[(String, String)], indent: usize) -> String {
        let tree = &self.project.tree;
        let (own, held) = (tree.own(&service.node, "environment"), tree.get(&service.node, "environment"));
        let pairs: Vec<String> = added.iter().map(|(name, path)| format!("{name}: {path}")).collect();
        let items: Vec<String> = added.iter().map(|(name, path)| format!("{name}={path}")).collect();
        match (own.map(|pair| pair.value), held) {
            (Some(node), _) if matches!(node.kind, Kind::Map(_)) => self.extend_map(&node, &pairs),
            (Some(node), _) if matches!(node.kind, Kind::List(_)) => self.extend_list(&node, &items, service),
            (None, None) if !service.node.flow => {
                let (deep, nl) = (" ".repeat(indent + self.step), self.newline);
                let lines: String = pairs.iter().map(|pair| format!("{deep}{pair}{nl}")).collect();
                return format!("{}environment:{nl}{lines}", " ".repeat(indent));
            }
            _ => self.notes.push(format!(
                "add to the environment of service {}, which is written elsewhere: {}",
                service.name,
                pairs.join(", ")
            )),
        }
        String::new()
    }

    /// Mounts the volume; returns what has to become a new key of the service.
    fn mount(&mut self, service: &Service, volume: &str, indent: usize) -> Result<String, String> {
        let tree = &self.project.tree;
        let mount = format!("{volume}:{}:ro", self.folder);
        if let Some(own) = tree.own(&service.node, "volumes")
            && matches!(own.value.kind, Kind::List(_))
        {
            self.extend_list(&own.value, &[mount], service);
            return Ok(String::new());
        }
        if service.node.flow {
            self.extend_map(&service.node, &[format!("volumes: [\"{mount}\"]")]);
            return Ok(String::new());
        }
        // A key of its own hides what a merge key brings: that goes along.
        let mut items = Vec::new();
        if let Some(merged) = tree.get(&service.node, "volumes") {
            for item in tree.items(&merged.value) {
                match (&tree.resolve(&item).kind, item.range.clone()) {
                    (Kind::Scalar { .. }, range) => items.push(self.project.text[range].to_owned()),
                    _ => {
                        self.notes.push(format!(
                            "add to the volumes of service {}, which are written elsewhere: {mount}",
                            service.name
                        ));
                        return Ok(String::new());
                    }
                }
            }
            if tree.own(&service.node, "volumes").is_some() {
                self.notes.push(format!(
                    "add to the volumes of service {}, which are written elsewhere: {mount}",
                    service.name
                ));
                return Ok(String::new());
            }
        }
        items.push(mount);
        let (outer, inner, nl) = (" ".repeat(indent), " ".repeat(self.step), self.newline);
        let lines: String = items.iter().map(|item| format!("{outer}{inner}- {item}{nl}")).collect();
        Ok(format!("{outer}volumes:{nl}{lines}"))
    }

    /// The file's own secrets that are not used any more.
    fn definitions(&mut self, found: &Found) {
        let tree = &self.project.tree;
        let Some(secrets) = tree.get(&tree.root, "secrets") else { return };
        let Kind::Map(pairs) = &tree.resolve(&secrets.value).kind else { return };
        let gone = |pair: &&Pair| tree.text(&pair.key).is_some_and(|name| found.replaced.contains(name));
        if pairs.iter().all(|pair| gone(&pair)) {
            self.remove(&secrets);
        } else if !secrets.value.flow {
            pairs.iter().filter(gone).for_each(|pair| self.remove(pair));
        }
    }

    /// The volumes that bring the secrets.
    fn volumes(&mut self, services: &[&Service], names: &[String]) -> Result<(), String> {
        let (tree, nl) = (&self.project.tree, self.newline);
        let own = tree.own(&tree.root, "volumes");
        let step = self.step;
        let block = own.as_ref().filter(|pair| matches!(pair.value.kind, Kind::Map(_)) && !pair.value.flow);
        let column = block.map_or(step, |pair| column(self.project.text, &pair.value));
        let mut lines = String::new();
        for (service, volume) in services.iter().zip(names) {
            let at = |deeper: usize| " ".repeat(column + deeper * step);
            lines.push_str(&format!("{}{volume}:{nl}{}driver: dso{nl}{}driver_opts:{nl}", at(0), at(1), at(1)));
            for (option, value) in self.options(service)? {
                lines.push_str(&format!("{}{option}: {value}{nl}", at(2)));
            }
        }
        match own {
            None => {
                let gap = if self.project.text.ends_with('\n') { nl.to_owned() } else { format!("{nl}{nl}") };
                self.edits.insert(self.project.text.len(), format!("{gap}volumes:{nl}{lines}"));
            }
            Some(pair) if pair.value.flow || !(pair.value.is_null() || matches!(pair.value.kind, Kind::Map(_))) => {
                return Err(
                    "the top-level `volumes` are written in braces: write them as a block, and try again".into()
                );
            }
            Some(pair) => {
                let end = pair.value.end().max(pair.key.range.end);
                self.after_the_line(end, &lines);
            }
        }
        Ok(())
    }

    fn options(&self, service: &Service) -> Result<Vec<(String, String)>, String> {
        let (mut options, mut seen) = (Vec::new(), BTreeSet::new());
        for secret in service.secrets.iter().filter(|secret| secret.value.is_some()) {
            if !seen.insert(&secret.name) {
                return Err(format!(
                    "service {}: two secrets would both be the file {}: `--except {}`",
                    service.name, secret.name, secret.name
                ));
            }
            options.push((
                word(&format!("file.{}", secret.name)),
                word(&self.plan.reference(&service.name, &secret.name)),
            ));
            for (key, value) in &secret.owner {
                options.push((word(&format!("{key}.{}", secret.name)), format!("\"{}\"", value.replace("0o", "0"))));
            }
        }
        Ok(options)
    }

    fn extend_map(&mut self, node: &Rc<Node>, pairs: &[String]) {
        if node.flow {
            return self.extend_brackets(node, pairs);
        }
        let (indent, nl) = (" ".repeat(column(self.project.text, node)), self.newline);
        let lines: String = pairs.iter().map(|pair| format!("{indent}{pair}{nl}")).collect();
        self.after_the_line(node.end(), &lines);
    }

    fn extend_list(&mut self, node: &Rc<Node>, items: &[String], service: &Service) {
        if node.flow {
            let items: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
            return self.extend_brackets(node, &items);
        }
        let before = &self.project.text[..node.range.start];
        let line = before.rfind('\n').map_or(0, |at| at + 1);
        let dash = before[line..].trim_start();
        if !dash.starts_with("- ") {
            return self.notes.push(format!("add to a list of service {}: {}", service.name, items.join(", ")));
        }
        let (indent, nl) = (&before[line..before.len() - dash.len()], self.newline);
        let lines: String = items.iter().map(|item| format!("{indent}- {item}{nl}")).collect();
        self.after_the_line(node.end(), &lines);
    }

    fn extend_brackets(&mut self, node: &Node, words: &[String]) {
        let last = match &node.kind {
            Kind::List(items) => items.last().map(|item| item.end()),
            Kind::Map(pairs) => pairs.last().map(|pair| pair.value.end().max(pair.key.range.end)),
            _ => None,
        };
        match last {
            Some(end) => self.edits.insert(end, format!(", {}", words.join(", "))),
            None => self.edits.insert(node.range.start + 1, words.join(", ")),
        }
    }

    /// Inserts whole lines after the one that ends what stands at `end`.
    fn after_the_line(&mut self, end: usize, lines: &str) {
        let text = self.project.text;
        match text[end..].find('\n') {
            Some(at) => self.edits.insert(end + at + 1, lines),
            None => self.edits.insert(text.len(), format!("{}{}", self.newline, lines.trim_end_matches(['\r', '\n']))),
        }
    }

    /// Takes the lines of a pair out, but for their comments.
    fn remove(&mut self, pair: &Pair) {
        let text = self.project.text;
        let start = text[..pair.key.range.start].rfind('\n').map_or(0, |at| at + 1);
        let end = pair.value.end().max(pair.key.range.end);
        let end = text[end..].find('\n').map_or(text.len(), |at| end + at + 1);
        let mut words = vec![pair.key.range.clone()];
        pair.value.words(&mut words);
        let mut at = start;
        for line in text[start..end].split_inclusive('\n') {
            let range = at..at + line.len();
            at = range.end;
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let last = words.iter().filter(|word| word.start < range.end).map(|word| word.end.min(range.end)).max();
            let after = &text[last.unwrap_or(range.start).max(range.start)..range.end];
            let kept = match after.find('#').filter(|at| after[..*at].ends_with([' ', '\t'])) {
                Some(comment) => {
                    let indent = &line[..line.len() - line.trim_start().len()];
                    format!("{indent}{}", &after[comment..])
                }
                None => String::new(),
            };
            self.edits.replace(range, kept);
        }
    }
}

/// As a word of YAML: plain where that is safe.
fn word(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:#".contains(c)) && !text.ends_with(':');
    if plain { text.into() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}
