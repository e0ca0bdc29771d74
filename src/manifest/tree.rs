//! TOML text as a tree in which every key and value knows its place.
//!
//! [`toml::de::DeTable`] finds several syntax errors in one pass and keeps the spans; this module only gives its
//! values the number of their source, so that trees of several files can be merged.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub text: String,
    pub place: Place,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Of the value itself.
    pub place: Place,
    /// Of the key that it stands behind: what a problem with a whole table points at.
    pub name: Place,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer { digits: String, radix: u32 },
    Float(String),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

impl Node {
    /// Tables and lists are shown by their key: their own text may be long.
    pub fn shown(&self) -> &Place {
        match self.value {
            Value::Array(_) | Value::Table(_) => &self.name,
            _ => &self.place,
        }
    }

    /// What was found, for problems: `the integer 5`.
    pub fn kind(&self) -> String {
        match &self.value {
            Value::String(text) => format!("the string {text:?}"),
            Value::Integer { digits, radix } => format!("the integer {}", integer_text(digits, *radix)),
            Value::Float(text) => format!("the number {text}"),
            Value::Boolean(value) => format!("`{value}`"),
            Value::Datetime(text) => format!("the date {text}"),
            Value::Array(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }
}

/// What stands behind this key of a table.
pub(super) fn entry(table: Node, name: &str) -> Option<Node> {
    let Value::Table(entries) = table.value else { return None };
    entries.into_iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
}

/// How TOML writes it.
pub(super) fn integer_text(digits: &str, radix: u32) -> String {
    let prefix = match radix {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    format!("{prefix}{digits}")
}

/// The table that a text is, or all its syntax errors.
pub(super) fn parse(text: &str, source: usize) -> Result<Node, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let top = Place::new(source, 0..0);
        return Ok(Node { place: top.clone(), name: top, value: Value::Table(entries(table.into_inner(), source)) });
    }
    let problem_of = |(number, error)| {
        let problem = syntax_error(error, text, source);
        match error.span().filter(|_| error.message() == "duplicate key" && number < FIRSTS_SOUGHT) {
            Some(span) => defined_twice(problem, text, span, source),
            None => problem,
        }
    };
    Err(errors.iter().enumerate().map(problem_of).collect())
}

/// For so many duplicates the first one is looked for: each costs a parse.
const FIRSTS_SOUGHT: usize = 20;

fn defined_twice(problem: Problem, text: &str, span: Range<usize>, source: usize) -> Problem {
    let problem = problem.label("defined again here");
    match first_definition(text, &span) {
        Some(first) => problem.related(&Place { source, ..first }, "first defined here"),
        None => problem,
    }
}

/// Where the key that stands again at `again` stood first. The parser does not say; but the text with another key
/// in its place tells which table it is a key of.
fn first_definition(text: &str, again: &Range<usize>) -> Option<Place> {
    const STAND_IN: &str = "evenkeel-looks-for-the-table-of-this-key";
    let as_entry = format!("{} = 0", text.get(again.clone())?);
    let key = DeTable::parse(&as_entry).ok()?.into_inner().into_iter().next()?.0.into_inner().into_owned();
    let (before, after) = (&text[..again.start], &text[again.end..]);
    // What follows may define it a third time, which would count as the first.
    let line = after.split_inclusive('\n').next().unwrap_or_default();
    let replaced = format!("{before}{STAND_IN}{line}");
    let (table, _) = DeTable::parse_recoverable(&replaced);
    let top = Value::Table(entries(table.into_inner(), 0));
    let siblings = table_with(&top, STAND_IN)?;
    let first = siblings.iter().map(|(sibling, _)| sibling).find(|sibling| sibling.text == key)?;
    (first.place.end <= again.start).then(|| first.place.clone())
}

/// The table that has this key, wherever it is.
fn table_with<'t>(value: &'t Value, key: &str) -> Option<&'t [(Key, Node)]> {
    match value {
        Value::Table(entries) if entries.iter().any(|(known, _)| known.text == key) => Some(entries),
        Value::Table(entries) => entries.iter().find_map(|(_, node)| table_with(&node.value, key)),
        Value::Array(items) => items.iter().find_map(|node| table_with(&node.value, key)),
        _ => None,
    }
}

/// The parser's words, with the expectation beside the caret. What it says of a word without quotes depends on the
/// word's first letter (`nginx` is an "invalid float"), so that one is said here.
fn syntax_error(error: &toml::de::Error, text: &str, source: usize) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let place = Place::new(source, span.clone());
    let found = text.get(span).unwrap_or_default();
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | ':' | '_' | '-');
    if found.starts_with(|c: char| c.is_ascii_alphabetic()) && found.chars().all(is_word) && is_value(text, &place) {
        let problem = Problem::at(&place, format!("this is not TOML: the text `{found}` has no quotes"));
        return problem.help(format!("write \"{found}\""));
    }
    if error.message().contains("recursion") {
        return Problem::at(&place, "this is not a manifest: tables or lists are nested too deep");
    }
    match error.message().split_once(", expected ") {
        Some((what, expected)) => {
            Problem::at(&place, format!("this is not TOML: {what}")).label(format!("expected {expected}"))
        }
        None => Problem::at(&place, format!("this is not TOML: {}", error.message())),
    }
}

fn is_value(text: &str, place: &Place) -> bool {
    text[..place.start].trim_end_matches([' ', '\t']).ends_with('=')
}

fn entries(table: DeTable<'_>, source: usize) -> Vec<(Key, Node)> {
    table
        .into_iter()
        .map(|(key, value)| {
            let place = Place::new(source, key.span());
            let node = node(value, place.clone());
            (Key { text: key.into_inner().into_owned(), place }, node)
        })
        .collect()
}

fn node(value: Spanned<DeValue<'_>>, name: Place) -> Node {
    let source = name.source;
    let place = Place::new(source, value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(integer) => Value::Integer { digits: integer.as_str().to_owned(), radix: integer.radix() },
        DeValue::Float(float) => Value::Float(float.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(date) => Value::Datetime(date.to_string()),
        DeValue::Array(items) => Value::Array(items.into_iter().map(|item| item_node(item, &name)).collect()),
        DeValue::Table(table) => Value::Table(entries(table, source)),
    };
    Node { place, name, value }
}

/// An item of a list has no key: a table among them is shown by itself when it stands in the list's brackets,
/// and by the header (`[[images]]`) otherwise.
fn item_node(item: Spanned<DeValue<'_>>, list: &Place) -> Node {
    let own = Place::new(list.source, item.span());
    let name = if own.start == own.end { list.clone() } else { own };
    node(item, name)
}

/// The manifest without the tables that are the user's own: those whose names begin with `x-`.
pub(super) fn without_extensions(mut top: Node) -> Node {
    if let Value::Table(entries) = &mut top.value {
        entries.retain(|(key, _)| !key.text.starts_with("x-"));
    }
    top
}
