//! Text → tree.

use std::{collections::HashMap, path::Path};

use casemate_model::{Fault, FaultKind};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

use super::node::{Key, Kind, Node, Spot};

/// Largest file, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Most values in one tree, with aliases expanded.
const MAX_NODES: usize = 100_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 100;

/// Reads and parses a file.
///
/// # Errors
/// `FileNotFound`, `FileNotReadable` or `InvalidYaml`, naming the file and, for the last, line and column.
pub fn read_file(path: &Path) -> Result<Node, Fault> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let here = std::env::current_dir().map(|here| here.display().to_string()).unwrap_or_default();
            return Fault::invalid(
                "FileNotFound",
                format!("There is no file '{shown}' (looked for from '{here}'). Check the path given with --file."),
            );
        }
        Fault::invalid("FileNotReadable", format!("The file '{shown}' can't be read: {error}."))
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(Fault::new(
            FaultKind::TooLarge,
            "FileTooLarge",
            format!("The file '{shown}' has {size} bytes; a YAML file may have at most {MAX_BYTES}."),
        ));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        Fault::invalid("InvalidYaml", format!("The file '{shown}' is not UTF-8 text: {}.", error.utf8_error()))
    })?;
    parse(&text, &shown.to_string())
}

/// Parses one document; `name` is how messages call it. An empty document is an empty mapping.
///
/// # Errors
/// `InvalidYaml` with line and column: a syntax error, a duplicate key, a key that is no plain text, a second
/// document, or a tree larger than the limits.
pub fn parse(text: &str, name: &str) -> Result<Node, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder =
        Builder { name, events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, documents: 0 };
    builder.document()
}

struct Builder<'a, I: Iterator> {
    name: &'a str,
    events: I,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
}

fn spot_of(span: &Span) -> Spot {
    Spot { line: span.start.line(), column: span.start.col() + 1 }
}

impl<'t, 'a, I> Builder<'a, I>
where
    I: Iterator<Item = Result<(Event<'t>, Span), serde_saphyr::granit_parser::ScanError>>,
{
    fn fault(&self, spot: Spot, why: impl std::fmt::Display) -> Fault {
        Fault::invalid("InvalidYaml", format!("{}:{spot}: {why}.", self.name))
    }

    /// The next event that is no comment.
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Fault> {
        loop {
            match self.events.next() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(Some(event)),
                Some(Err(error)) => {
                    let marker = error.marker();
                    let spot = Spot { line: marker.line(), column: marker.col() + 1 };
                    return Err(self.fault(spot, error.info()));
                }
            }
        }
    }

    fn document(&mut self) -> Result<Node, Fault> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                Event::DocumentStart(..) => {
                    self.documents += 1;
                    if self.documents > 1 {
                        return Err(self.fault(spot_of(&span), "a second document starts here; give one per file"));
                    }
                }
                event => root = Some(self.node(event, &span, 0)?),
            }
        }
        Ok(match root {
            Some(root) if !root.is_null() => root,
            _ => Node::empty_map(),
        })
    }

    fn count(&mut self, nodes: usize, spot: Spot) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(self.fault(spot, format!("the file holds more than {MAX_NODES} values")));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, Fault> {
        let spot = spot_of(span);
        if depth > MAX_DEPTH {
            return Err(self.fault(spot, format!("the values are nested deeper than {MAX_DEPTH} levels")));
        }
        self.count(1, spot)?;
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let forced_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let plain = style == ScalarStyle::Plain && !forced_text;
                (Kind::Scalar { text: text.into_owned(), plain }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (Kind::List(self.items(depth)?), anchor),
            Event::MappingStart(_, anchor, _) => (Kind::Map(self.entries(depth)?), anchor),
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor).cloned() else {
                    return Err(self.fault(spot, "this alias names a value that it is itself part of"));
                };
                self.count(size_of_tree(&target), spot)?;
                return Ok(Node { spot: Some(spot), kind: target.kind });
            }
            _ => return Err(self.fault(spot, "a value is missing here")),
        };
        let node = Node { spot: Some(spot), kind };
        if anchor != 0 {
            self.count(size_of_tree(&node), spot)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn required(&mut self) -> Result<(Event<'t>, Span), Fault> {
        self.next()?.ok_or_else(|| Fault::invalid("InvalidYaml", format!("{}: the file ends early.", self.name)))
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.required()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Fault> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged: Vec<(Key, Node)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = self.required()?;
            let spot = spot_of(&span);
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => {
                    return Err(self.fault(
                        spot,
                        "a key must be plain text (is this a template whose {{placeholders}} are not filled in?)",
                    ));
                }
            };
            let (event, span) = self.required()?;
            let value = self.node(event, &span, depth + 1)?;
            if key == "<<" {
                merged.extend(self.merge_source(value)?);
                continue;
            }
            if !seen.insert(key.clone()) {
                return Err(self.fault(spot, format!("the key '{key}' stands twice in this mapping")));
            }
            entries.push((Key { text: key, spot: Some(spot) }, value));
        }
        entries.extend(merged.into_iter().filter(|(key, _)| seen.insert(key.text.clone())));
        Ok(entries)
    }

    /// The entries that `<<: *alias` (or a list of aliases) brings in.
    fn merge_source(&self, value: Node) -> Result<Vec<(Key, Node)>, Fault> {
        let spot = value.spot.unwrap_or(Spot { line: 1, column: 1 });
        match value.kind {
            Kind::Map(entries) => Ok(entries),
            Kind::List(items) => {
                let mut all = Vec::new();
                for item in items {
                    let Kind::Map(entries) = item.kind else {
                        return Err(self.fault(spot, "'<<' merges mappings only"));
                    };
                    all.extend(entries);
                }
                Ok(all)
            }
            Kind::Scalar { .. } => Err(self.fault(spot, "'<<' merges mappings only")),
        }
    }
}

fn size_of_tree(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 1,
        Kind::List(items) => 1 + items.iter().map(size_of_tree).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, value)| size_of_tree(value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents() {
        for (text, value) in [
            ("a: 1\nb: [x, 'y', \"1\"]\nc:\n  d: true\n", json!({"a": 1, "b": ["x", "y", "1"], "c": {"d": true}})),
            ("", json!({})),
            ("# only a comment\n", json!({})),
            ("\u{feff}a: ü\n", json!({"a": "ü"})),
            (
                "base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n",
                json!({"base": {"x": 1, "y": 2}, "use": {"x": 1, "y": 3}}),
            ),
            ("a: !!str 1\n", json!({"a": "1"})),
            ("a: |\n  one\n  two\n", json!({"a": "one\ntwo\n"})),
            ("{\"json\": [1, null]}", json!({"json": [1, null]})),
            ("---\na: 1\n...\n", json!({"a": 1})),
        ] {
            assert_eq!(parse(text, "t.yml").unwrap().to_json(), value, "{text}");
        }
    }

    #[test]
    fn spots_count_from_one() {
        let root = parse("a: 1\nb:\n  c: x\n", "t.yml").unwrap();
        let c = root.get("b").unwrap().get("c").unwrap();
        assert_eq!(c.spot, Some(Spot { line: 3, column: 6 }));
    }

    #[test]
    fn refusals_name_the_place() {
        let bomb = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            format!("{text}a{i}: &a{i} [{refs}]\n")
        });
        let deep = "[".repeat(120) + &"]".repeat(120);
        for (text, place) in [
            ("a: 1\na: 2\n", "t.yml:2:1: the key 'a' stands twice"),
            ("a: [1, 2\n", "t.yml:"),
            ("a: 1\n  b: 2\n", "t.yml:2:"),
            ("name: {{ENDPOINT}}\n", "t.yml:1:"),
            ("a: 1\n---\nb: 2\n", "t.yml:2:"),
            ("a: *nowhere\n", "t.yml:1:"),
            ("a: &a [*a]\n", "t.yml:1:"),
            ("<<: 3\n", "'<<' merges mappings only"),
            ("\t- x: [", "t.yml:"),
            (bomb.as_str(), "more than 100000 values"),
            (deep.as_str(), "t.yml:1:"),
        ] {
            let fault = parse(text, "t.yml").expect_err(text);
            assert_eq!(fault.code, "InvalidYaml");
            assert!(fault.message.contains(place), "{} lacks {place}", fault.message);
        }
    }

    #[test]
    fn files() {
        let dir = std::env::temp_dir().join(format!("casemate-yaml-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let missing = read_file(&dir.join("none.yml")).unwrap_err();
        assert_eq!(missing.code, "FileNotFound");
        std::fs::write(dir.join("binary.yml"), b"\xff\xfe\x00").unwrap();
        assert!(read_file(&dir.join("binary.yml")).unwrap_err().message.contains("UTF-8"));
        assert_eq!(read_file(&dir).unwrap_err().code, "FileNotReadable");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
