//! How an event is shown: a line for people, an object under Docker's names, or what a template makes of one.
//!
//! # Decisions
//! Docker has two sets of names for the same: those of its JSON (`status`, `time`), and those that its templates know
//! (`.Status`, `.Time`). Both are kept, since scripts have been written to both.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::cli::output::{Format, Output};
use crate::cli::template::Template;
use crate::model::event::{Event, Kind};
use crate::model::foreign::{tamed, tamed_line};

/// What was asked for with `--format`.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Json,
    Template(Template),
}

pub fn template(text: &str) -> Result<Shape, String> {
    match text {
        "json" => Ok(Shape::Json),
        text if !text.contains("{{") => {
            Err("it shows nothing: write such as `{{.Type}} {{.Action}}`, or `json`".into())
        }
        text => {
            let template: Template = text.parse()?;
            // The whole object is the one of the JSON.
            Ok(if template == "{{json .}}".parse()? { Shape::Json } else { Shape::Template(template) })
        }
    }
}

pub fn show(event: &Event, shape: Option<&Shape>, output: &Output) -> Result<(), Failure> {
    match (shape, output.format()) {
        (Some(Shape::Template(template)), _) => {
            let text = rendered(template, event).map_err(|why| Failure::usage(format!("--format: {why}")))?;
            let text = if output.is_terminal() { tamed(&text) } else { text };
            output.text(&(text + "\n"))
        }
        (Some(Shape::Json), _) | (None, Format::Json) => output.line(&document(event)),
        (None, Format::Text) => output.text(&(tamed_line(&line(event)) + "\n")),
    }
}

/// What is known of the object and of the act, labels among it. Its own words are stronger than labels.
fn attributes(event: &Event) -> BTreeMap<&str, &str> {
    let labels = event.labels.iter();
    labels.chain(&event.attributes).map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn line(event: &Event) -> String {
    let time = humantime::format_rfc3339_nanos(event.at());
    let known = attributes(event).iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
    format!("{time} {} {} {}{known}", event.kind.as_str(), event.action, event.id)
}

fn document(event: &Event) -> Value {
    let mut document = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": attributes(event) },
        "scope": "local",
        "time": event.time / 1_000_000_000,
        "timeNano": event.time,
    });
    if matches!(event.kind, Kind::Container | Kind::Image) {
        document["status"] = event.action.as_str().into();
        document["id"] = event.id.as_str().into();
    }
    if let (Kind::Container, Some(image)) = (event.kind, event.attributes.get("image")) {
        document["from"] = image.as_str().into();
    }
    document
}

fn rendered(template: &Template, event: &Event) -> Result<String, String> {
    let known = document(event);
    let word = |name: &str| known.get(name).cloned().unwrap_or_else(|| "".into());
    let document = json!({
        "Type": known["Type"],
        "Action": known["Action"],
        "Actor": known["Actor"],
        "Scope": known["scope"],
        "Time": known["time"],
        "TimeNano": known["timeNano"],
        "Status": word("status"),
        "ID": word("id"),
        "From": word("from"),
    });
    template.render_with(&document, &[&document["Actor"]["Attributes"]])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn event() -> Event {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        let mut event = Event::new(at, Kind::Container, "die", "0123456789ab")
            .with("name", "web")
            .with("image", "docker.io/library/nginx:1.27")
            .with("exitCode", 137);
        event.labels.insert("exitCode".into(), "0".into());
        event.labels.insert("tier".into(), "\u{1b}[2Jfront".into());
        event
    }

    #[test]
    fn a_line_is_docker_s_and_a_label_passes_for_nothing_else() {
        assert_eq!(
            line(&event()),
            "2023-11-14T22:13:20.000000005Z container die 0123456789ab \
             (exitCode=137, image=docker.io/library/nginx:1.27, name=web, tier=\u{1b}[2Jfront)"
        );
        let bare = Event::new(SystemTime::UNIX_EPOCH, Kind::Volume, "create", "data");
        assert_eq!(line(&bare), "1970-01-01T00:00:00.000000000Z volume create data");
    }

    #[test]
    fn the_object_has_docker_s_names() {
        let document = document(&event());
        for (pointer, value) in [
            ("/status", json!("die")),
            ("/id", json!("0123456789ab")),
            ("/from", json!("docker.io/library/nginx:1.27")),
            ("/Type", json!("container")),
            ("/Action", json!("die")),
            ("/Actor/ID", json!("0123456789ab")),
            ("/Actor/Attributes/exitCode", json!("137")),
            ("/scope", json!("local")),
            ("/time", json!(1_700_000_000)),
            ("/timeNano", json!(1_700_000_000_000_000_005_u64)),
        ] {
            assert_eq!(document.pointer(pointer), Some(&value), "{pointer}");
        }
    }

    #[test]
    fn a_template_knows_go_s_names_and_every_attribute() {
        let shown = |text: &str| match template(text).unwrap() {
            Shape::Template(template) => rendered(&template, &event()),
            Shape::Json => Ok("json".to_owned()),
        };
        assert_eq!(shown("{{.Time}} {{.Actor.Attributes.name}} {{.Status}}").as_deref(), Ok("1700000000 web die"));
        assert_eq!(shown("{{.Actor.Attributes.signal}}|{{.From}}").as_deref(), Ok("|docker.io/library/nginx:1.27"));
        assert_eq!(shown("{{json .}}").as_deref(), Ok("json"));
        assert!(shown("{{.Nmae}}").is_err() && template("Type").is_err());
    }
}
