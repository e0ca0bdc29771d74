//! What can be called in a template, as Go's text/template and Docker have it.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::Function;
use super::evaluate::{is_true, shown};
use super::printf::printf;

/// Nobody reads more blanks.
const WIDEST: u64 = 1000;

/// What it gives for these values.
pub fn call(function: Function, values: &[&Value]) -> Result<Value, String> {
    let count = |name: &str, what: &str| format!("`{name}` takes {what}");
    Ok(match (function, values) {
        (Function::Json, [value]) => serde_json::to_string(value).unwrap_or_default().into(),
        (Function::Json, _) => return Err(count("json", "one value")),
        (Function::Lower, [Value::String(text)]) => text.to_lowercase().into(),
        (Function::Upper, [Value::String(text)]) => text.to_uppercase().into(),
        (Function::Title, [Value::String(text)]) => title(text).into(),
        (Function::Lower | Function::Upper | Function::Title, _) => {
            return Err(count("lower`, `upper` and `title", "one text"));
        }
        (Function::Pad, [Value::String(text), Value::Number(before), Value::Number(behind)]) => {
            let blanks = |count: &Number| " ".repeat(count.as_u64().map_or(0, |count| count.min(WIDEST)) as usize);
            format!("{}{text}{}", blanks(before), blanks(behind)).into()
        }
        (Function::Pad, _) => return Err(count("pad", "a text and two numbers")),
        (Function::Truncate, [Value::String(text), Value::Number(length)]) => {
            text.chars().take(length.as_u64().map_or(0, |length| length as usize)).collect::<String>().into()
        }
        (Function::Truncate, _) => return Err(count("truncate", "a text and a number")),
        (Function::Join, [Value::Array(items), Value::String(between)]) => {
            items.iter().map(shown).collect::<Vec<_>>().join(between).into()
        }
        (Function::Join, _) => return Err(count("join", "a list and a text")),
        (Function::Split, [Value::String(text), Value::String(between)]) => match between.as_str() {
            "" => text.chars().map(|c| Value::from(c.to_string())).collect::<Vec<_>>().into(),
            between => text.split(between).map(Value::from).collect::<Vec<_>>().into(),
        },
        (Function::Split, _) => return Err(count("split", "two texts")),
        (Function::Len, [Value::String(text)]) => text.len().into(),
        (Function::Len, [Value::Array(items)]) => items.len().into(),
        (Function::Len, [Value::Object(map)]) => map.len().into(),
        (Function::Len, _) => return Err(count("len", "a text or a list")),
        (Function::Index, [value, keys @ ..]) => {
            keys.iter().try_fold((*value).clone(), |value, key| index(&value, key))?
        }
        (Function::Index, []) => return Err(count("index", "a list and a number, or a map and a key")),
        (Function::Slice, [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds)?,
        (Function::Slice, _) => return Err(count("slice", "a text or a list, and one or two numbers")),
        (Function::Label, [Value::Object(labels), Value::String(key)]) => {
            labels.get(key).cloned().unwrap_or_else(|| "".into())
        }
        // Above a table.
        (Function::Label, [Value::Null, Value::String(key)]) => key.clone().into(),
        (Function::Label, _) => return Err(count(".Label", "a text")),
        (Function::Print, values) => print(values).into(),
        (Function::Println, values) => {
            (values.iter().map(|value| shown(value)).collect::<Vec<_>>().join(" ") + "\n").into()
        }
        (Function::Printf, [Value::String(format), values @ ..]) => printf(format, values)?.into(),
        (Function::Printf, _) => return Err(count("printf", "a text with %s, %d, %v, %q, and a value for each")),
        (Function::Eq, [first, others @ ..]) if !others.is_empty() => others.contains(first).into(),
        (Function::Ne, [a, b]) => (a != b).into(),
        (Function::Eq | Function::Ne, _) => return Err(count("eq` and `ne", "two values")),
        (Function::Lt, [a, b]) => (order("lt", a, b)? == Ordering::Less).into(),
        (Function::Le, [a, b]) => (order("le", a, b)? != Ordering::Greater).into(),
        (Function::Gt, [a, b]) => (order("gt", a, b)? == Ordering::Greater).into(),
        (Function::Ge, [a, b]) => (order("ge", a, b)? != Ordering::Less).into(),
        (Function::Lt | Function::Le | Function::Gt | Function::Ge, _) => {
            return Err(count("lt`, `le`, `gt` and `ge", "two values"));
        }
        (Function::Not, [value]) => (!is_true(value)).into(),
        // The first two are asked one value after the other, see `evaluate`.
        (Function::And | Function::Or | Function::Not, _) => return Err(count("not", "one value")),
    })
}

/// What a map has not is empty, as with Go's maps of texts.
fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Array(items), Value::Number(number)) => {
            let found = number.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?));
            found.cloned().ok_or_else(|| format!("there is no item {number} in a list of {}", items.len()))
        }
        (Value::Null, Value::String(_)) => Ok("".into()),
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_else(|| "".into())),
        _ => Err(format!("`{key}` finds nothing in `{}`", shown(value))),
    }
}

fn title(text: &str) -> String {
    let mut begins = true;
    let word = |c: char| {
        let shown = if begins { c.to_uppercase().to_string() } else { c.to_string() };
        begins = c.is_whitespace();
        shown
    };
    text.chars().map(word).collect()
}

/// With a blank between two of which neither is a text.
fn print(values: &[&Value]) -> String {
    let mut text = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && !value.is_string() && !values[at - 1].is_string() {
            text.push(' ');
        }
        text.push_str(&shown(value));
    }
    text
}

fn order(name: &str, a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)).ok_or_else(|| "no number".to_owned()),
        },
        _ => Err(format!("`{name}` takes two numbers or two texts")),
    }
}

/// Of a text it counts bytes, as Go does.
fn slice(value: &Value, bounds: &[&Value]) -> Result<Value, String> {
    let length = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        other => return Err(format!("`slice` takes a text or a list, not `{}`", shown(other))),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(value) => {
            let number = value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|n| *n <= length);
            number.ok_or_else(|| format!("`slice`: {} is not from 0 to {length}", shown(value)))
        }
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    let part = match value {
        Value::String(text) => text.get(from..to).map(Value::from),
        Value::Array(items) => items.get(from..to).map(|items| items.to_vec().into()),
        _ => None,
    };
    part.ok_or_else(|| format!("`slice`: there is nothing from {from} to {to}"))
}
