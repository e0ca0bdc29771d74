//! `ps --format` and its like: a line for each row, `{{.Names}}: {{.Status}}`, or columns, `table {{.ID}}\t{{.Names}}`.

use std::marker::PhantomData;
use std::str::FromStr;

use serde_json::Value;

use super::{Template, WHOLE};
use crate::cli::table::Table;

/// The field that is asked with a key, `{{.Label "key"}}`. It is a table of labels in a row, and nothing in a heading.
pub const LABEL: &str = "Label";

/// What rows of one kind have to show.
pub trait Columns: Copy + Eq + 'static {
    /// Each field, its word in a template, which is Docker's, and its heading in a table.
    const ALL: &'static [(Self, &'static str, &'static str)];
}

/// A field of a container, under Docker's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Id,
    Names,
    Image,
    State,
    Status,
    Ports,
    Labels,
    Label,
    CreatedAt,
    RunningFor,
    Command,
    Mounts,
    LocalVolumes,
    Networks,
    Size,
}

impl Columns for Field {
    const ALL: &'static [(Field, &'static str, &'static str)] = &[
        (Field::Id, "ID", "CONTAINER ID"),
        (Field::Names, "Names", "NAMES"),
        (Field::Image, "Image", "IMAGE"),
        (Field::State, "State", "STATE"),
        (Field::Status, "Status", "STATUS"),
        (Field::Ports, "Ports", "PORTS"),
        (Field::Labels, "Labels", "LABELS"),
        (Field::Label, LABEL, ""),
        (Field::CreatedAt, "CreatedAt", "CREATED AT"),
        (Field::RunningFor, "RunningFor", "CREATED"),
        (Field::Command, "Command", "COMMAND"),
        (Field::Mounts, "Mounts", "MOUNTS"),
        (Field::LocalVolumes, "LocalVolumes", "LOCAL VOLUMES"),
        (Field::Networks, "Networks", "NETWORKS"),
        (Field::Size, "Size", "SIZE"),
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// A line for each row, exactly as written.
    Lines,
    /// Under a heading; tabs part the columns.
    Table,
}

/// What every row is written as.
#[derive(Debug, Clone, PartialEq)]
pub struct RowTemplate<F = Field> {
    layout: Layout,
    template: Template,
    fields: PhantomData<F>,
}

impl<F: Columns> FromStr for RowTemplate<F> {
    type Err = String;

    fn from_str(text: &str) -> Result<RowTemplate<F>, String> {
        let (layout, text) = match (text, text.strip_prefix("table ")) {
            ("json", _) => (Layout::Lines, "{{json .}}"),
            (_, Some(rest)) => (Layout::Table, rest.trim_start()),
            (_, None) => (Layout::Lines, text),
        };
        let template: Template = text.parse()?;
        let fields = template.fields();
        if let Some(field) = fields
            .iter()
            .filter(|field| **field != WHOLE)
            .find(|field| !F::ALL.iter().any(|(_, word, _)| word == *field))
        {
            return Err(format!("`{{{{.{field}}}}}` is none of {}", words::<F>()));
        }
        if fields.is_empty() && !text.contains("{{") {
            let first = F::ALL.first().map_or("", |(_, word, _)| word);
            return Err(format!("it names no field: write such as `{{{{.{first}}}}}` ({}), or `json`", words::<F>()));
        }
        Ok(RowTemplate { layout, template, fields: PhantomData })
    }
}

fn words<F: Columns>() -> String {
    let key = |word: &str| if word == LABEL { " \"key\"" } else { "" };
    F::ALL.iter().map(|(_, word, _)| format!("{{{{.{word}{}}}}}", key(word))).collect::<Vec<_>>().join(", ")
}

impl<F: Columns> RowTemplate<F> {
    /// Whether a field is written: some cost more to find out than others.
    pub fn has(&self, field: F) -> bool {
        let named = self.template.fields();
        F::ALL.iter().any(|(known, word, _)| *known == field && named.contains(word))
    }

    /// Whether all fields are written at once, as `{{json .}}` does.
    pub fn has_all(&self) -> bool {
        self.template.fields().contains(&WHOLE)
    }

    /// All rows; `cell` says what a field of a row is.
    pub fn render<R, C: Into<Value>>(&self, rows: &[R], cell: impl Fn(&R, F) -> C) -> Result<String, String> {
        let line = |row: &R| self.line(|field| cell(row, field).into());
        let lines = rows.iter().map(line).collect::<Result<Vec<_>, String>>()?;
        Ok(match self.layout {
            Layout::Lines => lines.into_iter().map(|line| line + "\n").collect(),
            Layout::Table => {
                let heading =
                    |field| Some(heading(field)).filter(|word| !word.is_empty()).map_or(Value::Null, Value::from);
                let heading = self.line(heading)?;
                let mut table = Table::new(&heading.split('\t').collect::<Vec<_>>());
                lines.iter().for_each(|line| table.row(line.split('\t').map(str::to_owned).collect()));
                table.render()
            }
        })
    }

    fn line(&self, cell: impl Fn(F) -> Value) -> Result<String, String> {
        let named = self.template.fields();
        // `{{json .}}` shows what is no question of its own.
        let shown = F::ALL.iter().filter(|(_, word, _)| *word != LABEL || named.contains(word));
        let row = shown.map(|(field, word, _)| ((*word).to_owned(), cell(*field)));
        self.template.render(&Value::Object(row.collect()))
    }
}

/// What stands above it.
pub fn heading<F: Columns>(field: F) -> &'static str {
    F::ALL.iter().find(|(known, ..)| *known == field).map_or("", |(.., heading)| heading)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(template: &str) -> String {
        let cell = |row: &(&str, &str), field| match field {
            Field::Names => Value::from(row.0),
            Field::Label => serde_json::json!({ "a.b": row.0 }),
            _ => Value::from(row.1),
        };
        template
            .parse::<RowTemplate>()
            .unwrap()
            .render(&[("web", "Up 3 minutes"), ("database", "Created")], cell)
            .unwrap()
    }

    #[test]
    fn lines_are_as_written_and_tables_line_up() {
        assert_eq!(shown("{{.Names}}"), "web\ndatabase\n");
        assert_eq!(shown(r"<{{ .Names }}\t{{.Status}}>"), "<web\tUp 3 minutes>\n<database\tCreated>\n");
        assert_eq!(shown(r#"{{.Label "a.b"}}|{{.Label "x"}}"#), "web|\ndatabase|\n");
        assert_eq!(shown(r#"table {{.Label "a.b"}}"#), "a.b\nweb\ndatabase\n");
        assert_eq!(shown("json").matches("\"Label\":").count(), 0);
        assert_eq!(
            shown(r"table {{.Names}}\t{{.Status}}"),
            "NAMES      STATUS\nweb        Up 3 minutes\ndatabase   Created\n"
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in ["raw", "table", "{{.Names", "{{.Nmaes}}", "{{json .Nmaes}}", "{{Names}}"] {
            let refused = text.parse::<RowTemplate>().unwrap_err();
            assert!(refused.contains("}}") || refused.contains("`.Name`"), "{text}: {refused}");
        }
    }
}
