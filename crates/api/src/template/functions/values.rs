//! Functions over plain values: numbers, texts, arrays and objects.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Call, Halt, kind};

/// The namespace that template GUIDs are made in.
const GUID_NAMESPACE: Uuid = Uuid::from_u128(0x11fb_06fb_712d_4ddd_98c7_e71b_bd58_8830);
/// Letters and digits of `uniqueString`.
const UNIQUE_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Most items that `range` gives.
const MAX_RANGE: i64 = 10_000;

pub(super) fn numbers(call: &Call<'_>, name: &str) -> Option<Result<Value, Halt>> {
    let arithmetic = |work: fn(i64, i64) -> Option<i64>| {
        let [left, right] = call.count()?;
        let outcome = work(call.number(left)?, call.number(right)?);
        outcome.map(Value::from).ok_or_else(|| call.wrong("has no result that fits 64 bits"))
    };
    Some(match name {
        "add" => arithmetic(i64::checked_add),
        "sub" => arithmetic(i64::checked_sub),
        "mul" => arithmetic(i64::checked_mul),
        "div" => arithmetic(i64::checked_div),
        "mod" => arithmetic(i64::checked_rem),
        "int" => call.count().and_then(|[value]| match value {
            Value::Number(_) => call.number(value).map(Value::from),
            Value::String(text) => text
                .trim()
                .parse::<i64>()
                .map(Value::from)
                .map_err(|_| call.wrong(&format!("can't make a whole number of '{text}'"))),
            other => Err(call.wrong(&format!("takes a text or a number, not {}", kind(other)))),
        }),
        "min" | "max" => {
            let items = match call.values {
                [Value::Array(items)] => items.as_slice(),
                values => values,
            };
            let numbers = items.iter().map(|value| call.number(value)).collect::<Result<Vec<_>, _>>();
            numbers.and_then(|numbers| {
                let found = if name == "min" { numbers.iter().min() } else { numbers.iter().max() };
                found.map(|found| (*found).into()).ok_or_else(|| call.wrong("takes at least one number"))
            })
        }
        _ => return None,
    })
}

pub(super) fn texts(call: &Call<'_>, name: &str) -> Option<Result<Value, Halt>> {
    let one = |work: fn(&str) -> String| call.count().and_then(|[text]| call.made(work(call.text(text)?)));
    let test = |work: fn(&str, &str) -> bool| {
        let [text, part] = call.count()?;
        Ok(work(&call.text(text)?.to_lowercase(), &call.text(part)?.to_lowercase()).into())
    };
    Some(match name {
        "tolower" => one(str::to_lowercase),
        "toupper" => one(str::to_uppercase),
        "trim" => one(|text| text.trim().to_owned()),
        "startswith" => test(|text, part| text.starts_with(part)),
        "endswith" => test(|text, part| text.ends_with(part)),
        "string" => call.count().and_then(|[value]| match value {
            Value::Array(_) | Value::Object(_) | Value::Null => call.made(value.to_string()),
            simple => call.made(call.write(simple)?),
        }),
        "json" => call.count().and_then(|[text]| {
            let parsed = serde_json::from_str(call.text(text)?);
            parsed.map_err(|error| call.wrong(&format!("can't read its text as JSON: {error}")))
        }),
        "guid" if !call.values.is_empty() => call
            .written()
            .and_then(|parts| call.made(Uuid::new_v5(&GUID_NAMESPACE, parts.join("-").as_bytes()).to_string())),
        "uniquestring" if !call.values.is_empty() => call.written().and_then(|parts| call.made(unique(&parts))),
        "format" => format(call),
        "replace" => call.count().and_then(|[text, old, new]| {
            let (text, old, new) = (call.text(text)?, call.text(old)?, call.text(new)?);
            if old.is_empty() {
                return Err(call.wrong("can't replace an empty text"));
            }
            // The result is bounded before it is made.
            call.at.spend(text.matches(old).count().saturating_mul(new.len()))?;
            call.made(text.replace(old, new))
        }),
        "substring" => substring(call),
        "split" => call.count().and_then(|[text, by]| {
            let (text, by) = (call.text(text)?, call.text(by)?);
            if by.is_empty() {
                return Err(call.wrong("can't split by an empty text"));
            }
            call.at.spend(text.len())?;
            Ok(text.split(by).map(Value::from).collect())
        }),
        _ => return None,
    })
}

/// Thirteen letters and digits that depend on all parts.
fn unique(parts: &[String]) -> String {
    let digest = Uuid::new_v5(&GUID_NAMESPACE, parts.join("\u{1f}").as_bytes()).as_u128();
    let digit = |at: u32| UNIQUE_ALPHABET[usize::try_from((digest >> (5 * at)) & 31).unwrap_or_default()];
    (0..13).map(|at| char::from(digit(at))).collect()
}

/// `{0}` takes an argument; `{{` and `}}` stand for braces. Number formats are not known.
fn format(call: &Call<'_>) -> Result<Value, Halt> {
    let Some((template, values)) = call.values.split_first() else {
        return Err(call.wrong("takes a text and its arguments"));
    };
    let mut made = String::new();
    let mut rest = call.text(template)?;
    while let Some(at) = rest.find(['{', '}']) {
        made.push_str(&rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with("{{") || tail.starts_with("}}") {
            made.push_str(&tail[..1]);
            rest = &tail[2..];
            continue;
        }
        let close = tail.find('}').filter(|_| tail.starts_with('{'));
        let close = close.ok_or_else(|| call.wrong("has a single brace in its text"))?;
        let index: Option<usize> = tail[1..close].trim().parse().ok();
        let value = index.and_then(|index| values.get(index));
        let value = value.ok_or_else(|| call.wrong(&format!("has no argument for '{}'", &tail[..=close])))?;
        let written = call.write(value)?;
        call.at.spend(written.len())?;
        made.push_str(&written);
        rest = &tail[close + 1..];
    }
    made.push_str(rest);
    call.made(made)
}

fn substring(call: &Call<'_>) -> Result<Value, Halt> {
    let (text, start, length) = match call.values {
        [text, start] => (call.text(text)?, call.number(start)?, None),
        [text, start, length] => (call.text(text)?, call.number(start)?, Some(call.number(length)?)),
        _ => return Err(call.wrong("takes a text, a start and a length")),
    };
    let total = text.chars().count();
    let start = usize::try_from(start).ok().filter(|start| *start <= total);
    let length = length.map_or(Some(total), |length| usize::try_from(length).ok());
    match (start, length) {
        (Some(start), Some(length)) if length == total || start + length <= total => {
            call.made(text.chars().skip(start).take(length).collect::<String>())
        }
        _ => Err(call.wrong(&format!("reaches outside a text of {total} characters"))),
    }
}

pub(super) fn collections(call: &Call<'_>, name: &str) -> Option<Result<Value, Halt>> {
    Some(match name {
        "concat" => concat(call),
        "array" => call.count().map(|[value]| match value {
            Value::Array(_) => value.clone(),
            other => Value::Array(vec![other.clone()]),
        }),
        "createarray" => Ok(Value::Array(call.values.to_vec())),
        "createobject" => create_object(call),
        "length" => call.count().and_then(|[value]| match value {
            Value::String(text) => Ok(text.chars().count().into()),
            Value::Array(items) => Ok(items.len().into()),
            Value::Object(map) => Ok(map.len().into()),
            other => Err(call.wrong(&format!("takes a text, an array or an object, not {}", kind(other)))),
        }),
        "contains" => call.count().and_then(|[whole, part]| match (whole, part) {
            (Value::Array(items), part) => Ok(items.iter().any(|item| item == part).into()),
            (Value::Object(map), Value::String(key)) => {
                Ok(map.keys().any(|known| known.eq_ignore_ascii_case(key)).into())
            }
            (Value::String(text), part) => Ok(text.contains(&call.write(part)?).into()),
            (other, _) => Err(call.wrong(&format!("can't search in {}", kind(other)))),
        }),
        "first" | "last" => call.count().and_then(|[value]| {
            let first = name == "first";
            match value {
                Value::Array(items) => {
                    Ok(if first { items.first() } else { items.last() }.cloned().unwrap_or_default())
                }
                Value::String(text) => {
                    let found = if first { text.chars().next() } else { text.chars().next_back() };
                    call.made(found.map(String::from).unwrap_or_default())
                }
                other => Err(call.wrong(&format!("takes an array or a text, not {}", kind(other)))),
            }
        }),
        "join" => call.count().and_then(|[items, by]| {
            let items = items.as_array().ok_or_else(|| call.wrong("takes an array first"))?;
            let texts = items.iter().map(|item| call.write(item)).collect::<Result<Vec<_>, _>>()?;
            let by = call.text(by)?;
            call.at.spend(texts.len().saturating_mul(by.len()))?;
            call.made(texts.join(by))
        }),
        "union" => union(call),
        "range" => call.count().and_then(|[start, count]| {
            let (start, count) = (call.number(start)?, call.number(count)?);
            let end = start.checked_add(count).filter(|_| (0..=MAX_RANGE).contains(&count));
            let end = end.ok_or_else(|| call.wrong(&format!("takes a count from 0 to {MAX_RANGE}")))?;
            call.at.spend(usize::try_from(count).unwrap_or_default() * 8)?;
            Ok((start..end).map(Value::from).collect())
        }),
        _ => return None,
    })
}

fn concat(call: &Call<'_>) -> Result<Value, Halt> {
    if call.values.is_empty() {
        return Err(call.wrong("takes at least one argument"));
    }
    if call.values.iter().all(Value::is_array) {
        let items: Vec<Value> = call.values.iter().filter_map(Value::as_array).flatten().cloned().collect();
        call.at.spend(items.len() * 8)?;
        return Ok(Value::Array(items));
    }
    call.made(call.written()?.concat())
}

fn create_object(call: &Call<'_>) -> Result<Value, Halt> {
    let mut map = Map::new();
    for pair in call.values.chunks(2) {
        let [key, value] = pair else {
            return Err(call.wrong("takes pairs of a key and a value"));
        };
        map.insert(call.text(key)?.to_owned(), value.clone());
    }
    Ok(Value::Object(map))
}

fn union(call: &Call<'_>) -> Result<Value, Halt> {
    if call.values.iter().all(Value::is_object) {
        let pairs = call.values.iter().filter_map(Value::as_object).flatten();
        return Ok(Value::Object(pairs.map(|(key, value)| (key.clone(), value.clone())).collect()));
    }
    if !call.values.iter().all(Value::is_array) {
        return Err(call.wrong("takes only arrays or only objects"));
    }
    let mut items: Vec<Value> = Vec::new();
    for item in call.values.iter().filter_map(Value::as_array).flatten() {
        call.at.spend(items.len())?;
        if !items.contains(item) {
            items.push(item.clone());
        }
    }
    Ok(Value::Array(items))
}
