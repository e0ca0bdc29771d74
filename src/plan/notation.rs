//! Values as a manifest would write them: the old and new texts of a plan.
//!
//! One trait with one method; strings are quoted as TOML quotes them. Nothing here is read back: the parser is
//! [`crate::manifest`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::build::{BuildNetwork, BuildSpec, SecretSource};
use crate::model::container::{CapabilitySet, Condition, FailureAction, Namespace, RunState, UpdateOrder};
use crate::model::extra_host::ExtraHost;
use crate::model::health::Probe;
use crate::model::image::{Archived, ImageSource, Pull};
use crate::model::network::{Attachment, NetworkMode, Subnet};
use crate::model::resources::Ulimit;
use crate::model::restart::{Backoff, RestartCondition};
use crate::model::seccomp::Seccomp;
use crate::model::security::{Device, IdRange, Users};
use crate::model::tmpfs::TmpfsOption;
use crate::model::units::{ByteSize, Cpus, Signal, Timespan};
use crate::model::volume::{Access, Filling, MissingSource, Mount, Owner, Propagation};

/// How a manifest writes a value.
pub(super) trait Notation {
    fn notation(&self) -> String;
}

/// A basic string of TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Terminal escapes in a value must not reach the terminal that shows the plan.
            c if c.is_control() => write!(out, "\\u{:04X}", u32::from(c)).expect("a String takes everything"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `[a, b]`
fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// A key, in quotes where it needs them.
fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// `{ a = 1, b = 2 }`, entries without a value left out.
fn table<const N: usize>(entries: [(&str, Option<String>); N]) -> String {
    let entries: Vec<String> =
        entries.into_iter().filter_map(|(key, value)| Some(format!("{key} = {}", value?))).collect();
    match entries.is_empty() {
        true => "{}".to_owned(),
        false => format!("{{ {} }}", entries.join(", ")),
    }
}

/// Types that a manifest writes without quotes.
macro_rules! bare {
    ($($name:ty),+) => {$(
        impl Notation for $name {
            fn notation(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
bare!(bool, u16, u32, u64, i32, Cpus);

/// Types that a manifest writes as a string.
macro_rules! string {
    ($($name:ty),+) => {$(
        impl Notation for $name {
            fn notation(&self) -> String {
                quoted(&self.to_string())
            }
        }
    )+};
}
string!(String, IpAddr, Ipv4Addr, Ipv6Addr, Subnet, ByteSize, Timespan, Signal, ExtraHost, TmpfsOption);

impl<T: Notation> Notation for Vec<T> {
    fn notation(&self) -> String {
        list(self.iter().map(T::notation))
    }
}

impl<T: Notation> Notation for BTreeSet<T> {
    fn notation(&self) -> String {
        list(self.iter().map(T::notation))
    }
}

impl Notation for ImageSource {
    fn notation(&self) -> String {
        match self {
            ImageSource::Reference(reference) => quoted(reference),
            ImageSource::Archive(Archived { path, image }) => {
                table([("archive", Some(quoted(&path.to_string_lossy()))), ("image", image.as_deref().map(quoted))])
            }
            ImageSource::Rootfs(path) => table([("rootfs", Some(quoted(&path.to_string_lossy())))]),
            ImageSource::Build(spec) => table([("build", Some(spec.notation()))]),
        }
    }
}

impl Notation for BuildSpec {
    fn notation(&self) -> String {
        // Exhaustive: two builds that differ must not read the same.
        let BuildSpec { context, dockerfile: _, target, args, labels, secrets, network, no_cache, pull } = self;
        let file = self.dockerfile_in_context();
        let texts = |all: &BTreeMap<String, String>| {
            let pair = |(name, value): (&String, &String)| format!("{} = {}", key(name), quoted(value));
            let pairs: Vec<String> = all.iter().map(pair).collect();
            (!pairs.is_empty()).then(|| format!("{{ {} }}", pairs.join(", ")))
        };
        let source = |source: &SecretSource| match source {
            SecretSource::File(path) => table([("file", Some(quoted(&path.to_string_lossy())))]),
            SecretSource::Environment(name) => table([("environment", Some(quoted(name)))]),
        };
        let secrets: Vec<String> = secrets.iter().map(|(id, of)| format!("{} = {}", key(id), source(of))).collect();
        table([
            ("context", Some(quoted(&context.to_string_lossy()))),
            ("dockerfile", (file.as_os_str() != "Dockerfile").then(|| quoted(&file.to_string_lossy()))),
            ("target", target.as_deref().map(quoted)),
            ("args", texts(args)),
            ("labels", texts(labels)),
            ("secrets", (!secrets.is_empty()).then(|| format!("{{ {} }}", secrets.join(", ")))),
            ("network", (*network == BuildNetwork::None).then(|| quoted("none"))),
            ("no_cache", no_cache.then(|| "true".to_owned())),
            ("pull", (*pull == Pull::Always).then(|| "true".to_owned())),
        ])
    }
}

impl Notation for CapabilitySet {
    fn notation(&self) -> String {
        match self {
            CapabilitySet::All => list([quoted("ALL")]),
            CapabilitySet::Some(names) => list(names.iter().map(|name| quoted(&name.to_string()))),
        }
    }
}

impl Notation for Namespace {
    fn notation(&self) -> String {
        quoted(match self {
            Namespace::Private => "private",
            Namespace::Host => "host",
        })
    }
}

impl Notation for Users {
    fn notation(&self) -> String {
        match self {
            Users::Host => quoted("host"),
            Users::Auto => quoted("auto"),
            Users::Range(IdRange { start, size }) => {
                table([("uid_start", Some(start.notation())), ("size", Some(size.notation()))])
            }
        }
    }
}

impl Notation for Seccomp {
    fn notation(&self) -> String {
        match self {
            Seccomp::Default => quoted("default"),
            Seccomp::Unconfined => quoted("unconfined"),
            Seccomp::Profile { path, profile } => {
                format!("{} ({} rules)", quoted(path), profile.syscalls.len())
            }
        }
    }
}

impl Notation for Device {
    fn notation(&self) -> String {
        quoted(&format!("{}:{}:{}", self.source, self.target, self.permissions))
    }
}

impl Notation for Ulimit {
    fn notation(&self) -> String {
        let side = |limit: Option<u64>| limit.map_or_else(|| quoted("unlimited"), |limit| limit.to_string());
        match self.soft == self.hard {
            true => side(self.soft),
            false => table([("soft", Some(side(self.soft))), ("hard", Some(side(self.hard)))]),
        }
    }
}

impl Notation for NetworkMode {
    fn notation(&self) -> String {
        match self {
            // Written as the table `networks`, not as a mode.
            NetworkMode::Networks(_) => quoted(""),
            NetworkMode::None => quoted("none"),
            NetworkMode::Host => quoted("host"),
            NetworkMode::Container(name) => quoted(&format!("container:{name}")),
        }
    }
}

impl Notation for Attachment {
    fn notation(&self) -> String {
        let Attachment { aliases, address, address6 } = self;
        table([
            ("aliases", (!aliases.is_empty()).then(|| aliases.notation())),
            ("address", address.map(|a| a.notation())),
            ("address6", address6.map(|a| a.notation())),
        ])
    }
}

impl Notation for Mount {
    fn notation(&self) -> String {
        match self {
            Mount::Volume { name, access: Access::ReadWrite, filling: Filling::Image } => quoted(name.as_str()),
            Mount::Volume { name, access, filling } => table([
                ("volume", Some(quoted(name.as_str()))),
                ("read_only", (*access == Access::ReadOnly).then(|| true.notation())),
                ("nocopy", (*filling == Filling::Nothing).then(|| true.notation())),
            ]),
            Mount::Bind { source, access, propagation, missing } => table([
                ("bind", Some(quoted(&source.to_string_lossy()))),
                ("read_only", (*access == Access::ReadOnly).then(|| true.notation())),
                ("propagation", (*propagation != Propagation::default()).then(|| propagation.notation())),
                ("create", (*missing == MissingSource::Create).then(|| true.notation())),
            ]),
            Mount::Tmpfs { size, mode, options } => table([
                ("tmpfs", Some(size.map_or_else(|| true.notation(), |size| size.notation()))),
                ("mode", mode.map(|mode| quoted(&mode.to_string()))),
                ("options", (!options.is_empty()).then(|| options.notation())),
            ]),
        }
    }
}

impl Notation for Propagation {
    fn notation(&self) -> String {
        quoted(match self {
            Propagation::Rprivate => "rprivate",
            Propagation::Private => "private",
            Propagation::Rshared => "rshared",
            Propagation::Shared => "shared",
            Propagation::Rslave => "rslave",
            Propagation::Slave => "slave",
        })
    }
}

impl Notation for RestartCondition {
    fn notation(&self) -> String {
        quoted(match self {
            RestartCondition::No => "no",
            RestartCondition::OnFailure => "on-failure",
            RestartCondition::Always => "always",
            RestartCondition::UnlessStopped => "unless-stopped",
        })
    }
}

impl Notation for Backoff {
    fn notation(&self) -> String {
        let Backoff { initial, factor, max, reset_after } = self;
        table([
            ("initial", Some(initial.notation())),
            ("factor", Some(factor.notation())),
            ("max", Some(max.notation())),
            ("reset_after", Some(reset_after.notation())),
        ])
    }
}

impl Notation for Probe {
    fn notation(&self) -> String {
        match self {
            Probe::Command(command) => table([("command", Some(command.notation()))]),
            Probe::Http { port, path } => {
                let http = table([("port", Some(port.notation())), ("path", Some(quoted(path)))]);
                table([("http", Some(http))])
            }
            Probe::Tcp { port } => table([("tcp", Some(port.notation()))]),
            Probe::None => quoted("none"),
        }
    }
}

impl Notation for Condition {
    fn notation(&self) -> String {
        quoted(match self {
            Condition::Started => "started",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed",
        })
    }
}

impl Notation for FailureAction {
    fn notation(&self) -> String {
        quoted(match self {
            FailureAction::Rollback => "rollback",
            FailureAction::Pause => "pause",
        })
    }
}

impl Notation for UpdateOrder {
    fn notation(&self) -> String {
        quoted(match self {
            UpdateOrder::StopFirst => "stop-first",
            UpdateOrder::StartFirst => "start-first",
        })
    }
}

impl Notation for RunState {
    fn notation(&self) -> String {
        quoted(match self {
            RunState::Running => "running",
            RunState::Stopped => "stopped",
        })
    }
}

impl Notation for Owner {
    fn notation(&self) -> String {
        let Owner { uid, gid, mode } = self;
        table([("uid", Some(uid.notation())), ("gid", Some(gid.notation())), ("mode", Some(quoted(&mode.to_string())))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_toml_quotes_it() {
        assert_eq!(quoted("a \"b\"\\\n"), r#""a \"b\"\\\n""#);
        assert_eq!(quoted("\u{1b}[31m"), r#""\u001B[31m""#);
    }

    #[test]
    fn tables_leave_out_what_is_not_set() {
        let bind = Mount::Bind {
            source: "/srv/conf".into(),
            access: Access::ReadOnly,
            propagation: Propagation::default(),
            missing: MissingSource::Refuse,
        };
        assert_eq!(bind.notation(), r#"{ bind = "/srv/conf", read_only = true }"#);
        assert_eq!(Attachment::default().notation(), "{}");
    }
}
