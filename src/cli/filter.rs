//! `ps --filter`: which containers are shown, in Docker's words.

use std::path::Path;
use std::str::FromStr;

use super::ps::{self, Row};
use crate::model::health::Health;
use crate::model::network::NetworkMode;
use crate::model::record::ContainerRecord;

pub const FILTER_HELP: &str = "\
Only those that fit; several of one key are alternatives, of several keys all must fit. id=BEGINNING, name=PART, \
project=NAME, label=KEY or label=KEY=VALUE, ancestor=IMAGE, status=running (or created, starting, paused, stopping, \
waiting, exited, stopped, failed, crash_loop, lost), health=healthy (or starting, unhealthy, none), exited=CODE, \
volume=NAME or volume=PATH, network=NAME. Those that have ended are among them";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    key: Key,
    value: String,
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
}

const STATES: [&str; 11] = [
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
            "name" => Key::Name,
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
            _ => {
                let known = "id, name, project, label, ancestor, status, health, exited, volume, network";
                return Err(format!("`{key}` is none of {known}"));
            }
        };
        Ok(Filter { key, value: value.to_owned() })
    }
}

/// Whether a container is to be shown. Labels are not alternatives: all of them must be there.
pub fn fits(filters: &[Filter], record: &ContainerRecord, row: &Row<'_>) -> bool {
    filters.iter().all(|filter| {
        let alternatives = filters.iter().filter(|other| match filter.key {
            Key::Label => *other == filter,
            key => other.key == key,
        });
        alternatives.into_iter().any(|filter| filter.holds(record, row))
    })
}

impl Filter {
    fn holds(&self, record: &ContainerRecord, row: &Row<'_>) -> bool {
        let value = self.value.as_str();
        match self.key {
            Key::Id => row.id.as_str().starts_with(value),
            Key::Name => record.full_name().contains(value),
            Key::Project => record.project.project().is_some_and(|project| project.as_str() == value),
            Key::Label => match value.split_once('=') {
                Some((key, value)) => record.spec.labels.get(key).is_some_and(|found| found == value),
                None => record.spec.labels.contains_key(value),
            },
            Key::Ancestor => {
                let written = crate::model::image::normalize_reference(value);
                row.image == value || written.is_ok_and(|reference| reference == row.image)
            }
            Key::Status => ps::state_word(&row.state) == value,
            Key::Health => value == health(row.health),
            Key::Exited => row.pid.is_none() && row.exit_code.is_some_and(|code| Ok(code) == value.parse()),
            Key::Volume => {
                let spec = &record.spec;
                let is_source = || spec.binds().any(|source| source == Path::new(value));
                spec.volumes().any(|name| name.as_str() == value) || is_source() || spec.mounts.contains_key(value)
            }
            Key::Network => match &record.spec.network {
                NetworkMode::Networks(networks) => networks.keys().any(|name| name.as_str() == value),
                NetworkMode::None => value == "none",
                NetworkMode::Host => value == "host",
                NetworkMode::Container(_) => false,
            },
        }
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
        for text in ["name=web", "label=a=b", "status=crash_loop", "health=none", "id=ab", "exited=255", "volume=/x"] {
            assert!(text.parse::<Filter>().is_ok(), "{text}");
        }
        for text in ["name", "nmae=web", "status=up", "health=fine", "exited=256", "mount=x"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
