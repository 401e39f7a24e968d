//! A YAML file as a tree that knows where each word stands, so that an edit touches nothing else.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::{collections::HashMap, ops::Range, rc::Rc};
use zeroize::Zeroizing;

/// How deep a file may nest; no Compose file comes near.
const DEEPEST: usize = 64;

/// One document.
pub struct Tree {
    pub root: Rc<Node>,
    anchors: HashMap<usize, Rc<Node>>,
}

/// A value and its bytes in the text, without its anchor and tag.
pub struct Node {
    pub range: Range<usize>,
    pub kind: Kind,
    /// Of a list or map: whether it is written in brackets.
    pub flow: bool,
}

pub enum Kind {
    Scalar {
        text: Zeroizing<String>,
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Vec<Pair>),
    /// Stands for the node with this anchor.
    Alias(usize),
}

#[derive(Clone)]
pub struct Pair {
    pub key: Rc<Node>,
    pub value: Rc<Node>,
}

struct Reader<'a> {
    text: &'a str,
    /// The byte at which each character begins, and the end.
    bytes: Vec<usize>,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
}

// === impl Tree ===

impl Tree {
    /// Parses a file of one document. The fault names a line, and nothing of its text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bytes = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut reader = Reader { text, bytes, parser: Parser::new_from_str(text), anchors: HashMap::new() };
        let mut root = None;
        loop {
            let (event, span) = reader.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if root.is_some() => return Err("has several documents, and Compose takes one".into()),
                event => root = Some(reader.node(event, span, 0)?),
            }
        }
        let root = root.ok_or("is empty")?;
        Ok(Self { root, anchors: reader.anchors })
    }

    /// The node itself, or what its alias stands for.
    pub fn resolve(&self, node: &Rc<Node>) -> Rc<Node> {
        match &node.kind {
            Kind::Alias(anchor) => self.anchors.get(anchor).cloned().unwrap_or_else(|| node.clone()),
            _ => node.clone(),
        }
    }

    pub fn text<'a>(&self, node: &'a Node) -> Option<&'a str> {
        match &node.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The pairs of a map; then those that its merge keys (`<<`) bring, nearest first. The first of a name holds.
    pub fn pairs(&self, node: &Rc<Node>) -> Vec<Pair> {
        let mut found = Vec::new();
        self.gather(node, 0, &mut found);
        found
    }

    fn gather(&self, node: &Rc<Node>, depth: usize, found: &mut Vec<Pair>) {
        let node = self.resolve(node);
        let (Kind::Map(pairs), true) = (&node.kind, depth < DEEPEST) else { return };
        let is_merge = |pair: &&Pair| self.text(&pair.key) == Some("<<");
        found.extend(pairs.iter().filter(|pair| !is_merge(pair)).cloned());
        for merge in pairs.iter().filter(is_merge) {
            let merged = self.resolve(&merge.value);
            match &merged.kind {
                Kind::List(several) => several.iter().for_each(|one| self.gather(one, depth + 1, found)),
                _ => self.gather(&merged, depth + 1, found),
            }
        }
    }

    /// What holds for `name` in a map, also by a merge key.
    pub fn get(&self, node: &Rc<Node>, name: &str) -> Option<Pair> {
        self.pairs(node).into_iter().find(|pair| self.text(&pair.key) == Some(name))
    }

    /// What the map itself has under `name`.
    pub fn own(&self, node: &Node, name: &str) -> Option<Pair> {
        let Kind::Map(pairs) = &node.kind else { return None };
        pairs.iter().find(|pair| self.text(&pair.key) == Some(name)).cloned()
    }

    pub fn items(&self, node: &Rc<Node>) -> Vec<Rc<Node>> {
        match &self.resolve(node).kind {
            Kind::List(items) => items.clone(),
            _ => Vec::new(),
        }
    }
}

// === impl Node ===

impl Node {
    /// `null`, `~` or nothing.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The end of the last word in it.
    pub fn end(&self) -> usize {
        match &self.kind {
            Kind::List(items) if !self.flow => items.last().map_or(self.range.end, |item| item.end()),
            Kind::Map(pairs) if !self.flow => {
                pairs.last().map_or(self.range.end, |pair| pair.value.end().max(pair.key.range.end))
            }
            _ => self.range.end,
        }
    }

    /// The places of all words in it, in their order.
    pub fn words(&self, found: &mut Vec<Range<usize>>) {
        match &self.kind {
            Kind::List(items) => items.iter().for_each(|item| item.words(found)),
            Kind::Map(pairs) => pairs.iter().for_each(|pair| {
                pair.key.words(found);
                pair.value.words(found);
            }),
            _ => found.push(self.range.clone()),
        }
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            // The parser's own words may hold some of the text.
            Some(Err(error)) => Err(format!("is no YAML (line {})", error.marker().line())),
            None => Err("ends too early".into()),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Rc<Node>, String> {
        if depth > DEEPEST {
            return Err(format!("nests too deep (line {})", span.start.line()));
        }
        let start = self.byte(span.start.index());
        let opened = self.text[start..self.byte(span.end.index())].trim_end();
        let flow = opened.ends_with(['{', '[']);
        // Of what is in brackets, the bracket; its anchor stands before it.
        let from = if flow { start + opened.len() - 1 } else { start };
        let (anchor, node) = match event {
            Event::Alias(anchor) => {
                (0, Node { range: start..self.byte(span.end.index()), kind: Kind::Alias(anchor), flow: false })
            }
            Event::Scalar(text, style, anchor, _) => {
                let range = self.scalar(style, span)?;
                let text = Zeroizing::new(text.into_owned());
                let kind = Kind::Scalar { text, plain: style == ScalarStyle::Plain };
                (anchor, Node { range, kind, flow: false })
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                let last = items.last().map_or(from + usize::from(flow), |item| item.end());
                (anchor, self.collection(from, last, Kind::List(items), flow.then_some(']'))?)
            }
            Event::MappingStart(anchor, _) => {
                let mut pairs = Vec::new();
                loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, _) => break,
                        (event, span) => self.node(event, span, depth + 1)?,
                    };
                    let (event, span) = self.next()?;
                    pairs.push(Pair { key, value: self.node(event, span, depth + 1)? });
                }
                let last = |pair: &Pair| pair.value.end().max(pair.key.range.end);
                let last = pairs.last().map_or(from + usize::from(flow), last);
                (anchor, self.collection(from, last, Kind::Map(pairs), flow.then_some('}'))?)
            }
            _ => return Err(format!("is no YAML (line {})", span.start.line())),
        };
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn collection(&self, start: usize, last: usize, kind: Kind, closed: Option<char>) -> Result<Node, String> {
        let Some(bracket) = closed else {
            // Without the anchor and the first dash.
            let first = match &kind {
                Kind::List(items) => items.first().map(|item| item.range.start),
                Kind::Map(pairs) => pairs.first().map(|pair| pair.key.range.start),
                _ => None,
            };
            let start = first.unwrap_or(start);
            return Ok(Node { range: start..last.max(start), kind, flow: false });
        };
        let mut at = last;
        for line in self.text[last..].split_inclusive('\n') {
            // Between the last word and the bracket there are commas, colons of empty values, and comments.
            match line.find(|c: char| !(c.is_whitespace() || c == ',' || c == ':')) {
                Some(found) if line[found..].starts_with(bracket) => {
                    return Ok(Node { range: start..at + found + 1, kind, flow: true });
                }
                Some(found) if !line[found..].starts_with('#') => break,
                _ => at += line.len(),
            }
        }
        Err(format!("has a `{bracket}` that cannot be placed"))
    }

    /// What the parser calls a scalar's place begins after the head of a block (`|`), and may end in a comment.
    fn scalar(&self, style: ScalarStyle, span: Span) -> Result<Range<usize>, String> {
        let (start, end) = (self.byte(span.start.index()), self.byte(span.end.index()));
        let line = span.start.line();
        let trimmed = |from: usize| from..from + self.text[from..end.max(from)].trim_end().len();
        match style {
            ScalarStyle::Plain => Ok(trimmed(start + properties(&self.text[start..end]))),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                let quote = if style == ScalarStyle::SingleQuoted { '\'' } else { '"' };
                let start = start + properties(&self.text[start..end]);
                let length = quoted(&self.text[start..], quote);
                length.map(|length| start..start + length).ok_or(format!("has a quote without its end (line {line})"))
            }
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let with_properties = start + properties(&self.text[start..end]);
                let head = block_head(&self.text[..start])
                    .or_else(|| self.text[with_properties..].starts_with(['|', '>']).then_some(with_properties))
                    .ok_or(format!("has a block that cannot be placed (line {line})"))?;
                Ok(head..trimmed(start).end)
            }
        }
    }

    fn byte(&self, character: usize) -> usize {
        self.bytes[character.min(self.bytes.len() - 1)]
    }
}

/// How long the anchor and the tag at the start are, with the space after them.
fn properties(text: &str) -> usize {
    let mut rest = text;
    while rest.starts_with(['&', '!']) {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        rest = rest[end..].trim_start();
    }
    text.len() - rest.len()
}

/// How long the quoted text at the start is, with its quotes.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut characters = text.char_indices().peekable();
    characters.next().filter(|(_, first)| *first == quote)?;
    while let Some((at, character)) = characters.next() {
        if character == '\\' && quote == '"' {
            characters.next();
        } else if character == quote {
            if quote == '\'' && characters.peek().is_some_and(|(_, next)| *next == quote) {
                characters.next();
            } else {
                return Some(at + 1);
            }
        }
    }
    None
}

/// Where the `|` or `>` is that begins the block whose content follows `before`.
fn block_head(before: &str) -> Option<usize> {
    let before = before.trim_end();
    let line = before.rfind('\n').map_or(0, |at| at + 1);
    let heads = before[line..].match_indices(['|', '>']).map(|(at, _)| line + at);
    let is_head = |at: &usize| {
        let after = before[at + 1..].trim_start_matches(|c: char| "+-".contains(c) || c.is_ascii_digit());
        let alone = after.is_empty() || after.starts_with([' ', '\t']) && after.trim_start().starts_with('#');
        alone && before[..*at].ends_with([' ', '\t'])
    };
    heads.into_iter().find(is_head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "x-env: &env   # hi\n  A: 'it''s'   # c\n  B:\n  C: | # head | more\n    line1\n\n    line2\n\n  \
        # tail\nservices:\n  web:\n    environment:\n      <<: *env\n      D: ${X:-a b}  # z\n      E: &pw \"q\\\"\" # q\n      \
        L: multi\n        line # k\n      F: *pw\n      G: &blk |-\n        &x\n        y\n    list:\n    - A=b\n    - \"ö=1\"   # z\n    flow: {a: b, c: [d, 'e'], } # x\n    \
        emp: { }\n    far: [\n      a, # comma ,\n      b,\n    ]\n    tag: !!str 12\n    pl: &pl a b\n  # end\n";

    fn words(text: &str) -> Vec<&str> {
        let tree = Tree::parse(text).unwrap();
        let mut ranges = Vec::new();
        tree.root.words(&mut ranges);
        ranges.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn every_word_is_where_it_says() {
        assert_eq!(
            words(TEXT),
            [
                "x-env",
                "A",
                "'it''s'",
                "B",
                "",
                "C",
                "| # head | more\n    line1\n\n    line2",
                "services",
                "web",
                "environment",
                "<<",
                "*env",
                "D",
                "${X:-a b}",
                "E",
                "\"q\\\"\"",
                "L",
                "multi\n        line",
                "F",
                "*pw",
                "G",
                "|-\n        &x\n        y",
                "list",
                "A=b",
                "\"ö=1\"",
                "flow",
                "a",
                "b",
                "c",
                "d",
                "'e'",
                "emp",
                "far",
                "a",
                "b",
                "tag",
                "12",
                "pl",
                "a b",
            ]
        );
        assert_eq!(words(&TEXT.replace('\n', "\r\n")).len(), words(TEXT).len());
    }

    #[test]
    fn brackets_are_found_past_comments_and_trailing_commas() {
        let tree = Tree::parse(TEXT).unwrap();
        let web = tree.get(&tree.get(&tree.root, "services").unwrap().value, "web").unwrap().value;
        let shown = |name: &str| &TEXT[tree.get(&web, name).unwrap().value.range.clone()];
        assert_eq!(shown("flow"), "{a: b, c: [d, 'e'], }");
        assert_eq!(shown("emp"), "{ }");
        assert!(shown("far").ends_with("b,\n    ]"));
        assert!(TEXT[web.end()..].starts_with("\n  # end"), "{:?}", &TEXT[web.end()..]);
    }

    #[test]
    fn merges_bring_what_the_map_itself_does_not_have() {
        let text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 0\n";
        let tree = Tree::parse(text).unwrap();
        let c = tree.get(&tree.root, "c").unwrap().value;
        let value = |name| tree.text(&tree.get(&c, name).unwrap().value).unwrap().to_owned();
        assert_eq!((value("x"), value("y"), value("z")), ("0".into(), "2".into(), "4".into()));
        assert!(tree.own(&c, "y").is_none() && tree.pairs(&c).len() == 5);
    }

    #[test]
    fn faults_name_a_line_and_not_its_text() {
        for text in ["a: hunter2: b", "a: 'hunter2", "a: [hunter2", "a: 1\n---\nb: hunter2\n", ""] {
            let fault = Tree::parse(text).err().unwrap();
            assert!(!fault.contains("hunter"), "{fault}");
        }
        assert!(Tree::parse(&"[".repeat(1000)).is_err());
    }
}
