//! `ps --format`: Docker's templates, as far as they name fields: `{{.Names}}: {{.Status}}`, `table {{.ID}}\t{{.Names}}`.
//!
//! Of Go's template language there are no functions, conditions or loops here, and what is not known is refused: a
//! script that reads the lines must not get others than it asked for. Programs that want more read `--json`.

use std::str::FromStr;

use super::table::Table;

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
    CreatedAt,
    RunningFor,
    Command,
    Mounts,
    Networks,
    Size,
}

/// Each field, its word in a template, and its heading in a table.
const FIELDS: [(Field, &str, &str); 13] = [
    (Field::Id, "ID", "CONTAINER ID"),
    (Field::Names, "Names", "NAMES"),
    (Field::Image, "Image", "IMAGE"),
    (Field::State, "State", "STATE"),
    (Field::Status, "Status", "STATUS"),
    (Field::Ports, "Ports", "PORTS"),
    (Field::Labels, "Labels", "LABELS"),
    (Field::CreatedAt, "CreatedAt", "CREATED AT"),
    (Field::RunningFor, "RunningFor", "CREATED"),
    (Field::Command, "Command", "COMMAND"),
    (Field::Mounts, "Mounts", "MOUNTS"),
    (Field::Networks, "Networks", "NETWORKS"),
    (Field::Size, "Size", "SIZE"),
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// A line for each row, exactly as written.
    Lines,
    /// Under a heading; tabs part the columns.
    Table,
}

/// What every row is written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    layout: Layout,
    parts: Vec<Part>,
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        let (layout, mut rest) = match text.strip_prefix("table ") {
            Some(rest) => (Layout::Table, rest.trim_start()),
            None => (Layout::Lines, text),
        };
        let mut parts = Vec::new();
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after.split_once("}}").ok_or_else(|| format!("`{{{{{after}` has no `}}}}`"))?;
            parts.push(Part::Text(unescaped(before)));
            parts.push(Part::Field(field(inside.trim())?));
            rest = after;
        }
        if parts.is_empty() {
            return Err(format!(
                "it names no field: write such as `{{{{.Names}}}}`; for JSON there is --json ({})",
                words()
            ));
        }
        parts.push(Part::Text(unescaped(rest)));
        Ok(Template { layout, parts })
    }
}

fn field(inside: &str) -> Result<Field, String> {
    let found = FIELDS.into_iter().find(|(_, word, _)| inside.strip_prefix('.') == Some(word));
    found.map(|(field, ..)| field).ok_or_else(|| format!("`{{{{{inside}}}}}` is none of {}", words()))
}

fn words() -> String {
    FIELDS.map(|(_, word, _)| format!("{{{{.{word}}}}}")).join(", ")
}

/// A shell hands `\t` and `\n` on as two characters.
fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

impl Template {
    /// Whether a field is written: some cost more to find out than others.
    pub fn has(&self, field: Field) -> bool {
        self.parts.contains(&Part::Field(field))
    }

    /// All rows; `cell` says what a field of a row is.
    pub fn render<R>(&self, rows: &[R], cell: impl Fn(&R, Field) -> String) -> String {
        let lines = rows.iter().map(|row| self.line(|field| cell(row, field)));
        match self.layout {
            Layout::Lines => lines.map(|line| line + "\n").collect(),
            Layout::Table => {
                let heading = self.line(|field| heading(field).to_owned());
                let mut table = Table::new(&heading.split('\t').collect::<Vec<_>>());
                lines.for_each(|line| table.row(line.split('\t').map(str::to_owned).collect()));
                table.render()
            }
        }
    }

    fn line(&self, cell: impl Fn(Field) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => cell(*field),
        };
        self.parts.iter().map(part).collect()
    }
}

fn heading(field: Field) -> &'static str {
    FIELDS.into_iter().find(|(known, ..)| *known == field).map_or("", |(.., heading)| heading)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(template: &str) -> String {
        let cell = |row: &(&str, &str), field| match field {
            Field::Names => row.0.to_owned(),
            _ => row.1.to_owned(),
        };
        template.parse::<Template>().unwrap().render(&[("web", "Up 3 minutes"), ("database", "Created")], cell)
    }

    #[test]
    fn lines_are_as_written_and_tables_line_up() {
        assert_eq!(shown("{{.Names}}"), "web\ndatabase\n");
        assert_eq!(shown(r"<{{ .Names }}\t{{.Status}}>"), "<web\tUp 3 minutes>\n<database\tCreated>\n");
        assert_eq!(
            shown(r"table {{.Names}}\t{{.Status}}"),
            "NAMES      STATUS\nweb        Up 3 minutes\ndatabase   Created\n"
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in ["json", "table", "{{.Names", "{{.Nmaes}}", "{{json .}}", "{{if .Names}}x{{end}}", "{{Names}}"] {
            let refused = text.parse::<Template>().unwrap_err();
            assert!(refused.contains("}}"), "{text}: {refused}");
        }
    }
}
