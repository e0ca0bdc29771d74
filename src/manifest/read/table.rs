//! Tables with known keys: [`table!`] declares one, [`Fields`] reads it.

use super::{Read, Reading, placed};
use crate::manifest::problem::{Place, Placed, Problem};
use crate::manifest::suggest::{nearest, one_of};
use crate::manifest::tree::{Key, Node, Value};

const OWN_TABLES: &str = "what begins with `x-` is ignored at the top of a manifest, and only there";

/// Words from elsewhere, and what to write instead. The empty word is what is no table at all.
pub(in crate::manifest) type Advice<'a> = &'a [(&'a str, &'a str)];

/// The keys of a table while it is read.
pub(in crate::manifest) struct Fields<'t> {
    what: &'static str,
    name: &'t Place,
    entries: &'t [(Key, Node)],
}

impl<'t> Fields<'t> {
    pub fn of(node: &'t Node, what: &'static str, advice: Advice<'_>, reading: &mut Reading<'_>) -> Option<Fields<'t>> {
        match &node.value {
            Value::Table(entries) => Some(Fields { what, name: &node.name, entries }),
            _ => {
                let advised = advice.iter().find(|(word, _)| word.is_empty()).map(|(_, advice)| (*advice).to_owned());
                reading.expected(node, &format!("{what} (a table)"), advised);
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
                let fields = $crate::manifest::read::Fields::of(node, $what, &$advice[..], reading)?;
                let mut unread = match fields.finish(Self::KEYS, &$required, &$advice[..], reading) {
                    true => Vec::new(),
                    false => vec!["?"],
                };
                Some($name { $($key: fields.get(stringify!($key), &mut unread, reading),)* unread })
            }
        }
    };
}
pub(in crate::manifest) use table;
