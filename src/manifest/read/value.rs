//! Plain values: texts, truth values, whole numbers, lists; and values with a short and a long form.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Read, Reading, placed};
use crate::manifest::problem::Placed;
use crate::manifest::tree::{Node, Value, integer_text};

impl Read for String {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<String> {
        match &node.value {
            Value::String(text) => reading.text_of(node, text),
            Value::Integer { digits, radix } => {
                reading.expected(node, "a string", Some(format!("write \"{}\"", integer_text(digits, *radix))));
                None
            }
            _ => {
                reading.expected(node, "a string", None);
                None
            }
        }
    }
}

impl Read for bool {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<bool> {
        match &node.value {
            Value::Boolean(value) => return Some(*value),
            Value::String(text) if text.contains('$') => match reading.text_of(node, text)?.as_str() {
                "true" => return Some(true),
                "false" => return Some(false),
                _ => reading.expected(node, "`true` or `false`", None),
            },
            Value::String(text) if matches!(text.as_str(), "true" | "false") => {
                reading.expected(node, "`true` or `false`", Some(format!("write {text} without quotes")));
            }
            _ => reading.expected(node, "`true` or `false`", None),
        }
        None
    }
}

/// As Compose writes the container's side of a published port.
fn is_port_with_protocol(text: &str) -> bool {
    let parts = text.split_once('/');
    parts.is_some_and(|(number, protocol)| number.parse::<u16>().is_ok() && matches!(protocol, "tcp" | "udp"))
}

/// A whole number between two bounds, both included. A string is read when it holds a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manifest) struct Whole<const MIN: i64, const MAX: i64>(pub i64);

impl<const MIN: i64, const MAX: i64> Read for Whole<MIN, MAX> {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self> {
        let number = match &node.value {
            Value::Integer { digits, radix } => i64::from_str_radix(digits, *radix).ok(),
            Value::String(text) if text.contains('$') => reading.text_of(node, text)?.parse().ok(),
            Value::String(text) if text.parse::<i64>().is_ok() => {
                reading.expected(node, "a whole number", Some(format!("write {text} without quotes")));
                return None;
            }
            Value::String(text) if is_port_with_protocol(text) => {
                let (number, protocol) = text.split_once('/').unwrap_or((text, ""));
                let help = format!("the protocol is said on the host's side: \"PORT/{protocol}\" = {number}");
                reading.expected(node, "a whole number", Some(help));
                return None;
            }
            _ => {
                reading.expected(node, "a whole number", None);
                return None;
            }
        };
        let within = number.filter(|number| (MIN..=MAX).contains(number));
        if within.is_none() {
            reading.expected(node, &format!("a whole number from {MIN} to {MAX}"), None);
        }
        within.map(Whole)
    }
}

impl<const MIN: i64, const MAX: i64> JsonSchema for Whole<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Whole".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "minimum": MIN, "maximum": MAX, "pattern": "\\$" })
    }
}

impl<T: Read> Read for Vec<Placed<T>> {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self> {
        match &node.value {
            Value::Array(items) => Some(items.iter().filter_map(|item| placed(item, reading)).collect()),
            Value::String(text) => {
                reading.expected(node, "a list", Some(format!("write [{text:?}]")));
                None
            }
            _ => {
                reading.expected(node, "a list", None);
                None
            }
        }
    }
}

impl<T: JsonSchema> JsonSchema for Placed<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Gives a type with a short and a long form its schema: either of these.
macro_rules! either {
    ($type:ty: $($form:ty),+) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "anyOf": [$(generator.subschema_for::<$form>()),+] })
            }
        }
    };
}
pub(in crate::manifest) use either;
