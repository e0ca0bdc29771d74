//! Names: of projects and resources, hosts, paths inside a container, variables, and the kernel's own.

use crate::manifest::read::{Bare, Word, word, word_schema};
use crate::manifest::suggest::{key_text, nearest};
use crate::model::id::{ProjectName, ResourceName};
use crate::model::resources::ULIMIT_NAMES;
use crate::model::security::{CAPABILITY_NAMES, Capability};

word!(ProjectName, "a project's name", Nothing, "^[a-z0-9][a-z0-9_-]{0,62}$");

impl Word for ResourceName {
    const NOUN: &'static str = "a name";
    const BARE: Bare = Bare::Nothing;
    fn parse(text: &str) -> Result<ResourceName, String> {
        let replica = text.split_once('.').is_some_and(|(_, number)| number.parse::<u32>().is_ok());
        text.parse::<ResourceName>().map_err(|error| match replica {
            true => "a dot and a number is how replicas are called: choose another name".to_owned(),
            false => error.to_string(),
        })
    }
}
word_schema!(ResourceName, "a name", Nothing, "^[a-z0-9][a-z0-9_-]{0,62}$");

/// A text with a rule: the type, its noun, its pattern for the schema, and the rule.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $noun:literal, $pattern:literal, $rule:path $(, $more:item)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(in crate::manifest) struct $type(pub String);

        impl Word for $type {
            const NOUN: &'static str = $noun;
            const BARE: Bare = Bare::Nothing;
            fn parse(text: &str) -> Result<Self, String> {
                $rule(text).map(|()| $type(text.to_owned()))
            }
            $($more)?
        }
        word_schema!($type, $noun, Nothing, $pattern);
    };
}

name!(
    /// What the kernel keeps as a host's name: at most 64 bytes (uname(2)), labels as RFC 1123 has them.
    HostName, "a host name", "^[A-Za-z0-9.-]{1,64}$", check_host_name
);
name!(
    /// A name in /etc/hosts or in the resolver. Underscores are usual there, although no host may have one.
    Alias, "a host name", "^[A-Za-z0-9._-]{1,253}$", check_alias,
    /// Compose's `"name:address"`.
    fn entry_of(item: &str) -> Option<String> {
        let (name, address) = item.split_once([':', '='])?;
        Some(format!("{} = {address:?}", key_text(name)))
    }
);
name!(
    /// A path inside a container: absolute, without `.`, `..` and doubled slashes.
    Target, "a path inside the container", "^/", check_target,
    /// Compose's `"source:target:ro"`.
    fn entry_of(item: &str) -> Option<String> {
        let mut parts = item.split(':');
        let (source, target) = (parts.next()?, parts.next()?);
        let kind = if source.starts_with(['/', '.', '~']) { "bind" } else { "volume" };
        Some(match (parts.next(), kind) {
            (Some("ro"), kind) => format!("{target:?} = {{ {kind} = {source:?}, read_only = true }}"),
            (_, "volume") => format!("{target:?} = {source:?}"),
            (_, kind) => format!("{target:?} = {{ {kind} = {source:?} }}"),
        })
    }
);
name!(
    /// The name of an environment variable.
    Variable, "the name of a variable", "^[^=]+$", check_variable,
    /// Compose's `"NAME=value"`.
    fn entry_of(item: &str) -> Option<String> {
        let (name, value) = item.split_once('=')?;
        Some(format!("{} = {value:?}", key_text(name)))
    }
);
name!(
    /// The key of a label.
    LabelKey, "the key of a label", "^.+$", check_not_empty,
    /// Compose's `"key=value"`.
    fn entry_of(item: &str) -> Option<String> {
        let (key, value) = item.split_once('=')?;
        Some(format!("{} = {value:?}", key_text(key)))
    }
);
name!(
    /// What a `RUN --mount=type=secret,id=..` asks for: it must be possible to write it there.
    SecretId, "the id of a secret", "^[^,=]+$", check_secret
);
name!(
    /// A kernel setting that exists once per namespace.
    Sysctl, "a kernel setting of a container", "^(net|fs|kernel)\\.", check_sysctl
);
name!(
    /// The kernel's list format (cpuset(7)).
    CpuList, "a list of processors", "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$", check_cpu_list
);
name!(
    /// A limit of setrlimit(2).
    UlimitName, "a limit",
    "^(as|core|cpu|data|fsize|locks|memlock|msgqueue|nice|nofile|nproc|rss|rtprio|rttime|sigpending|stack)$",
    check_ulimit,
    fn meant(text: &str) -> Option<String> {
        nearest(text, ULIMIT_NAMES.iter().map(|(name, _)| *name)).map(|near| format!("did you mean `{near}`?"))
    }
);

/// A capability, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manifest) enum CapabilityWord {
    All,
    One(Capability),
}

impl Word for CapabilityWord {
    const NOUN: &'static str = "a capability";
    const BARE: Bare = Bare::Nothing;
    fn parse(text: &str) -> Result<CapabilityWord, String> {
        match text.eq_ignore_ascii_case("all") {
            true => Ok(CapabilityWord::All),
            false => text.parse().map(CapabilityWord::One).map_err(|error| format!("{error}")),
        }
    }
    fn meant(text: &str) -> Option<String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        nearest(name, CAPABILITY_NAMES).map(|near| format!("did you mean `{near}`?"))
    }
}
word_schema!(CapabilityWord, "a capability", Nothing, "^[A-Za-z_]+$");

fn check_not_empty(text: &str) -> Result<(), String> {
    match text.is_empty() {
        true => Err("it cannot be empty".to_owned()),
        false => Ok(()),
    }
}

fn check_secret(text: &str) -> Result<(), String> {
    match text.is_empty() || text.contains([',', '=']) {
        true => Err("expected a word without `,` and `=`".to_owned()),
        false => Ok(()),
    }
}

fn check_host_name(text: &str) -> Result<(), String> {
    if text.contains('_') {
        return Err("a host name has no `_`: use letters, digits and `-`".to_owned());
    }
    if text.len() > 64 {
        return Err(format!("the kernel keeps 64 characters, this one has {}", text.len()));
    }
    check_alias(text)
}

fn check_alias(text: &str) -> Result<(), String> {
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match text.len() <= 253 && text.split('.').all(label_is_good) {
        true => Ok(()),
        false => Err("expected letters, digits and `-` in labels of 1 to 63 characters, joined by dots".to_owned()),
    }
}

fn check_target(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err("expected an absolute path".to_owned());
    }
    let normal = text == "/" || text[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
    match normal {
        true => Ok(()),
        false => Err("expected a path without `.`, `..`, `//` and a slash at its end".to_owned()),
    }
}

fn check_variable(text: &str) -> Result<(), String> {
    check_not_empty(text)?;
    match text.contains(['=', '\0']) {
        true => Err("the name of a variable holds no `=`".to_owned()),
        false => Ok(()),
    }
}

/// The settings of the IPC namespace (ipc_namespaces(7)) and of the UTS namespace. Those of the network namespace
/// begin with `net.`, POSIX message queues' with `fs.mqueue.`.
const SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.domainname",
];

fn check_sysctl(text: &str) -> Result<(), String> {
    let parts_are_good = text
        .split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')));
    if !parts_are_good {
        return Err("expected a name such as `net.core.somaxconn`".to_owned());
    }
    if SYSCTLS.contains(&text) || text.starts_with("net.") || text.starts_with("fs.mqueue.") {
        return Ok(());
    }
    if text == "kernel.hostname" {
        return Err("the container's key `hostname` sets it".to_owned());
    }
    Err("it belongs to the whole host: only `net.*`, `fs.mqueue.*` and the IPC settings exist per container".to_owned())
}

fn check_cpu_list(text: &str) -> Result<(), String> {
    let range_is_good = |range: &str| match range.split_once('-') {
        None => range.parse::<u16>().is_ok(),
        Some((first, last)) => match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => first <= last,
            _ => false,
        },
    };
    match text.split(',').all(range_is_good) {
        true => Ok(()),
        false => Err("expected a list such as \"0-1,3\"".to_owned()),
    }
}

fn check_ulimit(text: &str) -> Result<(), String> {
    match ULIMIT_NAMES.iter().any(|(name, _)| *name == text) {
        true => Ok(()),
        false => {
            let names: Vec<&str> = ULIMIT_NAMES.iter().map(|(name, _)| *name).collect();
            Err(format!("expected one of {}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_whole_host_are_refused() {
        assert!(Sysctl::parse("net.core.somaxconn").is_ok());
        assert!(Sysctl::parse("fs.mqueue.msg_max").is_ok());
        assert!(Sysctl::parse("kernel.shmmax").is_ok());
        assert!(Sysctl::parse("vm.swappiness").unwrap_err().contains("whole host"));
        assert!(Sysctl::parse("net/../kernel").is_err());
        assert!(Sysctl::parse("net..core").is_err());
    }

    #[test]
    fn host_names_follow_the_rules_of_hosts() {
        assert!(HostName::parse("web-1.example").is_ok());
        for bad in ["", "-web", "a..b", "a_b", &"x".repeat(65)] {
            assert!(HostName::parse(bad).is_err(), "{bad}");
        }
        assert!(Alias::parse("my_db").is_ok());
    }

    #[test]
    fn targets_are_absolute_and_normal() {
        assert!(Target::parse("/var/lib").is_ok());
        for bad in ["var", "", "/var/", "/a/../b", "//a", "/./a"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
