//! Changing a tree before it is typed: `--set path=value`, and laying one tree over another.

use casemate_model::Fault;
use serde_json::Value;

use super::node::{Key, Kind, Node, shortened};

/// Largest index that a path may name.
const MAX_INDEX: usize = 10_000;

#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Applies one `--set` argument: `a.b[0].c=value`. Missing mappings on the way are made; an index may replace an item
/// or add one at the end. A key that holds a dot is written `a\.b` or `["a.b"]`. A value that is a JSON object, list or
/// string is read as JSON; anything else is taken as if it stood unquoted in the YAML file.
///
/// # Errors
/// `InvalidArgument` saying which part of the argument does not fit.
pub fn apply_setting(root: &mut Node, argument: &str) -> Result<(), Fault> {
    let bad = |why: String| {
        Fault::invalid(
            "InvalidArgument",
            format!(
                "--set '{}' can't be applied: {why}. Write --set a.b=value, for a list item --set a[0].b=value.",
                shortened(argument)
            ),
        )
    };
    let split = find_equals(argument).ok_or_else(|| bad("there is no '='".to_owned()))?;
    let steps = steps_of(&argument[..split]).map_err(bad)?;
    let value = value_of(&argument[split + 1..]);
    set(root, &steps, value, &mut String::new()).map_err(bad)
}

/// The first `=` outside brackets.
fn find_equals(argument: &str) -> Option<usize> {
    let mut inside = false;
    argument.char_indices().find_map(|(at, c)| {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            '=' if !inside => return Some(at),
            _ => {}
        }
        None
    })
}

fn steps_of(path: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut word = String::new();
    let mut characters = path.chars().peekable();
    let mut after_bracket = false;
    while let Some(c) = characters.next() {
        match c {
            '\\' => word.extend(characters.next()),
            '.' => {
                if word.is_empty() && !after_bracket {
                    return Err("the path has an empty part".to_owned());
                }
                take_word(&mut word, &mut steps);
                after_bracket = false;
            }
            '[' => {
                take_word(&mut word, &mut steps);
                let inner: String = characters.by_ref().take_while(|c| *c != ']').collect();
                steps.push(bracket(&inner)?);
                after_bracket = true;
            }
            other => word.push(other),
        }
    }
    if word.is_empty() && !after_bracket {
        return Err("the path has an empty part".to_owned());
    }
    take_word(&mut word, &mut steps);
    Ok(steps)
}

fn take_word(word: &mut String, steps: &mut Vec<Step>) {
    if !word.is_empty() {
        steps.push(Step::Key(std::mem::take(word)));
    }
}

fn bracket(inner: &str) -> Result<Step, String> {
    for quote in ['"', '\''] {
        if let Some(key) = inner.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Ok(Step::Key(key.to_owned()));
        }
    }
    match inner.parse::<usize>() {
        Ok(index) if index <= MAX_INDEX => Ok(Step::Index(index)),
        Ok(_) => Err(format!("the index is larger than {MAX_INDEX}")),
        Err(_) => Err(format!("'[{}]' is neither a list index nor a quoted key", shortened(inner))),
    }
}

fn value_of(text: &str) -> Node {
    if text.starts_with(['{', '[', '"'])
        && let Ok(value) = serde_json::from_str::<Value>(text)
    {
        return Node::from_json(&value);
    }
    Node { spot: None, kind: Kind::Scalar { text: text.to_owned(), plain: true } }
}

fn set(node: &mut Node, steps: &[Step], value: Node, walked: &mut String) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *node = value;
        return Ok(());
    };
    if node.is_null() {
        node.kind = match step {
            Step::Key(_) => Kind::Map(Vec::new()),
            Step::Index(_) => Kind::List(Vec::new()),
        };
    }
    let at = if walked.is_empty() { "the file".to_owned() } else { format!("'{walked}'") };
    match (step, &mut node.kind) {
        (Step::Key(key), Kind::Map(entries)) => {
            if !walked.is_empty() {
                walked.push('.');
            }
            walked.push_str(key);
            let index = entries.iter().position(|(name, _)| name.text == *key).unwrap_or_else(|| {
                let null = Node { spot: None, kind: Kind::Scalar { text: String::new(), plain: true } };
                entries.push((Key { text: key.clone(), spot: None }, null));
                entries.len() - 1
            });
            set(&mut entries[index].1, rest, value, walked)
        }
        (Step::Index(index), Kind::List(items)) => {
            walked.push_str(&format!("[{index}]"));
            if *index > items.len() {
                return Err(format!("{at} has {} items, so index {index} is out of reach", items.len()));
            }
            if *index == items.len() {
                items.push(Node { spot: None, kind: Kind::Scalar { text: String::new(), plain: true } });
            }
            set(&mut items[*index], rest, value, walked)
        }
        (Step::Key(key), _) => Err(format!("{at} is {}, so it can't hold '{key}'", node.describe())),
        (Step::Index(_), _) => Err(format!("{at} is {}, no list", node.describe())),
    }
}

/// Lays `over` over `base`, as an update with a file does: keys of `over` replace those of `base`; the keys in `deep`
/// are merged key by key instead.
pub fn merge_over(base: &mut Node, over: Node, deep: &[&str]) {
    let (Kind::Map(entries), Kind::Map(others)) = (&mut base.kind, over.kind) else { return };
    for (key, value) in others {
        match entries.iter_mut().find(|(name, _)| name.text == key.text) {
            Some((_, old))
                if deep.contains(&key.text.as_str())
                    && matches!((&old.kind, &value.kind), (Kind::Map(_), Kind::Map(_))) =>
            {
                merge_over(old, value, deep);
            }
            Some((_, old)) => *old = value,
            None => entries.push((key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::parse, *};

    fn after(text: &str, settings: &[&str]) -> Result<Value, Fault> {
        let mut root = parse(text, "t.yml").unwrap();
        for setting in settings {
            apply_setting(&mut root, setting)?;
        }
        Ok(root.to_json())
    }

    #[test]
    fn settings() {
        for (text, settings, expected) in [
            ("a: 1", &["a=2"][..], json!({"a": 2})),
            ("a: 1", &["b.c.d=x"], json!({"a": 1, "b": {"c": {"d": "x"}}})),
            (
                "",
                &["n=1", "f=1.5", "t=true", "s=blue", "z=null"],
                json!({"n": 1, "f": 1.5, "t": true, "s": "blue", "z": null}),
            ),
            ("", &["q=\"1\""], json!({"q": "1"})),
            ("", &["o={\"x\": [1]}", "l=[1, \"a\"]"], json!({"o": {"x": [1]}, "l": [1, "a"]})),
            ("", &["o={not json"], json!({"o": "{not json"})),
            ("l: [{r: old}]", &["l[0].r=new"], json!({"l": [{"r": "new"}]})),
            ("l: [1]", &["l[1]=2"], json!({"l": [1, 2]})),
            ("", &["l[0].r=x"], json!({"l": [{"r": "x"}]})),
            ("", &["tags.a\\.b=x", "tags[\"c.d=e\"]=y"], json!({"tags": {"a.b": "x", "c.d=e": "y"}})),
            ("", &["v=a=b=c"], json!({"v": "a=b=c"})),
            ("", &["v="], json!({"v": null})),
            ("a: {b: 1}", &["a={}"], json!({"a": {}})),
        ] {
            assert_eq!(after(text, settings).unwrap(), expected, "{settings:?}");
        }
    }

    #[test]
    fn settings_that_do_not_fit() {
        for (text, setting, why) in [
            ("", "novalue", "no '='"),
            ("", "=x", "empty part"),
            ("", "a..b=x", "empty part"),
            ("a: text", "a.b=x", "'a' is 'text'"),
            ("a: {b: 1}", "a[0]=x", "'a' is a mapping, no list"),
            ("a: [1]", "a[5]=x", "out of reach"),
            ("a: [1]", "a[99999999]=x", "larger than"),
            ("a: [1]", "a[x]=x", "neither a list index"),
            ("a: [1]", "a.b=x", "'a' is a list"),
        ] {
            let fault = after(text, &[setting]).expect_err(setting);
            assert!(fault.message.contains(why), "{}", fault.message);
        }
    }

    #[test]
    fn merging() {
        let mut base = parse("a: 1\ntags: {x: 1, y: 2}\nmodel: {path: p}\n", "base").unwrap();
        let over = parse("a: 2\ntags: {y: 3, z: 4}\nmodel: {name: n}\n", "over").unwrap();
        merge_over(&mut base, over, &["tags"]);
        assert_eq!(base.to_json(), json!({"a": 2, "tags": {"x": 1, "y": 3, "z": 4}, "model": {"name": "n"}}));
    }
}
