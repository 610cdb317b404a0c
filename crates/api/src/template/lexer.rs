//! The words of an expression.

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A name of a function or property.
    Name(String),
    /// Text in single quotes; two of them stand for one inside.
    Text(String),
    /// A whole number.
    Number(i64),
    /// One of `( ) [ ] , .`.
    Sign(char),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "'{name}'"),
            Self::Text(_) => f.write_str("a text"),
            Self::Number(number) => write!(f, "the number {number}"),
            Self::Sign(sign) => write!(f, "'{sign}'"),
        }
    }
}

/// Splits an expression (without its outer brackets) into words.
///
/// # Errors
/// Says which character is out of place, or that a text does not end.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = source.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' | ')' | '[' | ']' | ',' | '.' => found.push(Token::Sign(c)),
            '\'' => found.push(Token::Text(text(&mut rest).ok_or("a text in single quotes does not end")?)),
            '-' | '0'..='9' => {
                let mut end = at + 1;
                while let Some((next, _)) = rest.next_if(|(_, c)| c.is_ascii_digit()) {
                    end = next + 1;
                }
                let digits = &source[at..end];
                let number =
                    digits.parse().map_err(|_| format!("'{digits}' is not a whole number that fits 64 bits"))?;
                found.push(Token::Number(number));
            }
            c if c.is_ascii_alphabetic() || matches!(c, '_' | '$') => {
                let mut name = String::from(c);
                while let Some((_, next)) =
                    rest.next_if(|(_, c)| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '-'))
                {
                    name.push(next);
                }
                found.push(Token::Name(name));
            }
            other => return Err(format!("the character '{other}' at position {at} has no meaning here")),
        }
    }
    Ok(found)
}

fn text(rest: &mut std::iter::Peekable<std::str::CharIndices<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match rest.next()?.1 {
            '\'' if rest.next_if(|(_, c)| *c == '\'').is_some() => text.push('\''),
            '\'' => return Some(text),
            c => text.push(c),
        }
    }
}
