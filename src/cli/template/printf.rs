//! `printf` of templates: the verbs of Go's fmt that texts, numbers and truth have, with flags, width and precision.

use serde_json::Value;

use super::evaluate::shown;

/// Nobody reads a wider column.
const WIDEST: usize = 1000;

/// `%[-0+ ][WIDTH][.PRECISION]VERB`.
#[derive(Default)]
struct Verb {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
    verb: char,
}

pub fn printf(format: &str, values: &[&Value]) -> Result<String, String> {
    let mut text = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let (verb, after) = verb(after).ok_or_else(|| format!("`%{after}` is no verb"))?;
        rest = after;
        if verb.verb == '%' {
            text.push('%');
            continue;
        }
        let value = *values.next().ok_or_else(|| format!("`{format}` has more verbs than there are values"))?;
        text.push_str(&verb.padded(&verb.shown(value).ok_or_else(|| {
            let known = "%s, %v and %q, %d and %x for whole numbers, %f for numbers, %t for true and false";
            format!("`%{}` does not fit `{}`: there are {known}", verb.verb, shown(value))
        })?));
    }
    text.push_str(rest);
    match values.next() {
        None => Ok(text),
        Some(_) => Err(format!("there are more values than `{format}` has verbs")),
    }
}

fn verb(text: &str) -> Option<(Verb, &str)> {
    let mut verb = Verb::default();
    let after_flags = text.trim_start_matches(['-', '0', '+', ' ', '#']);
    let flags = &text[..text.len() - after_flags.len()];
    (verb.left, verb.zeros, verb.plus) = (flags.contains('-'), flags.contains('0'), flags.contains('+'));
    let number = |text: &str| -> Option<(Option<usize>, usize)> {
        let length = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        match length {
            0 => Some((None, 0)),
            _ => Some((Some(text[..length].parse().ok().filter(|width| *width <= WIDEST)?), length)),
        }
    };
    let (width, length) = number(after_flags)?;
    verb.width = width.unwrap_or(0);
    let mut rest = &after_flags[length..];
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, length) = number(after)?;
        verb.precision = Some(precision.unwrap_or(0));
        rest = &after[length..];
    }
    let mut characters = rest.chars();
    verb.verb = characters.next()?;
    Some((verb, characters.as_str()))
}

impl Verb {
    fn shown(&self, value: &Value) -> Option<String> {
        let cut = |text: String| match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text,
        };
        let signed = |text: String| if self.plus && !text.starts_with('-') { format!("+{text}") } else { text };
        match (self.verb, value) {
            ('s' | 'v', value) => Some(cut(shown(value))),
            ('q', value) => Some(format!("{:?}", cut(shown(value)))),
            ('d', Value::Number(number)) if !number.is_f64() => Some(signed(number.to_string())),
            ('x', Value::Number(number)) => number.as_i64().map(|number| match number {
                ..0 => format!("-{:x}", number.unsigned_abs()),
                number => format!("{number:x}"),
            }),
            ('x', Value::String(text)) => Some(text.bytes().map(|byte| format!("{byte:02x}")).collect()),
            ('f', Value::Number(number)) => {
                number.as_f64().map(|number| signed(format!("{number:.*}", self.precision.unwrap_or(6))))
            }
            ('t', Value::Bool(value)) => Some(value.to_string()),
            _ => None,
        }
    }

    fn padded(&self, text: &str) -> String {
        let width = self.width;
        match (self.left, self.zeros, text.strip_prefix('-')) {
            (true, ..) => format!("{text:<width$}"),
            (false, true, Some(digits)) => format!("-{digits:0>rest$}", rest = width.saturating_sub(1)),
            (false, true, None) => format!("{text:0>width$}"),
            (false, false, _) => format!("{text:>width$}"),
        }
    }
}
