//! `ps --filter`: which containers are shown, in Docker's words.

use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use std::time::SystemTime;

use super::context::Context;
use super::failure::Failure;
use super::inventory::Inventory;
use super::ps::{self, Row};
use super::select;
use crate::model::health::Health;
use crate::model::network::{DEFAULT, NetworkMode};
use crate::model::port::Protocol;
use crate::model::record::ContainerRecord;

pub const FILTER_HELP: &str = "\
Only those that fit; several of one key are alternatives, of several keys all must fit. id=BEGINNING, name=PART, \
project=NAME, label=KEY or label=KEY=VALUE, ancestor=IMAGE, status=running (or created, starting, paused, stopping, \
waiting, exited, stopped, failed, crash_loop, lost), health=healthy (or starting, unhealthy, none), exited=CODE, \
volume=NAME or volume=PATH, network=NAME, \
publish=PORT[-PORT][/udp] of the host, expose=PORT[-PORT][/udp] of the container, before=NAME, since=NAME. Also Docker's \
states restarting, dead and removing; status=exited is all that have ended. A name may begin with ^ and end with $. Those \
that have ended are among them";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    key: Key,
    value: String,
    /// When the container was made that `before` and `since` name.
    moment: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Id,
    Name,
    Project,
    Label,
    Ancestor,
    Status,
    Health,
    Exited,
    Volume,
    Network,
    Publish,
    Expose,
    Before,
    Since,
    IsTask,
}

const STATES: [&str; 14] = [
    "created",
    "starting",
    "running",
    "paused",
    "stopping",
    "waiting",
    "exited",
    "stopped",
    "failed",
    "crash_loop",
    "lost",
    "restarting",
    "removing",
    "dead",
];
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as name=web")?;
        let one_of = |words: &[&str]| match words.contains(&value) {
            true => Ok(()),
            false => Err(format!("`{value}` is none of {}", words.join(", "))),
        };
        let key = match key {
            "id" => Key::Id,
            "name" => match value.trim_start_matches('^').trim_end_matches('$').trim_start_matches("/?") {
                part if part.contains(['*', '+', '?', '[', ']', '(', ')', '{', '}', '|', '\\', '^', '$']) => {
                    return Err(format!("`{value}` is no part of a name: of patterns only ^ and $ are known"));
                }
                _ => Key::Name,
            },
            "project" => Key::Project,
            "label" => Key::Label,
            "ancestor" => Key::Ancestor,
            "status" => one_of(&STATES).map(|()| Key::Status)?,
            "health" => one_of(&HEALTH).map(|()| Key::Health)?,
            "exited" => match value.parse::<u8>() {
                Ok(_) => Key::Exited,
                Err(_) => return Err(format!("`{value}` is not an exit code: 0 to 255")),
            },
            "volume" => Key::Volume,
            "network" => Key::Network,
            "publish" | "expose" => match ports(value) {
                Some(_) if key == "publish" => Key::Publish,
                Some(_) => Key::Expose,
                None => {
                    return Err(format!("`{value}` is no port: expected PORT, PORT-PORT, or either with /tcp or /udp"));
                }
            },
            "before" => Key::Before,
            "since" => Key::Since,
            "is-task" => one_of(&["true", "false"]).map(|()| Key::IsTask)?,
            _ => {
                let known = "id, name, project, label, ancestor, status, health, exited, volume, network, publish, \
                             expose, before, since";
                return Err(format!("`{key}` is none of {known}"));
            }
        };
        Ok(Filter { key, value: value.to_owned(), moment: None })
    }
}

/// `8080`, `8000-8999`, with or without `/udp`.
fn ports(text: &str) -> Option<(RangeInclusive<u16>, Protocol)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some((first.parse().ok()?..=last.parse().ok()?, protocol))
}

impl Filter {
    /// With what it says of another container looked up.
    pub fn resolved(&self, inventory: &Inventory, context: &Context) -> Result<Filter, Failure> {
        let moment = match self.key {
            Key::Before | Key::Since => {
                let record = select::one(inventory.records(), &self.value, &|| context.tie_break())?;
                inventory.created(record)
            }
            _ => None,
        };
        Ok(Filter { moment, ..self.clone() })
    }
}

/// Whether a container is to be shown. Labels are not alternatives: all of them must be there.
pub fn fits(filters: &[Filter], record: &ContainerRecord, created: Option<SystemTime>, row: &Row<'_>) -> bool {
    filters.iter().all(|filter| {
        let alternatives = filters.iter().filter(|other| match filter.key {
            Key::Label => *other == filter,
            key => other.key == key,
        });
        alternatives.into_iter().any(|filter| filter.holds(record, created, row))
    })
}

impl Filter {
    fn holds(&self, record: &ContainerRecord, created: Option<SystemTime>, row: &Row<'_>) -> bool {
        let value = self.value.as_str();
        match self.key {
            Key::Id => row.id.as_str().starts_with(value),
            Key::Name => is_named(&record.full_name(), value),
            Key::Project => record.project.project().is_some_and(|project| project.as_str() == value),
            Key::Label => match value.split_once('=') {
                Some((key, value)) => record.spec.labels.get(key).is_some_and(|found| found == value),
                None => record.spec.labels.contains_key(value),
            },
            Key::Ancestor => {
                let written = crate::model::image::normalize_reference(value);
                row.image == value || written.is_ok_and(|reference| reference == row.image)
            }
            Key::Status => ps::state_word(&row.state) == value || row.dockers.0 == value,
            Key::Health => value == health(row.health),
            Key::Exited => row.pid.is_none() && row.exit_code.is_some_and(|code| Ok(code) == value.parse()),
            Key::Volume => {
                let spec = &record.spec;
                let is_source = || spec.binds().any(|source| source == Path::new(value));
                spec.volumes().any(|name| name.as_str() == value) || is_source() || spec.mounts.contains_key(value)
            }
            Key::Network => match &record.spec.network {
                NetworkMode::Networks(networks) => {
                    let value = if value == "bridge" { DEFAULT } else { value };
                    networks.keys().any(|name| name.as_str() == value)
                }
                NetworkMode::None => value == "none",
                NetworkMode::Host => value == "host",
                NetworkMode::Container(_) => false,
            },
            Key::Publish => ports(value).is_some_and(|(range, protocol)| {
                record.spec.ports.keys().any(|host| host.protocol == protocol && range.contains(&host.port))
            }),
            Key::Expose => ports(value).is_some_and(|(range, protocol)| {
                record.spec.ports.iter().any(|(host, inside)| host.protocol == protocol && range.contains(inside))
            }),
            Key::Before => created.zip(self.moment).is_some_and(|(created, moment)| created < moment),
            Key::Since => created.zip(self.moment).is_some_and(|(created, moment)| created > moment),
            // There is no swarm whose tasks some were.
            Key::IsTask => value == "false",
        }
    }
}

/// A part of it, or with `^` its beginning, with `$` its end; Docker's names begin with a slash there.
fn is_named(name: &str, wanted: &str) -> bool {
    let (wanted, ends) = wanted.strip_suffix('$').map_or((wanted, false), |wanted| (wanted, true));
    let (wanted, begins) = wanted.strip_prefix('^').map_or((wanted, false), |wanted| (wanted, true));
    let wanted = if begins { wanted.strip_prefix("/?").or(wanted.strip_prefix('/')).unwrap_or(wanted) } else { wanted };
    match (begins, ends) {
        (true, true) => name == wanted,
        (true, false) => name.starts_with(wanted),
        (false, true) => name.ends_with(wanted),
        (false, false) => name.contains(wanted),
    }
}

fn health(health: Option<Health>) -> &'static str {
    match health {
        None => "none",
        Some(Health::Starting) => "starting",
        Some(Health::Healthy) => "healthy",
        Some(Health::Unhealthy) => "unhealthy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_known_key_and_what_it_can_be() {
        for (wanted, is_it) in
            [("eb", true), ("^eb", false), ("eb$", true), ("^web$", true), ("^/?web$", true), ("^/w", true)]
        {
            assert_eq!(is_named("web", wanted), is_it, "{wanted}");
        }
        for text in ["name=w.*", "publish=x", "expose=80/sctp", "is-task=maybe", "publish=80-"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
        for text in [
            "name=^/?web$",
            "publish=80-90/udp",
            "expose=80",
            "status=dead",
            "before=x",
            "is-task=false",
            "name=web",
            "label=a=b",
            "status=crash_loop",
            "health=none",
            "id=ab",
            "exited=255",
            "volume=/x",
        ] {
            assert!(text.parse::<Filter>().is_ok(), "{text}");
        }
        for text in ["name", "nmae=web", "status=up", "health=fine", "exited=256", "mount=x"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
