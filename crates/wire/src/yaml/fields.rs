//! Reading a mapping field by field, strictly: what nobody asked for is a mistake, named with its place and, where
//! one is close, the field that was probably meant. All mistakes of a file are reported at once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use casemate_model::Fault;
use serde_json::Value;

use super::node::{Key, Kind, Node, Scalar, Spot};

/// Most mistakes reported for one file.
const MAX_ISSUES: usize = 20;

/// The mistakes found in one file.
#[derive(Debug)]
pub struct Issues {
    source: String,
    found: RefCell<Vec<(Option<Spot>, String)>>,
}

impl Issues {
    /// No mistakes yet; `source` is how messages call the file.
    #[must_use]
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), found: RefCell::new(Vec::new()) }
    }

    /// Notes one.
    pub fn add(&self, spot: Option<Spot>, message: impl Into<String>) {
        let mut found = self.found.borrow_mut();
        if found.len() < MAX_ISSUES {
            found.push((spot, message.into()));
        }
    }

    /// The value, if nothing is wrong.
    ///
    /// # Errors
    /// `ValidationError` with one line for each mistake: file, line, column, what is wrong.
    pub fn finish<T>(self, value: T) -> Result<T, Fault> {
        let mut found = self.found.into_inner();
        if found.is_empty() {
            return Ok(value);
        }
        found.sort_by_key(|(spot, _)| spot.map_or((usize::MAX, 0), |spot| (spot.line, spot.column)));
        let lines: Vec<String> = found
            .iter()
            .map(|(spot, message)| match spot {
                Some(spot) => format!("{}:{spot}: {message}", self.source),
                None => format!("{}: {message}", self.source),
            })
            .collect();
        Err(Fault::invalid("ValidationError", lines.join("\n")))
    }
}

/// A mapping being read.
pub struct Fields<'a> {
    what: String,
    spot: Option<Spot>,
    entries: &'a [(Key, Node)],
    known: RefCell<BTreeSet<&'static str>>,
    issues: &'a Issues,
}

impl<'a> Fields<'a> {
    /// Opens a mapping; `what` is how messages call it, such as `the endpoint`. Anything else than a mapping is noted
    /// as a mistake.
    #[must_use]
    pub fn open(node: &'a Node, what: &str, issues: &'a Issues) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            issues.add(node.spot, format!("{what} must be a mapping, not {}.", node.describe()));
            return None;
        };
        let known = RefCell::new(BTreeSet::new());
        Some(Self { what: what.to_owned(), spot: node.spot, entries, known, issues })
    }

    /// Where the mistakes go.
    #[must_use]
    pub fn issues(&self) -> &'a Issues {
        self.issues
    }

    /// The field's value; null counts as absent. The field is known from now on.
    pub fn node(&self, name: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().insert(name);
        self.entries.iter().find(|(key, value)| key.text == name && !value.is_null()).map(|(_, value)| value)
    }

    /// Fields that may stand there, because the platform's own output has them, but say nothing.
    pub fn ignore(&self, names: &[&'static str]) {
        self.known.borrow_mut().extend(names);
    }

    /// Fields of the original that this platform does not have yet: a mistake that says so.
    pub fn refuse(&self, names: &[&'static str]) {
        for name in names {
            if let Some(node) = self.node(name) {
                self.issues.add(
                    node.spot,
                    format!("'{name}' in {} is not supported by casemate yet; remove the field.", self.what),
                );
            }
        }
    }

    /// Notes a missing field.
    pub fn require(&self, name: &'static str, present: bool) {
        if !present {
            self.issues.add(self.spot, format!("{} needs the field '{name}'.", self.what));
        }
    }

    /// Notes a mistake of the mapping as a whole.
    pub fn mistake(&self, message: impl Into<String>) {
        self.issues.add(self.spot, message);
    }

    fn wrong(&self, name: &str, node: &Node, wanted: &str) {
        self.issues.add(node.spot, format!("'{name}' in {} must be {wanted}, not {}.", self.what, node.describe()));
    }

    /// A text; numbers and booleans are taken as written.
    pub fn text(&self, name: &'static str) -> Option<String> {
        let node = self.node(name)?;
        let text = node.as_written();
        if text.is_none() {
            self.wrong(name, node, "a text");
        }
        text.map(str::to_owned)
    }

    /// A boolean.
    pub fn boolean(&self, name: &'static str) -> Option<bool> {
        let node = self.node(name)?;
        match node.scalar() {
            Some(Scalar::Bool(value)) => Some(value),
            Some(Scalar::Text(text)) if text.eq_ignore_ascii_case("true") => Some(true),
            Some(Scalar::Text(text)) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => {
                self.wrong(name, node, "true or false");
                None
            }
        }
    }

    /// A whole number from 0 up.
    pub fn count(&self, name: &'static str) -> Option<u64> {
        let node = self.node(name)?;
        let count = whole(node);
        if count.is_none() {
            self.wrong(name, node, "a whole number from 0 up");
        }
        count
    }

    /// A number.
    pub fn number(&self, name: &'static str) -> Option<f64> {
        let node = self.node(name)?;
        match node.scalar() {
            #[allow(clippy::cast_precision_loss, reason = "a rate or a share: small numbers")]
            Some(Scalar::Int(value)) => Some(value as f64),
            Some(Scalar::Float(value)) => Some(value),
            _ => {
                self.wrong(name, node, "a number");
                None
            }
        }
    }

    /// One of some words, in any case and with or without underscores; the answer is the second of the pair.
    pub fn choice<T: Copy>(&self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let node = self.node(name)?;
        let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
        let given = node.as_written().map(plain);
        let found = choices.iter().find(|(word, _)| Some(plain(word)) == given);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.wrong(name, node, &format!("one of {}", words.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A mapping of texts; numbers and booleans are taken as written, null as an empty text.
    pub fn texts(&self, name: &'static str) -> BTreeMap<String, String> {
        let Some(node) = self.node(name) else { return BTreeMap::new() };
        let Kind::Map(entries) = &node.kind else {
            self.wrong(name, node, "a mapping of texts");
            return BTreeMap::new();
        };
        let mut texts = BTreeMap::new();
        for (key, value) in entries {
            match value.as_written() {
                Some(text) => drop(texts.insert(key.text.clone(), text.to_owned())),
                None if value.is_null() => drop(texts.insert(key.text.clone(), String::new())),
                None => self.wrong(&format!("{name}.{}", key.text), value, "a text"),
            }
        }
        texts
    }

    /// A mapping of whole numbers, such as traffic.
    pub fn counts(&self, name: &'static str) -> Option<BTreeMap<String, u64>> {
        let node = self.node(name)?;
        let Kind::Map(entries) = &node.kind else {
            self.wrong(name, node, "a mapping of deployment names to whole percentages");
            return None;
        };
        let mut counts = BTreeMap::new();
        for (key, value) in entries {
            match whole(value) {
                Some(count) => drop(counts.insert(key.text.clone(), count)),
                None => self.wrong(&format!("{name}.{}", key.text), value, "a whole percentage"),
            }
        }
        Some(counts)
    }

    /// A list of texts.
    pub fn text_list(&self, name: &'static str) -> Option<Vec<String>> {
        let node = self.node(name)?;
        let Kind::List(items) = &node.kind else {
            self.wrong(name, node, "a list of texts");
            return None;
        };
        let texts: Option<Vec<String>> = items.iter().map(|item| item.as_written().map(str::to_owned)).collect();
        if texts.is_none() {
            self.wrong(name, node, "a list of texts");
        }
        texts
    }

    /// A list.
    pub fn list(&self, name: &'static str) -> &'a [Node] {
        match self.node(name) {
            None => &[],
            Some(Node { kind: Kind::List(items), .. }) => items,
            Some(node) => {
                self.wrong(name, node, "a list");
                &[]
            }
        }
    }

    /// A mapping, kept as it is.
    pub fn json_map(&self, name: &'static str) -> Option<Value> {
        let node = self.node(name)?;
        if !matches!(node.kind, Kind::Map(_)) {
            self.wrong(name, node, "a mapping");
            return None;
        }
        Some(node.to_json())
    }

    /// A mapping to be read field by field.
    pub fn nested(&self, name: &'static str) -> Option<Fields<'a>> {
        let node = self.node(name)?;
        Fields::open(node, &format!("{} → {name}", self.what), self.issues)
    }

    /// The keys and values of a mapping with free keys.
    pub fn entries(&self, name: &'static str) -> &'a [(Key, Node)] {
        match self.node(name) {
            None => &[],
            Some(Node { kind: Kind::Map(entries), .. }) => entries,
            Some(node) => {
                self.wrong(name, node, "a mapping");
                &[]
            }
        }
    }

    /// Ends the reading: every field that nobody asked for is a mistake. `$schema` may always stand there.
    pub fn finish(self) {
        let known = self.known.borrow();
        for (key, _) in self.entries {
            if key.text == "$schema" || known.contains(key.text.as_str()) {
                continue;
            }
            let names: Vec<&str> = known.iter().copied().collect();
            let hint = match closest(&key.text, &names) {
                Some(name) => format!("did you mean '{name}'?"),
                None => format!("the fields are: {}.", names.join(", ")),
            };
            self.issues.add(key.spot, format!("'{}' is not a field of {}; {hint}", key.text, self.what));
        }
    }
}

fn whole(node: &Node) -> Option<u64> {
    match node.scalar()? {
        Scalar::Int(value) => u64::try_from(value).ok(),
        Scalar::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The name closest to `given`, if it is close enough to be what was meant.
#[must_use]
pub fn closest<'n>(given: &str, names: &[&'n str]) -> Option<&'n str> {
    let plain = |text: &str| text.replace('-', "_").to_ascii_lowercase();
    let given = plain(given);
    let reach = (given.chars().count() / 3).clamp(1, 4);
    names
        .iter()
        .map(|name| (distance(&given, &plain(name)), *name))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits (insert, remove, replace, swap of neighbours) between two texts of at most 64 characters.
fn distance(one: &str, two: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let two: Vec<char> = two.chars().take(64).collect();
    let mut rows = vec![vec![0_usize; two.len() + 1]; one.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=two.len()).collect();
    for i in 1..=one.len() {
        for j in 1..=two.len() {
            let replace = rows[i - 1][j - 1] + usize::from(one[i - 1] != two[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == two[j - 2] && one[i - 2] == two[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[one.len()][two.len()]
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    fn read(text: &str) -> Result<(), Fault> {
        let root = parse(text, "e.yml").unwrap();
        let issues = Issues::new("e.yml");
        if let Some(fields) = Fields::open(&root, "the thing", &issues) {
            fields.text("name");
            fields.boolean("enabled");
            fields.count("instance_count");
            fields.choice("auth_mode", &[("key", 1), ("aml_token", 2)]);
            fields.counts("traffic");
            fields.texts("tags");
            if let Some(inner) = fields.nested("probe") {
                inner.count("period");
                inner.finish();
            }
            fields.finish();
        }
        issues.finish(())
    }

    #[test]
    fn what_is_right_passes() {
        for text in [
            "",
            "$schema: x\nname: 12\nenabled: true\ninstance_count: '3'\nauth_mode: AMLToken\n",
            "traffic: {blue: 90, green: '10'}\ntags: {a: 1, b: true, c: null}\nprobe: {period: 10}\n",
        ] {
            read(text).unwrap();
        }
    }

    #[test]
    fn mistakes_have_places_and_hints() {
        for (text, said) in [
            ("nmae: x", "e.yml:1:1: 'nmae' is not a field of the thing; did you mean 'name'?"),
            (
                "name: x\nauth-mode: key",
                "e.yml:2:1: 'auth-mode' is not a field of the thing; did you mean 'auth_mode'?",
            ),
            ("zzzzzz: x", "the fields are: auth_mode, enabled"),
            ("probe:\n  perod: 1", "e.yml:2:3: 'perod' is not a field of the thing → probe; did you mean 'period'?"),
            ("name: [1]", "e.yml:1:7: 'name' in the thing must be a text, not a list."),
            ("enabled: maybe", "'enabled' in the thing must be true or false, not 'maybe'."),
            ("instance_count: -1", "must be a whole number from 0 up, not -1."),
            ("instance_count: 1.5", "not 1.5."),
            ("auth_mode: keys", "must be one of key, aml_token, not 'keys'."),
            ("traffic: 90", "must be a mapping of deployment names"),
            ("traffic: {blue: much}", "'traffic.blue' in the thing must be a whole percentage"),
            ("tags: {a: {b: c}}", "'tags.a' in the thing must be a text, not a mapping."),
            ("probe: 3", "the thing → probe must be a mapping, not 3."),
            ("- a\n- b", "e.yml:1:1: the thing must be a mapping, not a list."),
        ] {
            let fault = read(text).expect_err(text);
            assert_eq!(fault.code, "ValidationError");
            assert!(fault.message.contains(said), "{:?} lacks {said:?}", fault.message);
        }
    }

    #[test]
    fn all_mistakes_at_once_in_order() {
        let fault = read("enabled: 3\nnmae: x\ntraffic: 1\n").unwrap_err();
        let lines: Vec<&str> = fault.message.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[0].starts_with("e.yml:1:") && lines[1].starts_with("e.yml:2:") && lines[2].starts_with("e.yml:3:")
        );
    }

    #[test]
    fn distances() {
        for (one, two, edits) in [("", "abc", 3), ("abc", "abc", 0), ("nmae", "name", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(one, two), edits);
        }
    }
}
