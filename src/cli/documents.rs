//! What the commands called `inspect` show: a list of documents as JSON, or each as a template says.

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::output::Output;
use super::template::Template;
use crate::model::foreign::tamed;

#[derive(Debug, Args)]
pub struct Shape {
    /// A line for each, as a template says, by these names or Docker's: '{{.State.Pid}}', '{{json .Mounts}}'; `json` is all
    /// in one line
    #[arg(short, long, value_name = "TEMPLATE", value_parser = template, conflicts_with = "json")]
    format: Option<Template>,
}

fn template(text: &str) -> Result<Template, String> {
    match text {
        "json" => "{{json .}}".parse(),
        text if !text.contains("{{") => Err("it shows nothing: write such as `{{.Name}}`, or `json`".to_owned()),
        text => text.parse(),
    }
}

/// One thing, in our words and in Docker's: those begin with capitals, so none hides another.
pub struct Inspected<D> {
    pub document: D,
    pub docker: Value,
}

impl<D: Serialize> Inspected<D> {
    /// As one of several kinds.
    pub fn into_value(self) -> Result<Inspected<Value>, Failure> {
        Ok(Inspected { document: serde_json::to_value(self.document)?, docker: self.docker })
    }
}

/// What was found under some names, and why others mean nothing.
pub type Sought = (Vec<Inspected<Value>>, Vec<Failure>);

impl Shape {
    /// All of them, or nothing behind the first of which the template names what it has not.
    pub fn show<D: Serialize>(&self, inspected: &[Inspected<D>], output: &Output) -> Result<(), Failure> {
        let Some(template) = &self.format else {
            return output.document(&inspected.iter().map(|one| &one.document).collect::<Vec<_>>());
        };
        for Inspected { document, docker } in inspected {
            let own = serde_json::to_value(document)?;
            let parts = [own, docker.clone()].into_iter().filter_map(|part| match part {
                Value::Object(map) => Some(map),
                _ => None,
            });
            let both: Map<String, Value> = parts.flatten().collect();
            let text =
                template.render(&Value::Object(both)).map_err(|why| Failure::usage(format!("--format: {why}")))?;
            // A script gets what there is; a terminal must not obey what a container wrote.
            let text = if output.is_terminal() { tamed(&text) } else { text };
            output.text(&(text + "\n"))?;
        }
        Ok(())
    }
}
