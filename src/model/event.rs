//! What happened to an object, as it is told: one act, one line of JSON in the journal of the state root.
//!
//! ```text
//! {"time":1795852800123456789,"type":"container","action":"die","id":"0123456789ab",
//!  "attributes":{"exitCode":"137","name":"shop/web"},"labels":{"tier":"front"}}
//! ```
//!
//! Types and actions are Docker's words where Docker has one for it. Ours are `host` for what belongs to no single object, and
//! the actions `repair` (what somebody took away is there again), `rollback` (an update was given up) and `expire` (what was
//! removed has left the trash, too).
//!
//! # Decisions
//! * A line has a greatest length, because a journal that is kept within a size is only kept if no label can fill it. What does
//!   not fit is left off, labels first, and the line says so ([`LEFT_OFF`]): a tale that is cut short and says so is still true.
//! * Labels stand apart from what Evenkeel says of an object, where Docker puts both into one table: a label `exitCode` cannot
//!   pass for the word of a monitor. They are joined where they are shown.
//! * The action is a word and not an enum: a reader of an earlier version shows what a later one tells.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::record::ContainerRecord;

/// How long a line may be, in bytes, with its end: see the decisions of `journal`.
pub const LONGEST_LINE: usize = 8 * 1024;

/// How much of a single value is told, in bytes.
const LONGEST_VALUE: usize = 1024;

/// The attribute that says how many labels, or attributes, had no room.
pub const LEFT_OFF: &str = "leftOff";

/// What kind of object it happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Container,
    Image,
    Network,
    Volume,
    /// The host as a whole: its firewall rules.
    Host,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Container, Kind::Image, Kind::Network, Kind::Volume, Kind::Host];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Network => "network",
            Kind::Volume => "volume",
            Kind::Host => "host",
        }
    }
}

/// One act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since 1970.
    pub time: u64,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// In Docker's words: `start`, `die`, `exec_create: ls -l`.
    pub action: String,
    /// The object's identifier: of a volume its name, of the host the tag of its state root.
    pub id: String,
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Who an object is, whatever happens to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Traits {
    /// Name, project, image and labels.
    pub fn of(record: &ContainerRecord) -> Traits {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), record.full_name()),
            ("image".to_owned(), record.spec.image.to_string()),
        ]);
        if let Some(project) = record.project.project() {
            attributes.insert("project".to_owned(), project.to_string());
        }
        Traits { attributes, labels: record.spec.labels.clone() }
    }
}

impl Event {
    pub fn new(at: SystemTime, kind: Kind, action: impl Into<String>, id: impl ToString) -> Event {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Event {
            time: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            kind,
            action: action.into(),
            id: id.to_string(),
            attributes: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Event {
        self.attributes.insert(name.to_owned(), value.to_string());
        self
    }

    /// The same with what is known of its object.
    pub fn of(mut self, traits: Traits) -> Event {
        self.attributes.extend(traits.attributes);
        self.labels.extend(traits.labels);
        self
    }

    pub fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.time)
    }

    /// The line that tells it, with its end. It is never longer than [`LONGEST_LINE`], and holds no other line end.
    pub fn line(&self) -> Vec<u8> {
        let mut told = Event { action: cut(&self.action), id: cut(&self.id), ..self.clone() };
        told.attributes.values_mut().chain(told.labels.values_mut()).for_each(|value| *value = cut(value));
        let whole = told.json();
        if whole.len() <= LONGEST_LINE {
            return whole;
        }
        let (attributes, labels) = (std::mem::take(&mut told.attributes), std::mem::take(&mut told.labels));
        // Room for the word that something is missing.
        let mut room = LONGEST_LINE - told.json().len() - r#","labels":{},"":"""#.len() - LEFT_OFF.len() - 10;
        let mut fits = |(name, value): &(String, String)| {
            // With four quotes, a colon and a comma.
            let cost = length(name) + length(value) + 6;
            let is_room = cost <= room;
            room -= if is_room { cost } else { 0 };
            is_room
        };
        let count = attributes.len() + labels.len();
        told.attributes = attributes.into_iter().filter(&mut fits).collect();
        told.labels = labels.into_iter().filter(&mut fits).collect();
        let left_off = count - told.attributes.len() - told.labels.len();
        told.with(LEFT_OFF, left_off).json()
    }

    fn json(&self) -> Vec<u8> {
        // Text, numbers and tables of text: there is nothing that JSON could not say.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// What a line tells; `None` for one that is torn, or of a kind that is not known here.
    pub fn read(line: &[u8]) -> Option<Event> {
        serde_json::from_slice(line).ok()
    }
}

/// As much of a text as is told.
fn cut(text: &str) -> String {
    if text.len() <= LONGEST_VALUE {
        return text.to_owned();
    }
    let end = (0..=LONGEST_VALUE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// How long a text is as JSON, without its quotes: a control character takes six bytes there (RFC 8259, section 7).
fn length(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        Event::new(at, Kind::Container, "die", "0123456789ab").with("name", "shop/web").with("exitCode", 137)
    }

    #[test]
    fn a_line_reads_as_documented() {
        let line = String::from_utf8(event().line()).unwrap();
        assert_eq!(
            line,
            "{\"time\":1700000000123456789,\"type\":\"container\",\"action\":\"die\",\"id\":\"0123456789ab\",\
             \"attributes\":{\"exitCode\":\"137\",\"name\":\"shop/web\"}}\n"
        );
        assert_eq!(Event::read(line.trim_end().as_bytes()), Some(event()));
        let later = br#"{"time":1,"type":"volume","action":"defrag","id":"x","from_the_future":[1]}"#;
        assert_eq!(Event::read(later).map(|event| event.action).as_deref(), Some("defrag"));
        for torn in ["", "{", "{\"time\":17", "null", "\0\0\0"] {
            assert_eq!(Event::read(torn.as_bytes()), None, "{torn:?}");
        }
    }

    #[test]
    fn no_label_makes_a_line_long_or_two_of_it() {
        let hostile = "\u{1}\"\\\n".repeat(4000);
        let mut long = event().with("error", &hostile);
        for number in 0..500 {
            long.labels.insert(format!("label{number:03}{hostile}"), hostile.clone());
            long.labels.insert(format!("short{number:03}"), "x".to_owned());
        }
        let line = long.line();
        assert!(line.len() <= LONGEST_LINE && line.len() > LONGEST_LINE / 2, "{}", line.len());
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read = Event::read(&line).unwrap();
        assert_eq!((read.attributes["name"].as_str(), read.attributes["exitCode"].as_str()), ("shop/web", "137"));
        assert_eq!(read.labels["short000"], "x");
        let left_off: usize = read.attributes[LEFT_OFF].parse().unwrap();
        assert_eq!(left_off, 1000 - read.labels.len());
    }

    #[test]
    fn what_is_cut_is_cut_between_characters() {
        let long = event().with("error", "é".repeat(LONGEST_VALUE));
        let read = Event::read(&long.line()).unwrap();
        assert_eq!(read.attributes["error"], format!("{}…", "é".repeat(LONGEST_VALUE / 2)));
    }
}
