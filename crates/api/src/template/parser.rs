//! From words to a tree: calls, literals, property access and indexing.

use super::lexer::{Token, tokens};

/// The longest expression, in bytes.
const MAX_LENGTH: usize = 24_576;
/// The deepest nesting of calls and indexes.
const MAX_DEPTH: usize = 64;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A function and its arguments.
    Call(String, Vec<Expression>),
    /// `target.name`.
    Property(Box<Expression>, String),
    /// `target[index]`.
    Index(Box<Expression>, Box<Expression>),
}

/// Parses what stands between the outer brackets.
///
/// # Errors
/// A sentence fragment saying what is wrong, such as `a ')' is missing`.
pub fn parse_expression(source: &str) -> Result<Expression, String> {
    if source.len() > MAX_LENGTH {
        return Err(format!("it is {} bytes long; at most {MAX_LENGTH} are allowed", source.len()));
    }
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens: &tokens, at: 0 };
    let expression = parser.expression(0)?;
    match parser.peek() {
        None => Ok(expression),
        Some(token) => Err(format!("{token} follows after its end")),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn take(&mut self, sign: char) -> bool {
        let there = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, sign: char) -> Result<(), String> {
        if self.take(sign) {
            return Ok(());
        }
        let found = self.peek().map_or_else(|| "the end".to_owned(), ToString::to_string);
        Err(format!("a '{sign}' is missing before {found}"))
    }

    fn expression(&mut self, depth: usize) -> Result<Expression, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it nests deeper than {MAX_DEPTH} levels"));
        }
        let mut expression = match self.next() {
            None => return Err("it ends where a value should stand".to_owned()),
            Some(Token::Text(text)) => Expression::Text(text),
            Some(Token::Number(number)) => Expression::Number(number),
            Some(Token::Name(name)) => {
                if !self.take('(') {
                    return Err(format!("the name '{name}' is not followed by '('; texts stand in single quotes"));
                }
                Expression::Call(name, self.arguments(depth + 1)?)
            }
            Some(sign @ Token::Sign(_)) => return Err(format!("{sign} stands where a value should stand")),
        };
        // A chain of accesses is a tree as deep as it is long.
        let mut chain = depth;
        loop {
            chain += 1;
            if chain > MAX_DEPTH * 2 {
                return Err("it chains too many properties".to_owned());
            }
            if self.take('.') {
                let Some(Token::Name(name)) = self.next() else {
                    return Err("a '.' is not followed by a property's name".to_owned());
                };
                expression = Expression::Property(Box::new(expression), name);
            } else if self.take('[') {
                let index = self.expression(depth + 1)?;
                self.expect(']')?;
                expression = Expression::Index(Box::new(expression), Box::new(index));
            } else {
                return Ok(expression);
            }
        }
    }

    fn arguments(&mut self, depth: usize) -> Result<Vec<Expression>, String> {
        let mut arguments = Vec::new();
        if self.take(')') {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression(depth)?);
            if self.take(')') {
                return Ok(arguments);
            }
            self.expect(',')?;
        }
    }
}
