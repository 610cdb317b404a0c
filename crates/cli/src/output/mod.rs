//! What a command found, in the form that was asked for. The forms are those of `az`, so that scripts which cut and
//! compare keep working.

mod json;
mod order;
mod table;
mod tsv;

use serde_json::Value;

use crate::{failure::Failure, grammar::Format, terminal};
use order::KeyOrder;

/// What a command found.
#[derive(Debug)]
pub(crate) enum Output {
    /// Nothing to print.
    Nothing,
    /// A value, and the expression that picks the columns of its table.
    Value(Value, Option<&'static str>),
    /// Text to be printed as it is.
    Raw(String),
}

impl From<Value> for Output {
    fn from(value: Value) -> Self {
        Self::Value(value, None)
    }
}

/// A `--query` that was understood.
pub(crate) struct Query {
    expression: jmespath::Expression<'static>,
    text: String,
}

impl Query {
    /// Reads an expression.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let expression = jmespath::compile(text).map_err(|error| {
            Failure::usage(format!("--query '{text}' is no JMESPath expression: {}.", error.reason))
        })?;
        Ok(Self { expression, text: text.to_owned() })
    }

    fn apply(&self, value: &Value) -> Result<Value, Failure> {
        let failed = |why: String| Failure::here(format!("--query '{}' can't be applied: {why}.", self.text));
        let data = jmespath::Variable::try_from(value.clone()).map_err(|error| failed(error.reason.to_string()))?;
        let found = self.expression.search(data).map_err(|error| failed(error.reason.to_string()))?;
        serde_json::to_value(&*found).map_err(|error| failed(error.to_string()))
    }
}

/// Prints what a command found. A value that is null (also after the query) prints nothing.
pub(crate) fn print(output: Output, query: Option<&Query>, format: Format) -> Result<(), Failure> {
    let (value, columns) = match output {
        Output::Nothing => return Ok(()),
        Output::Raw(text) => {
            terminal::out(&text);
            if !text.ends_with('\n') && !text.is_empty() {
                terminal::out("\n");
            }
            return Ok(());
        }
        Output::Value(value, columns) => (value, columns),
    };
    let text = render(value, columns, query, format)?;
    terminal::out(&text);
    Ok(())
}

fn render(
    mut value: Value,
    columns: Option<&'static str>,
    query: Option<&Query>,
    format: Format,
) -> Result<String, Failure> {
    let mut order = KeyOrder::default();
    if let Some(query) = query {
        value = query.apply(&value)?;
        order = KeyOrder::of(query.expression.as_ast());
    } else if let (Format::Table, Some(columns)) = (format, columns) {
        let columns = Query::parse(columns)?;
        value = columns.apply(&value)?;
        order = KeyOrder::of(columns.expression.as_ast());
    }
    if value.is_null() {
        return Ok(String::new());
    }
    Ok(match format {
        Format::Json => json::plain(&value),
        Format::Jsonc => json::coloured(&value),
        Format::Table => table::render(&value, &order),
        Format::Tsv => tsv::render(&value, &order),
        Format::Yaml | Format::Yamlc => serde_saphyr::to_string(&value)
            .map_err(|error| Failure::here(format!("The output can't be written as YAML: {error}.")))?,
        Format::None => String::new(),
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
