//! From the tree to typed values: the trait [`Read`], its implementations for what every table is made of, and
//! [`table!`], by which a table is declared.
//!
//! A reader returns `None` after it has reported a problem, and reading goes on beside it, so that one run shows
//! every problem. The same declarations give the JSON Schema ([`schemars::JsonSchema`]): what a schema says and
//! what is read cannot drift apart.

use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::interpolate::interpolate;
use super::problem::{Place, Placed, Problem, Source};
use super::suggest::{nearest, one_of};
use super::tree::{Key, Node, Value};
use super::{FileKind, Surroundings};

/// What readers share: the texts, the world around them, and the problems so far.
pub(super) struct Reading<'a> {
    pub sources: Vec<Source>,
    pub surroundings: &'a Surroundings<'a>,
    pub problems: Vec<Problem>,
}

impl Reading<'_> {
    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub fn expected(&mut self, node: &Node, noun: &str, help: Option<String>) {
        let problem = Problem::at(node.shown(), format!("expected {noun}, found {}", node.kind()));
        self.report(problem.maybe_help(help));
    }

    /// The absolute path that a path in the text at `place` means: relative ones begin at its file.
    pub fn absolute(&self, place: &Place, path: &str) -> PathBuf {
        let file = self.surroundings.directory.join(&self.sources[place.source].path);
        let directory = file.parent().unwrap_or(Path::new("/"));
        lexically_normal(&directory.join(path))
    }

    pub fn file_kind(&self, path: &Path) -> Option<FileKind> {
        (self.surroundings.file_kind)(path)
    }

    /// The string at `node` with its variables replaced. Nothing that reaches the kernel may hold a NUL.
    fn text_of(&mut self, node: &Node, text: &str) -> Option<String> {
        match interpolate(text, self.surroundings.variable) {
            Ok(text) if text.contains('\0') => {
                self.report(Problem::at(&node.place, "a text cannot hold a NUL character"));
                None
            }
            Ok(text) => Some(text),
            Err(error) => {
                let place = self.part_of(&node.place, &error.part);
                self.report(Problem::at(&place, error.message).help(error.help));
                None
            }
        }
    }

    /// Where `part` stands within `place`; all of it when the text has escapes.
    fn part_of(&self, place: &Place, part: &str) -> Place {
        let text = &self.sources[place.source].text;
        match text.get(place.start..place.end).and_then(|slice| slice.find(part)) {
            Some(at) => Place::new(place.source, place.start + at..place.start + at + part.len()),
            None => place.clone(),
        }
    }
}

/// `.` and `..` are resolved without looking at the disk.
fn lexically_normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Something that can be read from a node of the tree.
pub(super) trait Read: Sized {
    /// `None` when a problem was reported instead.
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self>;
}

/// Reads with the place kept.
pub(super) fn placed<T: Read>(node: &Node, reading: &mut Reading<'_>) -> Option<Placed<T>> {
    T::read(node, reading).map(|value| Placed { value, place: node.shown().clone() })
}

impl Read for String {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<String> {
        match &node.value {
            Value::String(text) => reading.text_of(node, text),
            Value::Integer { digits, .. } => {
                reading.expected(node, "a string", Some(format!("write \"{digits}\"")));
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

/// A whole number between two bounds, both included. A string is read when it holds a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole<const MIN: i64, const MAX: i64>(pub i64);

impl<const MIN: i64, const MAX: i64> Read for Whole<MIN, MAX> {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self> {
        let number = match &node.value {
            Value::Integer { digits, radix } => i64::from_str_radix(digits, *radix).ok(),
            Value::String(text) if text.contains('$') => reading.text_of(node, text)?.parse().ok(),
            Value::String(text) if text.parse::<i64>().is_ok() => {
                reading.expected(node, "a whole number", Some(format!("write {text} without quotes")));
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

/// A table whose keys are chosen by the user. A value that could not be read keeps its key, so that whoever
/// refers to it is not blamed too.
#[derive(Debug)]
pub(super) struct Entries<K, V>(pub Vec<(Placed<K>, Option<V>)>);

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

fn quoted(text: &str) -> String {
    match text {
        "" => "an empty text".to_owned(),
        text => format!("`{text}`"),
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

/// The alternative that lets a pattern match a text with a variable in it.
const VARIABLE: &str = "|\\$";

/// What may be written without quotes although it is read as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    Nothing,
    Integers,
    Numbers,
}

/// A value with a form: a time span, a name, an address.
pub(super) trait Word: Sized {
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
            (Value::Integer { digits, radix: 10 }, Bare::Integers | Bare::Numbers) => digits.clone(),
            (Value::Float(digits), Bare::Numbers) => digits.clone(),
            (Value::Integer { digits, .. } | Value::Float(digits), _) => {
                let problem = Problem::at(&node.place, format!("expected {}, found {}", W::NOUN, node.kind()));
                reading.report(match W::parse(digits) {
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

const OWN_TABLES: &str = "what begins with `x-` is ignored at the top of a manifest, and only there";

/// Words from elsewhere, and what to write instead.
pub(super) type Advice<'a> = &'a [(&'a str, &'a str)];

/// The keys of a table while it is read.
pub(super) struct Fields<'t> {
    what: &'static str,
    name: &'t Place,
    entries: &'t [(Key, Node)],
}

impl<'t> Fields<'t> {
    pub fn of(node: &'t Node, what: &'static str, reading: &mut Reading<'_>) -> Option<Fields<'t>> {
        match &node.value {
            Value::Table(entries) => Some(Fields { what, name: &node.name, entries }),
            _ => {
                reading.expected(node, &format!("{what} (a table)"), None);
                None
            }
        }
    }

    pub fn get<T: Read>(
        &self,
        name: &'static str,
        unread: &mut Vec<&'static str>,
        reading: &mut Reading<'_>,
    ) -> Option<Placed<T>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.text == name)?;
        let value = placed(node, reading);
        if value.is_none() {
            unread.push(name);
        }
        value
    }

    /// Reports keys that are not known and keys that are missing. Returns whether all keys were known.
    pub fn finish(&self, known: &[&str], required: &[&str], advice: Advice<'_>, reading: &mut Reading<'_>) -> bool {
        let mut meant = Vec::new();
        let unknown: Vec<&Key> =
            self.entries.iter().map(|(key, _)| key).filter(|key| !known.contains(&key.text.as_str())).collect();
        for key in &unknown {
            let problem = Problem::at(&key.place, format!("`{}` is not a key of {}", key.text, self.what));
            let advised = advice.iter().find(|(wrong, _)| *wrong == key.text).map(|(_, advice)| (*advice).to_owned());
            let advised = advised.or_else(|| key.text.starts_with("x-").then(|| OWN_TABLES.to_owned()));
            let near = nearest(&key.text, known.iter().copied());
            meant.extend(near);
            let help = advised
                .or_else(|| near.map(|near| format!("did you mean `{near}`?")))
                .unwrap_or_else(|| list_of_keys(known));
            reading.report(problem.label("unknown key").help(help));
        }
        let is_missing = |name: &&&str| !self.entries.iter().any(|(key, _)| key.text == **name);
        for name in required.iter().filter(is_missing).filter(|name| !meant.contains(*name)) {
            let problem = Problem::at(self.name, format!("{} needs `{name}`", self.what));
            reading.report(problem.label(format!("`{name}` is missing")));
        }
        unknown.is_empty()
    }
}

/// All keys where they fit on a line.
fn list_of_keys(known: &[&str]) -> String {
    match known.len() {
        0..=12 => format!("its keys are {}", one_of(known)),
        _ => "`evenkeel schema` has all its keys".to_owned(),
    }
}

/// Declares a table of the manifest: its keys, each with its meaning and the type that reads it. This one
/// declaration is the struct, the reader, the list of known keys and the JSON Schema.
///
/// `requires` names the keys that must be there; `advice` is a list of words from elsewhere with what to write
/// instead.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $name:ident: $what:literal, requires $required:expr, advice $advice:expr, {
            $($(#[$key_meta:meta])* $key:ident: $type:ty,)*
        }
    ) => {
        #[derive(Debug, Default, schemars::JsonSchema)]
        $(#[$meta])*
        #[schemars(deny_unknown_fields, extend("required" = $required))]
        pub(in crate::manifest) struct $name {
            $($(#[$key_meta])* pub $key: Option<$crate::manifest::problem::Placed<$type>>,)*
            /// Keys that are there but could not be read, `?` for those that are not known: what they would have
            /// said is not missing.
            #[schemars(skip)]
            #[allow(dead_code)] // not every table is asked
            pub unread: Vec<&'static str>,
        }

        impl $name {
            /// All its keys.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];
        }

        impl $crate::manifest::read::Read for $name {
            fn read(
                node: &$crate::manifest::tree::Node,
                reading: &mut $crate::manifest::read::Reading<'_>,
            ) -> Option<Self> {
                let fields = $crate::manifest::read::Fields::of(node, $what, reading)?;
                let mut unread = match fields.finish(Self::KEYS, &$required, &$advice[..], reading) {
                    true => Vec::new(),
                    false => vec!["?"],
                };
                Some($name { $($key: fields.get(stringify!($key), &mut unread, reading),)* unread })
            }
        }
    };
}
pub(super) use table;

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
pub(super) use word;

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
pub(super) use word_schema;

/// The schema of a text with a form, or with a variable in it.
pub(super) fn word_form(bare: Bare, pattern: &str) -> Schema {
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
pub(super) use choice;

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
pub(super) use either;
