//! `events --filter`: which events are shown, in Docker's words.

use std::str::FromStr;

use crate::model::event::{Event, Kind};
use crate::model::id::{Instance, ProjectName};
use crate::model::reference::Reference;

pub const FILTER_HELP: &str = "\
Only those that fit; several of one key are alternatives, of several keys all must fit. type=container (or image, \
network, volume, host), event=ACTION (start, die, health_status ..), container=NAME or the beginning of an id, \
image=NAME, label=KEY or label=KEY=VALUE, network=NAME, volume=NAME, project=NAME, scope=local. `container`, `network` \
and `volume` show events of that type alone; `image` those of containers that are made of it, too";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    key: Key,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Container,
    Image,
    Event,
    Type,
    Label,
    Network,
    Volume,
    Project,
    /// There is no other than `local`.
    Scope,
}

const KEYS: [(&str, Key); 9] = [
    ("container", Key::Container),
    ("image", Key::Image),
    ("event", Key::Event),
    ("type", Key::Type),
    ("label", Key::Label),
    ("network", Key::Network),
    ("volume", Key::Volume),
    ("project", Key::Project),
    ("scope", Key::Scope),
];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let (word, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as event=die")?;
        let Some((_, key)) = KEYS.iter().find(|(known, _)| *known == word) else {
            return Err(format!("`{word}` is none of {}", KEYS.map(|(known, _)| known).join(", ")));
        };
        let kinds = Kind::ALL.map(Kind::as_str);
        match key {
            Key::Type if !kinds.contains(&value) => Err(format!("`{value}` is none of {}", kinds.join(", "))),
            Key::Scope if value != "local" => Err("the only scope is `local`".to_owned()),
            _ if value.is_empty() => Err(format!("`{word}` of what? Expected {word}=VALUE")),
            key => Ok(Filter { key: *key, value: value.to_owned() }),
        }
    }
}

/// Whether an event is to be shown. Labels are not alternatives: all of them must be there.
pub fn fits(filters: &[Filter], event: &Event) -> bool {
    filters.iter().all(|filter| {
        let mut alternatives = filters.iter().filter(|other| match filter.key {
            Key::Label => *other == filter,
            key => other.key == key,
        });
        alternatives.any(|filter| filter.holds(event))
    })
}

impl Filter {
    /// Only what happens to the objects of this project.
    pub fn of_project(project: &ProjectName) -> Filter {
        Filter { key: Key::Project, value: project.to_string() }
    }

    fn holds(&self, event: &Event) -> bool {
        let value = self.value.as_str();
        let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
        match self.key {
            Key::Container => {
                let is_it = || event.id.starts_with(value) || attribute("name").is_some_and(|name| names(value, name));
                event.kind == Kind::Container && is_it()
            }
            Key::Network => {
                let is_it = || event.id.starts_with(value) || attribute("name").is_some_and(|name| of(value, name));
                event.kind == Kind::Network && is_it()
            }
            Key::Volume => event.kind == Kind::Volume && of(value, &event.id),
            Key::Image => match event.kind {
                Kind::Image => {
                    let hex = event.id.strip_prefix("sha256:").unwrap_or_default();
                    let is_id = event.id == value || (!hex.is_empty() && hex.starts_with(value));
                    is_id || attribute("name").is_some_and(|name| refers(value, name))
                }
                Kind::Container => attribute("image").is_some_and(|image| refers(value, image)),
                Kind::Network | Kind::Volume | Kind::Host => false,
            },
            // What stands behind a colon says which: of health, or of a command.
            Key::Event => event.action == value || event.action.split(':').next() == Some(value),
            Key::Type => event.kind.as_str() == value,
            Key::Label => match value.split_once('=') {
                Some((key, value)) => event.labels.get(key).is_some_and(|found| found == value),
                None => event.labels.contains_key(value),
            },
            Key::Project => attribute("project") == Some(value),
            Key::Scope => true,
        }
    }
}

/// Whether `PROJECT/NAME` is meant by this, with its project or without.
fn of(value: &str, name: &str) -> bool {
    name == value || name.split_once('/').is_some_and(|(_, own)| own == value)
}

/// The same of a container; a name without a number means all its replicas.
fn names(value: &str, name: &str) -> bool {
    let without_number = |name: &str| {
        let (before, own) = name.rsplit_once('/').unwrap_or(("", name));
        let container = own.parse::<Instance>().ok()?.container;
        Some(if before.is_empty() { container.to_string() } else { format!("{before}/{container}") })
    };
    of(value, name) || without_number(name).is_some_and(|name| of(value, &name))
}

/// Whether an image's name is meant by this, with its tag or without.
fn refers(value: &str, name: &str) -> bool {
    let (Ok(meant), Ok(found)) = (value.parse::<Reference>(), name.parse::<Reference>()) else {
        return value == name;
    };
    let last = value.rsplit('/').next().unwrap_or(value);
    let is_bare = !last.contains([':', '@']);
    value == name
        || meant == found
        || (is_bare && meant.registry == found.registry && meant.repository == found.repository)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn container() -> Event {
        let mut event = Event::new(SystemTime::UNIX_EPOCH, Kind::Container, "health_status: healthy", "0123456789ab")
            .with("name", "shop/web.2")
            .with("project", "shop")
            .with("image", "docker.io/library/nginx:1.27");
        event.labels.insert("tier".into(), "front".into());
        event.labels.insert("a".into(), "b".into());
        event
    }

    fn shown(filters: &[&str], event: &Event) -> bool {
        let filters: Vec<Filter> = filters.iter().map(|text| text.parse().unwrap()).collect();
        fits(&filters, event)
    }

    #[test]
    fn each_key_means_what_docker_means() {
        for fitting in [
            &["container=web"][..],
            &["container=web.2"],
            &["container=shop/web"],
            &["container=0123"],
            &["image=nginx"],
            &["image=nginx:1.27"],
            &["image=docker.io/library/nginx"],
            &["event=health_status"],
            &["event=health_status: healthy"],
            &["event=die", "event=health_status"],
            &["type=container", "project=shop", "scope=local"],
            &["label=tier", "label=a=b"],
        ] {
            assert!(shown(fitting, &container()), "{fitting:?}");
        }
        for other in [
            &["container=we"][..],
            &["container=web.3"],
            &["container=other/web"],
            &["image=nginx:1.28"],
            &["image=gin"],
            &["event=health"],
            &["event=health_status: unhealthy"],
            &["type=image"],
            &["type=container", "project=blog"],
            &["label=tier", "label=a=c"],
            &["network=shop"],
            &["volume=web"],
        ] {
            assert!(!shown(other, &container()), "{other:?}");
        }
    }

    #[test]
    fn other_types_are_found_by_their_names() {
        let event = |kind, id: &str| Event::new(SystemTime::UNIX_EPOCH, kind, "create", id);
        assert!(shown(&["volume=data"], &event(Kind::Volume, "shop/data")));
        assert!(shown(&["network=front"], &event(Kind::Network, "01234567").with("name", "shop/front")));
        assert!(!shown(&["container=front"], &event(Kind::Network, "01234567").with("name", "front")));
        let image = event(Kind::Image, &format!("sha256:{}", "ab".repeat(32))).with("name", "localhost/web:1");
        assert!(shown(&["image=abab"], &image) && shown(&["image=localhost/web"], &image));
        assert!(!shown(&["image=localhost/web:2"], &image));
        let rootfs = event(Kind::Container, "x").with("image", "rootfs /srv/root");
        assert!(shown(&["image=rootfs /srv/root"], &rootfs));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in ["die", "evnt=die", "type=plugin", "scope=swarm", "label="] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
