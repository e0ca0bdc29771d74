//! What `volume ls` and `network ls` show, narrowed and shaped in Docker's words.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::output::{Format, Output};
use super::template::columns::{Columns, LABEL, RowTemplate};

#[derive(Debug, Args)]
pub struct Listing {
    /// Only the names, one a line
    #[arg(short, long)]
    pub quiet: bool,

    /// Only those that fit; all must: name=PART, label=KEY or label=KEY=VALUE, driver=NAME, dangling=true (used by no
    /// container) or false
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,

    /// As a template says: '{{.Name}}', or 'table {{.Name}}\t{{.Driver}}' for columns. ID, Name, Driver, Scope, Mountpoint
    /// (of volumes), Internal (of networks), Labels and Label "key" are known; `json` is all of them
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["quiet", "json"])]
    pub format: Option<RowTemplate<Field>>,
}

/// A volume or a network, as far as a list tells of it.
#[derive(Debug)]
pub struct Listed<'a> {
    /// A volume's is its name.
    pub id: String,
    pub name: String,
    pub driver: &'static str,
    /// Of a volume.
    pub mountpoint: String,
    /// Of a network.
    pub internal: bool,
    pub labels: &'a BTreeMap<String, String>,
    pub is_used: bool,
}

/// A field under Docker's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Id,
    Name,
    Driver,
    Scope,
    Mountpoint,
    Internal,
    Labels,
    Label,
}

impl Columns for Field {
    const ALL: &'static [(Field, &'static str, &'static str)] = &[
        (Field::Id, "ID", "ID"),
        (Field::Name, "Name", "NAME"),
        (Field::Driver, "Driver", "DRIVER"),
        (Field::Scope, "Scope", "SCOPE"),
        (Field::Mountpoint, "Mountpoint", "MOUNTPOINT"),
        (Field::Internal, "Internal", "INTERNAL"),
        (Field::Labels, "Labels", "LABELS"),
        (Field::Label, LABEL, ""),
    ];
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Name(String),
    Label(String, Option<String>),
    Driver(String),
    Dangling(bool),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as name=data")?;
        Ok(match key {
            "name" => Filter::Name(value.to_owned()),
            "label" => match value.split_once('=') {
                Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
                None => Filter::Label(value.to_owned(), None),
            },
            "driver" => Filter::Driver(value.to_owned()),
            "dangling" => Filter::Dangling(match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(format!("`{value}` is neither true nor false")),
            }),
            _ => return Err(format!("`{key}` is none of name, label, driver, dangling")),
        })
    }
}

impl Listing {
    pub fn shows(&self, listed: &Listed<'_>) -> bool {
        self.filter.iter().all(|filter| match filter {
            Filter::Name(part) => listed.name.contains(part),
            Filter::Label(key, value) => {
                listed.labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| found == value))
            }
            Filter::Driver(driver) => listed.driver == driver,
            Filter::Dangling(dangling) => listed.is_used != *dangling,
        })
    }
}

/// All of them: `rows` and `table` are what a list has in words of its own.
pub fn show<R: Serialize>(
    listing: &Listing,
    listed: &[Listed<'_>],
    rows: &[R],
    table: impl FnOnce() -> String,
    output: &Output,
) -> Result<Exit, Failure> {
    let names = || listed.iter().map(|listed| listed.name.as_str());
    match (listing.quiet, output.format(), &listing.format) {
        (true, Format::Text, _) => output.text(&names().map(|name| format!("{name}\n")).collect::<String>())?,
        (true, Format::Json, _) => output.document(&names().collect::<Vec<_>>())?,
        (false, Format::Json, _) => output.document(&rows)?,
        (false, Format::Text, None) => output.text(&table())?,
        (false, Format::Text, Some(template)) => {
            output.text(&template.render(listed, cell).map_err(Failure::usage)?)?;
        }
    }
    Ok(Exit::Done)
}

/// What a template is told of a field.
fn cell(listed: &Listed<'_>, field: Field) -> Value {
    match field {
        Field::Id => json!(listed.id),
        Field::Name => json!(listed.name),
        Field::Driver => json!(listed.driver),
        Field::Scope => json!("local"),
        Field::Mountpoint => json!(listed.mountpoint),
        Field::Internal => json!(listed.internal.to_string()),
        Field::Label => json!(listed.labels),
        Field::Labels => {
            let labels = listed.labels.iter().map(|(key, value)| format!("{key}={value}"));
            labels.collect::<Vec<_>>().join(",").into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_shown() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let listed = Listed {
            id: "data".into(),
            name: "shop/data".into(),
            driver: "local",
            mountpoint: String::new(),
            internal: false,
            labels: &labels,
            is_used: true,
        };
        for (filter, fits) in [
            ("name=dat", true),
            ("name=x", false),
            ("label=a", true),
            ("label=a=c", false),
            ("driver=local", true),
            ("dangling=true", false),
            ("dangling=0", true),
        ] {
            let listing = Listing { quiet: false, filter: vec![filter.parse().unwrap()], format: None };
            assert_eq!(listing.shows(&listed), fits, "{filter}");
        }
        for wrong in ["name", "nmae=x", "dangling=x"] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }
}
