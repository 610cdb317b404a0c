//! Evaluates expressions, and trees of JSON whose strings may be expressions.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
};

use casemate_model::{Fault, ResourceId};
use serde_json::{Map, Value};

use super::{
    document::Deployment,
    functions,
    parameters::ParameterSource,
    parser::{Expression, parse_expression},
};

/// How deep a tree of JSON, and a chain of variables and parameters, may be.
const MAX_DEPTH: usize = 64;
/// The work that one deployment may do, all evaluations together: steps, plus the bytes of the texts they make.
const FUEL: usize = 32 << 20;
/// The longest text that an expression may make, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// Why an evaluation stopped.
#[derive(Debug, Clone, PartialEq)]
pub enum Halt {
    /// The document is wrong.
    Fault(Fault),
    /// The state of this resource must be known first; then evaluate again.
    Needs(ResourceId),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The public shapes of the resources looked up so far; none for one that does not exist.
pub type Known = HashMap<ResourceId, Option<Value>>;

/// The work that a deployment may still do. Loops and lookups repeat evaluations, so the budget is not of each one.
#[derive(Debug)]
pub(super) struct Fuel(AtomicUsize);

impl Fuel {
    pub(super) fn full() -> Self {
        Self(AtomicUsize::new(FUEL))
    }

    /// Takes some, or fails and takes nothing.
    fn take(&self, cost: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost)).is_ok()
    }
}

/// One evaluation.
pub(super) struct Evaluator<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) known: &'a Known,
    /// The index of the resource's copy loop, by the loop's name.
    pub(super) copy: Option<(&'a str, i64)>,
    depth: Cell<usize>,
    in_default: Cell<bool>,
    /// Variables and parameters: evaluated, or none while they are being evaluated.
    memo: RefCell<BTreeMap<(char, String), Option<Value>>>,
    path: RefCell<Vec<String>>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(deployment: &'a Deployment, known: &'a Known, copy: Option<(&'a str, i64)>) -> Self {
        Self {
            deployment,
            known,
            copy,
            depth: Cell::new(0),
            in_default: Cell::new(false),
            memo: RefCell::default(),
            path: RefCell::default(),
        }
    }

    /// A fault of the template at the present place.
    pub(super) fn wrong(&self, message: impl AsRef<str>) -> Halt {
        let place = self.path.borrow().concat();
        let place = place.trim_start_matches('.');
        let at = if place.is_empty() { String::new() } else { format!(" at '{place}'") };
        Halt::Fault(
            Fault::invalid(
                "InvalidTemplate",
                format!("Deployment template validation failed{at}: {}.", message.as_ref().trim_end_matches('.')),
            )
            .at(place),
        )
    }

    /// Runs `work` with `step` added to the place that messages name.
    pub(super) fn within<T>(
        &self,
        step: impl Into<String>,
        work: impl FnOnce(&Self) -> Result<T, Halt>,
    ) -> Result<T, Halt> {
        self.path.borrow_mut().push(step.into());
        let outcome = work(self);
        self.path.borrow_mut().pop();
        outcome
    }

    fn deeper<T>(&self, work: impl FnOnce(&Self) -> Result<T, Halt>) -> Result<T, Halt> {
        if self.depth.get() >= MAX_DEPTH {
            return Err(self.wrong(format!("values nest deeper than {MAX_DEPTH} levels")));
        }
        self.depth.set(self.depth.get() + 1);
        let outcome = work(self);
        self.depth.set(self.depth.get() - 1);
        outcome
    }

    /// Pays for work.
    pub(super) fn spend(&self, cost: usize) -> Result<(), Halt> {
        if self.deployment.fuel.take(cost) {
            return Ok(());
        }
        Err(self.wrong("its evaluation takes too much work; make it smaller"))
    }

    /// A text made by an expression, within bounds.
    pub(super) fn made(&self, text: String) -> Result<Value, Halt> {
        self.spend(text.len() + 1)?;
        if text.len() > MAX_TEXT {
            return Err(self
                .wrong(format!("an expression makes a text of {} bytes; at most {MAX_TEXT} are allowed", text.len())));
        }
        Ok(Value::String(text))
    }

    /// A copy of a value that is at hand, paid for by its size.
    pub(super) fn copied(&self, value: &Value) -> Result<Value, Halt> {
        self.spend(size(value))?;
        Ok(value.clone())
    }

    /// Evaluates a tree: every string in it that is an expression.
    pub(super) fn tree(&self, value: &Value) -> Result<Value, Halt> {
        self.spend(1)?;
        match value {
            Value::String(text) => self.string(text),
            Value::Array(items) => self.deeper(|this| {
                let each = items.iter().enumerate();
                each.map(|(at, item)| this.within(format!("[{at}]"), |this| this.tree(item))).collect()
            }),
            Value::Object(map) => self.deeper(|this| {
                let mut evaluated = Map::new();
                for (key, value) in map {
                    let value = this.within(format!(".{key}"), |this| this.tree(value))?;
                    evaluated.insert(this.key(key)?, value);
                }
                Ok(Value::Object(evaluated))
            }),
            other => Ok(other.clone()),
        }
    }

    /// A key of an object may be an expression, too.
    fn key(&self, key: &str) -> Result<String, Halt> {
        match self.string(key)? {
            Value::String(key) => Ok(key),
            other => Err(self.wrong(format!("the key '{key}' gives {}, not a text", functions::kind(&other)))),
        }
    }

    /// Evaluates one string: an expression in brackets, or plain text (`[[` stands for `[`).
    pub(super) fn string(&self, text: &str) -> Result<Value, Halt> {
        let Some(source) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) else {
            return self.made(text.to_owned());
        };
        if let Some(escaped) = text.strip_prefix("[[") {
            return self.made(format!("[{escaped}"));
        }
        self.spend(source.len())?;
        let expression = parse_expression(source).map_err(|why| {
            let shown: String = text.chars().take(200).collect();
            self.wrong(format!("the expression '{shown}' can't be read: {why}"))
        })?;
        self.expression(&expression)
    }

    /// Evaluates a string that must give text.
    pub(super) fn text(&self, text: &str) -> Result<String, Halt> {
        match self.string(text)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(format!("'{text}' gives {}, not a text", functions::kind(&other)))),
        }
    }

    pub(super) fn expression(&self, expression: &Expression) -> Result<Value, Halt> {
        self.spend(1)?;
        match expression {
            Expression::Text(text) => self.made(text.clone()),
            Expression::Number(number) => Ok((*number).into()),
            Expression::Call(name, arguments) => self.deeper(|this| functions::call(this, name, arguments)),
            Expression::Property(target, name) => {
                let target = self.deeper(|this| this.expression(target))?;
                self.property(&target, name)
            }
            Expression::Index(target, index) => {
                let target = self.deeper(|this| this.expression(target))?;
                match (&target, self.expression(index)?) {
                    (Value::Object(_), Value::String(name)) => self.property(&target, &name),
                    (Value::Array(items), Value::Number(number)) => {
                        let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
                        at.and_then(|at| items.get(at)).cloned().ok_or_else(|| {
                            self.wrong(format!("the index {number} is outside an array of {} items", items.len()))
                        })
                    }
                    (target, index) => {
                        let (target, index) = (functions::kind(target), functions::kind(&index));
                        Err(self.wrong(format!("{target} can't be indexed by {index}")))
                    }
                }
            }
        }
    }

    fn property(&self, target: &Value, name: &str) -> Result<Value, Halt> {
        let Some(map) = target.as_object() else {
            return Err(self.wrong(format!("{} has no property '{name}'", functions::kind(target))));
        };
        let found =
            map.get(name).or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v));
        match found {
            Some(value) => self.copied(value),
            None => {
                let names: Vec<&str> = map.keys().map(String::as_str).take(20).collect();
                Err(self.wrong(format!("there is no property '{name}'; there are: {}", names.join(", "))))
            }
        }
    }

    /// The value of a variable.
    pub(super) fn variable(&self, name: &str) -> Result<Value, Halt> {
        let key = name.to_lowercase();
        let Some(raw) = self.deployment.variables.get(&key) else {
            return Err(self.wrong(format!("the template has no variable '{name}'")));
        };
        self.memoized('v', key, &format!("variables.{name}"), |this| this.tree(raw))
    }

    /// The value of a parameter: as given, or its default.
    pub(super) fn parameter(&self, name: &str) -> Result<Value, Halt> {
        let key = name.to_lowercase();
        match self.deployment.parameters.get(&key) {
            None => Err(self.wrong(format!("the template has no parameter '{name}'"))),
            Some(ParameterSource::Fixed(value)) => self.copied(value),
            Some(ParameterSource::Default(raw)) => {
                let outer = self.in_default.replace(true);
                let place = format!("parameters.{name}.defaultValue");
                let outcome = self.memoized('p', key, &place, |this| this.tree(raw));
                self.in_default.set(outer);
                outcome
            }
        }
    }

    /// Insists that a function stands in a parameter's default value.
    pub(super) fn only_in_default(&self, function: &str) -> Result<(), Halt> {
        if self.in_default.get() {
            return Ok(());
        }
        Err(self.wrong(format!("the function '{function}' can only be used in the default value of a parameter")))
    }

    fn memoized(
        &self,
        sort: char,
        key: String,
        place: &str,
        work: impl FnOnce(&Self) -> Result<Value, Halt>,
    ) -> Result<Value, Halt> {
        let memo_key = (sort, key);
        match self.memo.borrow().get(&memo_key) {
            Some(Some(value)) => return self.copied(value),
            Some(None) => return Err(self.wrong(format!("'{place}' needs its own value"))),
            None => {}
        }
        self.memo.borrow_mut().insert(memo_key.clone(), None);
        // Messages name the variable's own place, not the place where it was used first.
        let outer = std::mem::replace(&mut *self.path.borrow_mut(), vec![place.to_owned()]);
        let outcome = self.deeper(work);
        *self.path.borrow_mut() = outer;
        let value = outcome?;
        // A chain of variables could otherwise build a value deeper than what reads it can bear.
        if !is_shallow(&value, MAX_DEPTH) {
            return Err(self.wrong(format!("'{place}' nests deeper than {MAX_DEPTH} levels")));
        }
        self.memo.borrow_mut().insert(memo_key, Some(value.clone()));
        Ok(value)
    }
}

/// Whether a value nests at most `levels` deep.
pub(crate) fn is_shallow(value: &Value, levels: usize) -> bool {
    let within = |value: &Value| levels > 0 && is_shallow(value, levels - 1);
    match value {
        Value::Array(items) => items.iter().all(within),
        Value::Object(map) => map.values().all(within),
        _ => true,
    }
}

/// A rough count of a value's bytes.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 8,
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 8,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum::<usize>() + 8,
        _ => 8,
    }
}
