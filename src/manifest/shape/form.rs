//! Values that may be written in more than one form.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::model::container::Condition;
use crate::model::id::ResourceName;

use super::advice;
use super::container::{Attachment, HealthcheckTable, Ulimit, UlimitPair};
use super::name::LabelKey;
use super::project::Restart;
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::read::{Bare, Entries, Read, Reading, Word, choice, either, placed, table, word_schema};
use crate::manifest::tree::{Node, Value};

/// Labels by key.
pub(in crate::manifest) type Labels = Entries<LabelKey, Scalar>;

/// A text that may be written as a number or as `true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::manifest) struct Scalar(pub String);

impl Read for Scalar {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Scalar> {
        match &node.value {
            Value::Integer { digits, radix: 10 } => Some(Scalar(digits.clone())),
            Value::Float(digits) => Some(Scalar(digits.clone())),
            Value::Boolean(value) => Some(Scalar(value.to_string())),
            _ => String::read(node, reading).map(Scalar),
        }
    }
}

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "number", "boolean"] })
    }
}

/// A program and its arguments. No shell reads it; a string is refused, since Docker and Compose split one
/// differently.
#[derive(Debug)]
pub(in crate::manifest) struct CommandLine(pub Vec<String>);

impl Read for CommandLine {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<CommandLine> {
        if let Value::String(text) = &node.value {
            let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
            let problem = Problem::at(&node.place, "a command is a list of arguments").label("expected a list");
            reading.report(
                problem.help(format!(
                    "write [{}], or [\"/bin/sh\", \"-c\", {text:?}] for a line of shell",
                    words.join(", ")
                )),
            );
            return None;
        }
        let words = Vec::<Placed<String>>::read(node, reading)?;
        Some(CommandLine(words.into_iter().map(|word| word.value).collect()))
    }
}

either!(CommandLine: Vec<Placed<String>>);

/// The command of a health check: a list, or a line of shell.
#[derive(Debug)]
pub(in crate::manifest) struct Probe(pub Vec<String>);

impl Read for Probe {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Probe> {
        if let Value::String(_) = &node.value {
            let line = String::read(node, reading)?;
            return Some(Probe(vec!["/bin/sh".to_owned(), "-c".to_owned(), line]));
        }
        let words: Vec<String> =
            Vec::<Placed<String>>::read(node, reading)?.into_iter().map(|word| word.value).collect();
        if let Some(word @ ("CMD" | "CMD-SHELL" | "NONE")) = words.first().map(String::as_str) {
            let problem = Problem::at(node.shown(), format!("`{word}` is not a command"));
            reading.report(problem.label("expected the command itself").help(match word {
                "CMD" => "write the list without \"CMD\"",
                "CMD-SHELL" => "write the line as a string: a string is a line of shell",
                _ => "write healthcheck = \"none\"",
            }));
            return None;
        }
        if words.is_empty() {
            reading.report(Problem::at(node.shown(), "a health check's command is empty"));
            return None;
        }
        Some(Probe(words))
    }
}

either!(Probe: String, Vec<Placed<String>>);

/// A table, or `"none"`.
#[derive(Debug)]
pub(in crate::manifest) enum Healthcheck {
    None,
    Table(Box<HealthcheckTable>),
}

impl Read for Healthcheck {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Healthcheck> {
        match &node.value {
            Value::String(_) => NoHealthcheck::read(node, reading).map(|NoHealthcheck| Healthcheck::None),
            _ => HealthcheckTable::read(node, reading).map(|table| Healthcheck::Table(Box::new(table))),
        }
    }
}

#[derive(Debug)]
struct NoHealthcheck;
choice!(NoHealthcheck, "a health check", ["none" => NoHealthcheck]);
either!(Healthcheck: NoHealthcheck, HealthcheckTable);

/// A word (a built-in policy, `on-failure:5`, or a name of `[restart]`), or a policy of its own.
#[derive(Debug)]
pub(in crate::manifest) enum RestartWord {
    Word(Placed<String>),
    Policy(Box<Restart>),
}

impl Read for RestartWord {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<RestartWord> {
        match &node.value {
            Value::Boolean(false) => {
                let problem = Problem::at(&node.place, "expected a restart policy, found `false`");
                reading.report(problem.help("write \"no\""));
                None
            }
            Value::Table(_) => Restart::read(node, reading).map(|policy| RestartWord::Policy(Box::new(policy))),
            Value::String(_) => placed(node, reading).map(RestartWord::Word),
            _ => {
                reading.expected(node, "a restart policy", None);
                None
            }
        }
    }
}

either!(RestartWord: String, Restart);

/// Where the network comes from when not from `networks`.
#[derive(Debug, Clone)]
pub(in crate::manifest) enum NetworkWord {
    None,
    Host,
    Container(ResourceName),
}

impl NetworkWord {
    /// Whether the network namespace is somebody else's.
    pub fn shares_namespace(&self) -> bool {
        matches!(self, NetworkWord::Host | NetworkWord::Container(_))
    }
}

impl Word for NetworkWord {
    const NOUN: &'static str = "a network mode";
    const BARE: Bare = Bare::Nothing;
    fn parse(text: &str) -> Result<NetworkWord, String> {
        match (text, text.split_once(':')) {
            ("none", _) => Ok(NetworkWord::None),
            ("host", _) => Ok(NetworkWord::Host),
            (_, Some(("container" | "service", name))) => {
                name.parse().map(NetworkWord::Container).map_err(|error: crate::model::id::IdError| error.to_string())
            }
            _ => Err("expected `none`, `host` or `container:NAME`".to_owned()),
        }
    }
    fn meant(text: &str) -> Option<String> {
        matches!(text, "bridge" | "default" | "private" | "pasta" | "slirp4netns")
            .then(|| "leave it out: a container has a network of its own on the networks that it names".to_owned())
    }
}
word_schema!(NetworkWord, "a network mode", Nothing, "^(none|host|(container|service):.+)$");

/// A list of names, or a table by name.
#[derive(Debug)]
pub(in crate::manifest) struct Networks(pub Entries<ResourceName, Attachment>);

impl Read for Networks {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Networks> {
        match &node.value {
            Value::Array(items) => {
                let networks = by_name(items, reading, Attachment::default);
                // A list of nothing but wrong names is not an empty one.
                (items.is_empty() || !networks.0.is_empty()).then_some(Networks(networks))
            }
            Value::String(name) => {
                reading.expected(node, "a list of networks", Some(format!("write [{name:?}]")));
                None
            }
            _ => Entries::read(node, reading).map(Networks),
        }
    }
}

either!(Networks: Vec<Placed<ResourceName>>, Entries<ResourceName, Attachment>);

/// A list of names, which then must be started, or a table of conditions by name.
#[derive(Debug)]
pub(in crate::manifest) struct Dependencies(pub Entries<ResourceName, DependencyCondition>);

impl Read for Dependencies {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Dependencies> {
        match &node.value {
            Value::Array(items) => {
                Some(Dependencies(by_name(items, reading, || DependencyCondition(Condition::Started))))
            }
            Value::String(name) => {
                reading.expected(node, "a list of containers", Some(format!("write [{name:?}]")));
                None
            }
            _ => Entries::read(node, reading).map(Dependencies),
        }
    }
}

either!(Dependencies: Vec<Placed<ResourceName>>, Entries<ResourceName, DependencyCondition>);

/// A list of names as a table in which each has the same value.
fn by_name<V>(items: &[Node], reading: &mut Reading<'_>, value: impl Fn() -> V) -> Entries<ResourceName, V> {
    let mut entries: Vec<(Placed<ResourceName>, Option<V>)> = Vec::new();
    for item in items {
        let Some(name) = placed::<ResourceName>(item, reading) else { continue };
        match entries.iter().find(|(known, _)| known.value == name.value) {
            None => entries.push((name, Some(value()))),
            Some((first, _)) => {
                let problem = Problem::at(&name.place, format!("`{}` is in the list twice", name.value));
                reading.report(problem.related(&first.place, "first here"));
            }
        }
    }
    Entries(entries)
}

/// A condition: a word, or Compose's table of one, which is refused with what to write.
#[derive(Debug, Clone, Copy)]
pub(in crate::manifest) struct DependencyCondition(pub Condition);

choice!(Condition, "a condition", [
    "started" => Condition::Started,
    "healthy" => Condition::Healthy,
    "completed" => Condition::Completed,
]);

either!(DependencyCondition: Condition);

impl Read for DependencyCondition {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<DependencyCondition> {
        if let Value::Table(_) = &node.value {
            let problem = Problem::at(node.shown(), "expected a condition, found a table");
            reading.report(problem.help(
                "write `NAME = \"healthy\"` (or \"started\", \"completed\"); what is depended on must be there, and is \
                 restarted by itself",
            ));
            return None;
        }
        Condition::read(node, reading).map(DependencyCondition)
    }
}

/// A limit's number; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manifest) struct Limit(pub Option<u64>);

impl Word for Limit {
    const NOUN: &'static str = "a limit";
    const BARE: Bare = Bare::Integers;
    fn parse(text: &str) -> Result<Limit, String> {
        match text {
            "unlimited" | "-1" => Ok(Limit(None)),
            number => number
                .parse()
                .map(|number| Limit(Some(number)))
                .map_err(|_| "expected a number or \"unlimited\"".to_owned()),
        }
    }
}
word_schema!(Limit, "a limit", Integers, "^(unlimited|-1|[0-9]+)$");

impl Read for Ulimit {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Ulimit> {
        match &node.value {
            Value::Table(_) => UlimitPair::read(node, reading).map(Ulimit::Pair),
            _ => Limit::read(node, reading).map(Ulimit::Both),
        }
    }
}
either!(Ulimit: Limit, UlimitPair);

/// Who a container runs as: `user`, `user:group`, each a name or a number.
#[derive(Debug, Clone)]
pub(in crate::manifest) struct User(pub String);

impl Word for User {
    const NOUN: &'static str = "a user";
    const BARE: Bare = Bare::Integers;
    fn parse(text: &str) -> Result<User, String> {
        let part_is_good = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c == ':');
        let good = match text.split_once(':') {
            None => part_is_good(text),
            Some((user, group)) => part_is_good(user) && part_is_good(group),
        };
        match good {
            true => Ok(User(text.to_owned())),
            false => Err("expected a user such as \"1000\", \"1000:1000\" or \"postgres\"".to_owned()),
        }
    }
}
word_schema!(User, "a user", Integers, "^[^:\\s]+(:[^:\\s]+)?$");

/// A further group: a name or a number.
#[derive(Debug, Clone)]
pub(in crate::manifest) struct Group(pub String);

impl Word for Group {
    const NOUN: &'static str = "a group";
    const BARE: Bare = Bare::Integers;
    fn parse(text: &str) -> Result<Group, String> {
        match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == ':') {
            true => Err("expected a group such as \"audio\" or 29".to_owned()),
            false => Ok(Group(text.to_owned())),
        }
    }
}
word_schema!(Group, "a group", Integers, "^[^:\\s]+$");

/// `source[:target[:permissions]]` as Docker writes it, or a table.
#[derive(Debug, Default)]
pub(in crate::manifest) struct Device {
    pub source: String,
    pub target: String,
    pub permissions: String,
}

table! {
    /// A device of the host.
    DeviceTable: "a device", requires ["source"], advice advice::NONE, {
        /// The path on the host.
        source: String,
        /// The path inside the container. Default: the same.
        target: String,
        /// Some of `rwm`: read, write, make nodes. Default: `rwm`.
        permissions: String,
    }
}

either!(Device: String, DeviceTable);

impl Read for Device {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Device> {
        let (source, target, permissions) = match &node.value {
            Value::Table(_) => {
                let table = DeviceTable::read(node, reading)?;
                let text = |field: Option<Placed<String>>| field.map(|text| text.value);
                (text(table.source)?, text(table.target), text(table.permissions))
            }
            _ => {
                let text = String::read(node, reading)?;
                let mut parts = text.splitn(3, ':').map(str::to_owned);
                (parts.next()?, parts.next(), parts.next())
            }
        };
        let target = target.unwrap_or_else(|| source.clone());
        let permissions = permissions.unwrap_or_else(|| "rwm".to_owned());
        let mut sorted: Vec<char> = permissions.chars().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let good = !sorted.is_empty() && sorted.len() == permissions.len() && sorted.iter().all(|c| "rwm".contains(*c));
        if !good {
            reading.report(
                Problem::at(node.shown(), format!("`{permissions}` are no permissions of a device"))
                    .label("expected some of `r`, `w` and `m`"),
            );
            return None;
        }
        for path in [&source, &target] {
            if let Err(why) = super::name::Target::parse(path) {
                reading.report(Problem::at(node.shown(), format!("`{path}` is not a device's path")).label(why));
                return None;
            }
        }
        let permissions = ['r', 'w', 'm'].into_iter().filter(|c| sorted.contains(c)).collect();
        Some(Device { source, target, permissions })
    }
}
