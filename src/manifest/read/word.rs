//! Words: values that are a text with a form, and words of a few.

use schemars::{Schema, json_schema};

use super::{Read, Reading, quoted};
use crate::manifest::problem::Problem;
use crate::manifest::tree::{Node, Value};

/// The alternative that lets a pattern match a text with a variable in it.
pub(super) const VARIABLE: &str = "|\\$";

/// An integer that was written in another base.
fn in_decimal(digits: &str, radix: u32) -> String {
    i64::from_str_radix(digits, radix).map_or_else(|_| digits.to_owned(), |number| number.to_string())
}

/// What may be written without quotes although it is read as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manifest) enum Bare {
    Nothing,
    Integers,
    Numbers,
}

/// A value with a form: a time span, a name, an address.
pub(in crate::manifest) trait Word: Sized {
    /// With its article: `a time span`.
    const NOUN: &'static str;
    const BARE: Bare;
    /// Says what was expected when the text has not the form.
    fn parse(text: &str) -> Result<Self, String>;
    /// What was probably meant.
    fn meant(_text: &str) -> Option<String> {
        None
    }
    /// For a word that is a key: the entry that an item of the list that others use would be.
    fn entry_of(_item: &str) -> Option<String> {
        None
    }
}

impl<W: Word> Read for W {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<W> {
        let text = match (&node.value, W::BARE) {
            (Value::String(text), _) => reading.text_of(node, text)?,
            (Value::Integer { digits, radix }, Bare::Integers | Bare::Numbers) => in_decimal(digits, *radix),
            (Value::Float(digits), Bare::Numbers) => digits.clone(),
            (Value::Integer { digits, .. } | Value::Float(digits), _) => {
                let problem = Problem::at(&node.place, format!("expected {}, found {}", W::NOUN, node.kind()));
                reading.report(match W::parse(digits) {
                    Ok(_) if matches!(node.value, Value::Integer { radix: 2 | 16, .. }) => problem,
                    Ok(_) => problem.help(format!("write \"{digits}\"")),
                    Err(why) => problem.label(why),
                });
                return None;
            }
            _ => {
                reading.expected(node, W::NOUN, None);
                return None;
            }
        };
        match W::parse(&text) {
            Ok(value) => Some(value),
            Err(why) => {
                let problem = Problem::at(&node.place, format!("{} is not {}", quoted(&text), W::NOUN));
                reading.report(problem.label(why).maybe_help(W::meant(&text)));
                None
            }
        }
    }
}

/// Makes a type that reads itself from text a [`Word`] with a schema: `word!(Timespan, "a time span", Nothing,
/// PATTERN)`. The pattern says what the text looks like before variables are replaced.
macro_rules! word {
    ($type:ty, $noun:literal, $bare:ident, $pattern:literal) => {
        impl $crate::manifest::read::Word for $type {
            const NOUN: &'static str = $noun;
            const BARE: $crate::manifest::read::Bare = $crate::manifest::read::Bare::$bare;
            fn parse(text: &str) -> Result<Self, String> {
                text.parse::<$type>().map_err(|error| error.to_string())
            }
        }
        $crate::manifest::read::word_schema!($type, $noun, $bare, $pattern);
    };
}
pub(in crate::manifest) use word;

macro_rules! word_schema {
    ($type:ty, $noun:literal, $bare:ident, $pattern:literal) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $noun.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::manifest::read::word_form($crate::manifest::read::Bare::$bare, $pattern)
            }
        }
    };
}
pub(in crate::manifest) use word_schema;

/// The schema of a text with a form, or with a variable in it.
pub(in crate::manifest) fn word_form(bare: Bare, pattern: &str) -> Schema {
    let types = match bare {
        Bare::Nothing => json_schema!({ "type": "string" }),
        Bare::Integers => json_schema!({ "type": ["string", "integer"] }),
        Bare::Numbers => json_schema!({ "type": ["string", "number"] }),
    };
    let mut schema = types;
    schema.insert("pattern".to_owned(), format!("{pattern}{VARIABLE}").into());
    schema
}

/// Makes an enum a [`Word`]: its words are those that serde knows it by.
macro_rules! choice {
    ($type:ty, $noun:literal, [$($word:literal => $variant:expr),* $(,)?]) => {
        impl $crate::manifest::read::Word for $type {
            const NOUN: &'static str = $noun;
            const BARE: $crate::manifest::read::Bare = $crate::manifest::read::Bare::Nothing;
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($variant),)*
                    _ => Err(format!("expected {}", $crate::manifest::suggest::one_of(&[$($word),*]))),
                }
            }
            fn meant(text: &str) -> Option<String> {
                $crate::manifest::suggest::meant(text, &[$($word),*]).map(|near| format!("did you mean `{near}`?"))
            }
        }
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $noun.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "anyOf": [{ "enum": [$($word),*] }, { "type": "string", "pattern": "\\$" }] })
            }
        }
    };
}
pub(in crate::manifest) use choice;
