//! `$filter`: clauses joined by `and`. What is not understood is refused, since ignoring a clause would show
//! more than was asked for.

use casemate_model::Fault;

/// The longest filter, in bytes.
const MAX_LENGTH: usize = 4096;
/// Most clauses.
const MAX_CLAUSES: usize = 16;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Clause {
    /// `field eq 'value'`; the field in lower case.
    Equals(String, String),
    /// `field ne 'value'`.
    Differs(String, String),
    /// `substringof('text', field)`: the text that the field must hold; the field in lower case.
    Holds(String, String),
    /// `function('argument')` or `function()`; the name in lower case.
    Call(String, Option<String>),
}

/// Reads a filter; none gives no clauses.
///
/// # Errors
/// `InvalidFilterInQueryString` saying what was expected where.
pub(crate) fn parse(filter: Option<&str>) -> Result<Vec<Clause>, Fault> {
    let Some(filter) = filter.map(str::trim).filter(|filter| !filter.is_empty()) else {
        return Ok(Vec::new());
    };
    clauses(filter).map_err(|why| invalid(filter, &why))
}

/// The fault of a filter that can't be used.
pub(super) fn invalid(filter: &str, why: &str) -> Fault {
    let shown: String = filter.chars().take(200).collect();
    let message = format!(
        "Invalid $filter '{shown}' specified in the query string: {why}. Filters look like: resourceType eq \
         'Microsoft.X/type' and name eq 'n'."
    );
    Fault::invalid("InvalidFilterInQueryString", message).at("$filter")
}

fn clauses(filter: &str) -> Result<Vec<Clause>, String> {
    if filter.len() > MAX_LENGTH {
        return Err(format!("it is longer than {MAX_LENGTH} bytes"));
    }
    let words = words(filter)?;
    let mut rest = words.as_slice();
    let mut found = Vec::new();
    loop {
        let (clause, after) = clause(rest)?;
        found.push(clause);
        if found.len() > MAX_CLAUSES {
            return Err(format!("it has more than {MAX_CLAUSES} clauses"));
        }
        match after {
            [] => return Ok(found),
            [Word::Name(and), after @ ..] if and.eq_ignore_ascii_case("and") => rest = after,
            [Word::Name(or), ..] if or.eq_ignore_ascii_case("or") => return Err("'or' is not known here".to_owned()),
            [other, ..] => return Err(format!("'and' should stand where {other} stands")),
        }
    }
}

fn clause(words: &[Word]) -> Result<(Clause, &[Word]), String> {
    match words {
        [Word::Name(name), Word::Sign('('), Word::Sign(')'), rest @ ..] => {
            Ok((Clause::Call(name.to_lowercase(), None), rest))
        }
        [
            Word::Name(name),
            Word::Sign('('),
            Word::Text(text),
            Word::Sign(','),
            Word::Name(field),
            Word::Sign(')'),
            rest @ ..,
        ] if name.eq_ignore_ascii_case("substringof") => Ok((Clause::Holds(field.to_lowercase(), text.clone()), rest)),
        [Word::Name(name), Word::Sign('('), Word::Text(argument), Word::Sign(')'), rest @ ..] => {
            Ok((Clause::Call(name.to_lowercase(), Some(argument.clone())), rest))
        }
        [Word::Name(field), Word::Name(operator), Word::Text(value) | Word::Name(value), rest @ ..] => {
            let (field, value) = (field.to_lowercase(), value.clone());
            match operator.to_lowercase().as_str() {
                "eq" => Ok((Clause::Equals(field, value), rest)),
                "ne" => Ok((Clause::Differs(field, value), rest)),
                other => Err(format!("the operator '{other}' is not known; use eq or ne")),
            }
        }
        [] => Err("a clause is missing at its end".to_owned()),
        [first, ..] => Err(format!("a clause (field eq 'value') should stand where {first} stands")),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Name(String),
    Text(String),
    Sign(char),
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "'{name}'"),
            Self::Text(text) => write!(f, "the text '{text}'"),
            Self::Sign(sign) => write!(f, "'{sign}'"),
        }
    }
}

fn words(filter: &str) -> Result<Vec<Word>, String> {
    let mut found = Vec::new();
    let mut rest = filter.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' | ')' | ',' => found.push(Word::Sign(c)),
            '\'' => {
                let mut text = String::new();
                loop {
                    match rest.next() {
                        None => return Err("a text in single quotes does not end".to_owned()),
                        Some('\'') if rest.next_if_eq(&'\'').is_some() => text.push('\''),
                        Some('\'') => break,
                        Some(c) => text.push(c),
                    }
                }
                found.push(Word::Text(text));
            }
            c if c.is_ascii_alphanumeric() => {
                let mut name = String::from(c);
                while let Some(next) = rest.next_if(|c| c.is_ascii_alphanumeric() || "-_./".contains(*c)) {
                    name.push(next);
                }
                found.push(Word::Name(name));
            }
            other => return Err(format!("the character '{other}' has no meaning here")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send() {
        let equals = |field: &str, value: &str| Clause::Equals(field.to_owned(), value.to_owned());
        for (filter, clauses) in [
            ("resourceType eq 'A/b' and name eq 'it''s'", vec![equals("resourcetype", "A/b"), equals("name", "it's")]),
            ("tagName eq 'a' AND tagValue eq 'b'", vec![equals("tagname", "a"), equals("tagvalue", "b")]),
            (
                "principalId eq 8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
                vec![equals("principalid", "8e3af657-a8ff-443c-a75c-2fe8c4bcb635")],
            ),
            ("substringof('a,b', Name)", vec![Clause::Holds("name".into(), "a,b".into())]),
            ("atScope()", vec![Clause::Call("atscope".into(), None)]),
            (
                "atScope() and assignedTo('x')",
                vec![Clause::Call("atscope".into(), None), Clause::Call("assignedto".into(), Some("x".into()))],
            ),
            ("resourceType ne 'x'", vec![Clause::Differs("resourcetype".into(), "x".into())]),
            ("  ", vec![]),
        ] {
            assert_eq!(parse(Some(filter)).unwrap(), clauses, "{filter}");
        }
        assert_eq!(parse(None).unwrap(), []);
    }

    #[test]
    fn refusals_name_the_place() {
        for (filter, said) in [
            ("name eq 'a", "does not end"),
            ("name gt 'a'", "'gt' is not known"),
            ("name eq 'a' or name eq 'b'", "'or' is not known"),
            ("name eq 'a' name eq 'b'", "'and' should stand"),
            ("name eq 'a' and", "missing at its end"),
            ("f('a', b)", "should stand where"),
            ("eq 'a'", "should stand where 'eq'"),
            ("name eq (a)", "should stand where"),
            ("name; drop", "';' has no meaning"),
        ] {
            let message = parse(Some(filter)).unwrap_err().message;
            assert!(message.contains(said), "{filter}: {message}");
        }
        assert!(parse(Some(&"a eq 'b' and ".repeat(400))).is_err());
    }
}
