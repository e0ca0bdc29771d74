//! From text to a [`Template`].

use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::Value;

use super::columns::LABEL;
use super::{Branch, Expression, FUNCTIONS, Function, Node, Template};

pub fn parse(text: &str) -> Result<Template, String> {
    let mut pieces = pieces(text)?.into_iter();
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        Ended::Text => Ok(Template(nodes)),
        Ended::End => Err("there is an `{{end}}` without `{{if}}`, `{{with}}` or `{{range}}`".to_owned()),
        Ended::Else(_) => Err("there is an `{{else}}` without `{{if}}`, `{{with}}` or `{{range}}`".to_owned()),
    }
}

enum Piece {
    Text(String),
    /// What stands between `{{` and `}}`.
    Action(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    /// `.Name` without its dot; a dot alone is empty.
    Field(String),
    /// One that stands right behind a field, a variable or a `)`: of that.
    Further(String),
    Variable(String),
    Literal(Value),
    Open,
    Close,
    Pipe,
    Comma,
    Becomes,
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = action(after)?;
        let (inside, trims_before) = match inside.strip_prefix("- ") {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        let (inside, trims_after) = match inside.strip_suffix(" -") {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        push_text(&mut pieces, before, trim, trims_before);
        let is_comment = inside.starts_with("/*") && inside.ends_with("*/");
        if !is_comment {
            pieces.push(Piece::Action(tokens(inside)?));
        }
        (rest, trim) = (after, trims_after);
    }
    push_text(&mut pieces, rest, trim, false);
    Ok(pieces)
}

/// Up to the `}}` that is in no string.
fn action(text: &str) -> Result<(&str, &str), String> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '`') => quote = Some(c),
            (None, '}') if text[at..].starts_with("}}") => return Ok((&text[..at], &text[at + 2..])),
            _ => {}
        }
    }
    Err(match quote {
        Some(quote) => format!("a {quote} is not closed in `{{{{{text}`"),
        None => format!("`{{{{{text}` has no `}}}}`"),
    })
}

/// A shell hands `\t` and `\n` on as two characters.
fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.replace("\\t", "\t").replace("\\n", "\n")));
    }
}

fn tokens(inside: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = inside.trim_start();
    let mut is_attached = false;
    while let Some(first) = rest.chars().next() {
        let name =
            |from: &str| from.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_')).map_or(from.len(), |end| end);
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Pipe, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Becomes, 2),
            '.' => {
                let length = name(&rest[1..]);
                let word = rest[1..=length].to_owned();
                (if is_attached { Token::Further(word) } else { Token::Field(word) }, 1 + length)
            }
            '$' => (Token::Variable(rest[1..1 + name(&rest[1..])].to_owned()), 1 + name(&rest[1..])),
            '`' | '"' => quoted(rest)?,
            c if c.is_ascii_digit() || c == '-' => number(rest)?,
            c if c.is_alphabetic() => {
                let word = &rest[..name(rest)];
                let token = match word {
                    "true" | "false" => Token::Literal(Value::Bool(word == "true")),
                    "nil" => Token::Literal(Value::Null),
                    _ => Token::Word(word.to_owned()),
                };
                (token, word.len())
            }
            other => return Err(format!("`{other}` in `{{{{{inside}}}}}` means nothing")),
        };
        rest = &rest[length..];
        let has_fields = match &token {
            Token::Field(name) | Token::Further(name) => !name.is_empty(),
            Token::Variable(_) | Token::Close => true,
            _ => false,
        };
        is_attached = has_fields && rest.starts_with('.');
        tokens.push(token);
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn quoted(rest: &str) -> Result<(Token, usize), String> {
    let quote = &rest[..1];
    let mut end = 1;
    let mut escaped = false;
    for c in rest[1..].chars() {
        end += c.len_utf8();
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == "\"" => escaped = true,
            c if quote.starts_with(c) => {
                let text = &rest[1..end - 1];
                let value = match quote {
                    "`" => Value::String(text.to_owned()),
                    // Go's strings are JSON's, as far as templates have them.
                    _ => serde_json::from_str(&rest[..end]).map_err(|error| format!("{}: {error}", &rest[..end]))?,
                };
                return Ok((Token::Literal(value), end));
            }
            _ => {}
        }
    }
    Err(format!("a {quote} is not closed in `{rest}`"))
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let length = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '.')).unwrap_or(rest.len());
    let value = serde_json::from_str(&rest[..length]).map_err(|_| format!("`{}` is no number", &rest[..length]))?;
    Ok((Token::Literal(value), length))
}

/// How a list of nodes came to its end.
enum Ended {
    Text,
    End,
    /// With what follows the word: `else if ..` has a condition of its own.
    Else(Vec<Token>),
}

/// More levels than this nobody writes.
const DEEPEST: usize = 64;

fn block(pieces: &mut IntoIter<Piece>, depth: usize) -> Result<(Vec<Node>, Ended), String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".to_owned());
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        match tokens.first() {
            Some(Token::Word(word)) if word == "end" => return Ok((nodes, Ended::End)),
            Some(Token::Word(word)) if word == "else" => return Ok((nodes, Ended::Else(tokens[1..].to_vec()))),
            Some(Token::Word(word)) if matches!(word.as_str(), "if" | "with" | "range") => {
                nodes.push(branch(word, tokens[1..].to_vec(), pieces, depth)?);
            }
            Some(Token::Variable(_)) if tokens.get(1) == Some(&Token::Becomes) => match variable(tokens)? {
                (Some(name), value) => nodes.push(Node::Set(name, whole(value)?)),
                (None, value) => nodes.push(Node::Show(whole(value)?)),
            },
            _ => nodes.push(Node::Show(whole(tokens)?)),
        }
    }
    Ok((nodes, Ended::Text))
}

fn branch(word: &str, tokens: Vec<Token>, pieces: &mut IntoIter<Piece>, depth: usize) -> Result<Node, String> {
    let (branch, tokens) = match word {
        "if" => variable(tokens).map(|(name, tokens)| (Branch::If(name), tokens))?,
        "with" => variable(tokens).map(|(name, tokens)| (Branch::With(name), tokens))?,
        _ => variables(tokens)?,
    };
    let of = whole(tokens)?;
    let (body, ended) = block(pieces, depth + 1)?;
    let otherwise = match ended {
        Ended::End => Vec::new(),
        Ended::Else(rest) if rest.is_empty() => match block(pieces, depth + 1)? {
            (otherwise, Ended::End) => otherwise,
            _ => return Err(format!("`{{{{{word}}}}}` has no `{{{{end}}}}`")),
        },
        Ended::Else(rest) => match rest.first() {
            // The `{{end}}` is that of both.
            Some(Token::Word(word)) if word == "if" => vec![self::branch("if", rest[1..].to_vec(), pieces, depth + 1)?],
            _ => return Err("after `else` only `if` is known".to_owned()),
        },
        Ended::Text => return Err(format!("`{{{{{word}}}}}` has no `{{{{end}}}}`")),
    };
    Ok(Node::Branch(branch, of, body, otherwise))
}

/// `$name := ..`, or `..` alone.
fn variable(tokens: Vec<Token>) -> Result<(Option<String>, Vec<Token>), String> {
    match tokens.as_slice() {
        [Token::Variable(name), Token::Becomes, ..] if name.is_empty() => Err("`$` is the document".to_owned()),
        [Token::Variable(name), Token::Becomes, rest @ ..] => Ok((Some(name.clone()), rest.to_vec())),
        _ => Ok((None, tokens)),
    }
}

/// `range $key, $value := ..`, `range $value := ..`, `range ..`.
fn variables(tokens: Vec<Token>) -> Result<(Branch, Vec<Token>), String> {
    let Some(at) = tokens.iter().position(|token| *token == Token::Becomes) else {
        return Ok((Branch::Range(None, None), tokens));
    };
    let rest = tokens[at + 1..].to_vec();
    match &tokens[..at] {
        [Token::Variable(value)] => Ok((Branch::Range(None, Some(value.clone())), rest)),
        [Token::Variable(key), Token::Comma, Token::Variable(value)] => {
            Ok((Branch::Range(Some(key.clone()), Some(value.clone())), rest))
        }
        _ => Err("before `:=` there are one or two variables, such as `$key, $value`".to_owned()),
    }
}

fn whole(tokens: Vec<Token>) -> Result<Expression, String> {
    let mut tokens = tokens.into_iter().peekable();
    let expression = pipeline(&mut tokens, 0)?;
    match tokens.next() {
        None => Ok(expression),
        Some(Token::Becomes) => Err("before `:=` there is one variable, such as `$name`".to_owned()),
        Some(token) => Err(format!("{} is one too many", described(&token))),
    }
}

/// What is before a `|` is the last argument of what is behind it.
fn pipeline(tokens: &mut Peekable<IntoIter<Token>>, depth: usize) -> Result<Expression, String> {
    let mut expression = command(tokens, None, depth)?;
    while tokens.next_if(|token| *token == Token::Pipe).is_some() {
        expression = command(tokens, Some(expression), depth)?;
    }
    Ok(expression)
}

fn command(
    tokens: &mut Peekable<IntoIter<Token>>,
    piped: Option<Expression>,
    depth: usize,
) -> Result<Expression, String> {
    let Some(Token::Word(word)) = tokens.next_if(|token| matches!(token, Token::Word(_))) else {
        let value = operand(tokens, depth)?;
        if piped.is_some() {
            return Err("behind a `|` there is a function".to_owned());
        }
        if let (Expression::Field(_, name), Some(Token::Literal(_) | Token::Variable(_) | Token::Open)) =
            (&value, tokens.peek())
            && name == LABEL
        {
            return Ok(Expression::Call(Function::Label, vec![value, operand(tokens, depth)?]));
        }
        return match tokens.peek() {
            None | Some(Token::Close | Token::Pipe | Token::Becomes) => Ok(value),
            Some(token) => Err(format!("{} follows {}, which takes no argument", described(token), value.written())),
        };
    };
    let known = FUNCTIONS.iter().find(|(name, _)| *name == word);
    let (_, function) = known.ok_or_else(|| {
        let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        format!("there is no `{word}`: expected a field such as `.Name`, if, with, range, or {}", names.join(", "))
    })?;
    let mut arguments = Vec::new();
    while !matches!(tokens.peek(), None | Some(Token::Close | Token::Pipe)) {
        arguments.push(operand(tokens, depth)?);
    }
    arguments.extend(piped);
    Ok(Expression::Call(*function, arguments))
}

fn operand(tokens: &mut Peekable<IntoIter<Token>>, depth: usize) -> Result<Expression, String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".to_owned());
    }
    let mut expression = match tokens.next() {
        Some(Token::Field(name)) if name.is_empty() => return Ok(Expression::Dot),
        Some(Token::Field(name)) => Expression::Field(Box::new(Expression::Dot), name),
        Some(Token::Variable(name)) if name.is_empty() => Expression::Document,
        Some(Token::Variable(name)) => Expression::Variable(name),
        Some(Token::Literal(value)) => return Ok(Expression::Literal(value)),
        Some(Token::Open) => {
            let inner = pipeline(tokens, depth + 1)?;
            tokens.next_if(|token| *token == Token::Close).ok_or("a `(` is not closed")?;
            inner
        }
        Some(token) => return Err(format!("{} is not expected there", described(&token))),
        None => return Err("something is missing between `{{` and `}}`".to_owned()),
    };
    while let Some(Token::Further(name)) = tokens.next_if(|token| matches!(token, Token::Further(_))) {
        expression = Expression::Field(Box::new(expression), name);
    }
    Ok(expression)
}

fn described(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("`{word}`"),
        Token::Field(name) | Token::Further(name) => format!("`.{name}`"),
        Token::Variable(name) => format!("`${name}`"),
        Token::Literal(value) => format!("`{value}`"),
        Token::Open => "`(`".to_owned(),
        Token::Close => "`)`".to_owned(),
        Token::Pipe => "`|`".to_owned(),
        Token::Comma => "`,`".to_owned(),
        Token::Becomes => "`:=`".to_owned(),
    }
}
