//! Tables whose keys the user chooses: names, ports, paths, variables.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::word::VARIABLE;
use super::{Read, Reading, Word, quoted};
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::tree::{Key, Node, Value};

/// A table whose keys are chosen by the user. A value that could not be read keeps its key, so that whoever
/// refers to it is not blamed too.
#[derive(Debug)]
pub(in crate::manifest) struct Entries<K, V>(pub Vec<(Placed<K>, Option<V>)>);

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Entries(Vec::new())
    }
}

impl<K, V> Entries<K, V> {
    /// The entries that could be read.
    pub fn whole(&self) -> impl Iterator<Item = (&Placed<K>, &V)> {
        self.0.iter().filter_map(|(key, value)| value.as_ref().map(|value| (key, value)))
    }
}

impl<K: Word, V: Read> Read for Entries<K, V> {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            reading.expected(node, "a table", as_table::<K>(node));
            return None;
        };
        let read = entries.iter().filter_map(|(key, node)| {
            let value = V::read(node, reading);
            let key = read_key(key, reading)?;
            Some((key, value))
        });
        Some(Entries(read.collect()))
    }
}

/// The table that a list was probably meant as.
fn as_table<K: Word>(node: &Node) -> Option<String> {
    let Value::Array(items) = &node.value else { return None };
    if matches!(items.first(), Some(Node { value: Value::Table(_), .. })) {
        return Some("write a table per entry, under its name: `[TABLE.NAME]`".to_owned());
    }
    let entries = items.iter().map(|item| match &item.value {
        Value::String(text) => K::entry_of(text),
        Value::Integer { digits, .. } => K::entry_of(digits),
        _ => None,
    });
    let entries: Vec<String> = entries.collect::<Option<_>>()?;
    (!entries.is_empty()).then(|| format!("write {{ {} }}", entries.join(", ")))
}

fn read_key<K: Word>(key: &Key, reading: &mut Reading<'_>) -> Option<Placed<K>> {
    match K::parse(&key.text) {
        Ok(value) => Some(Placed { value, place: key.place.clone() }),
        Err(why) => {
            let problem = Problem::at(&key.place, format!("{} is not {}", quoted(&key.text), K::NOUN));
            reading.report(problem.label(why).maybe_help(K::meant(&key.text)));
            None
        }
    }
}

impl<K: JsonSchema, V: JsonSchema> JsonSchema for Entries<K, V> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Entries".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (mut keys, values) = (generator.subschema_for::<K>(), generator.subschema_for::<V>());
        without_variables(&mut keys);
        json_schema!({ "type": "object", "propertyNames": keys, "additionalProperties": values })
    }
}

/// Keys are always strings, and nothing is replaced in them.
fn without_variables(keys: &mut Schema) {
    keys.insert("type".to_owned(), "string".into());
    let pattern = keys.get("pattern").and_then(|pattern| pattern.as_str()?.strip_suffix(VARIABLE).map(str::to_owned));
    if let Some(pattern) = pattern {
        keys.insert("pattern".to_owned(), pattern.into());
    }
}
