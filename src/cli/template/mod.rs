//! `--format`: Go's templates as Docker's users write them, over JSON: `{{.State.Pid}}`, `{{json .Mounts}}`,
//! `{{range $name, $it := .NetworkSettings.Networks}}{{$name}} {{$it.IPAddress}}{{end}}`.
//!
//! ```text
//! text ── parse ──> Template ── evaluate (a document) ──> text
//! columns: what `ps --format` adds, rows under a heading
//! ```
//!
//! # Decisions
//!
//! * A part of text/template, chosen by what people write after `docker inspect -f`: fields, `range`, `if`, `with`,
//!   variables, pipelines, and the functions of `Function`. What is not known, function or field, is an
//!   error: a script that reads the lines must not get others than it asked for.
//! * `<no value>` is printed for what is there and empty, as Go does.

pub mod columns;
mod evaluate;
mod functions;
mod parse;
mod printf;

use std::str::FromStr;

use serde_json::Value;

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Show(Expression),
    /// `{{$name := ..}}`: from here to the end of the block.
    Set(String, Expression),
    /// `if`, `with` and `range`; the second list is what stands after `else`.
    Branch(Branch, Expression, Vec<Node>, Vec<Node>),
}

#[derive(Debug, Clone, PartialEq)]
enum Branch {
    /// With the variable that the condition is kept in.
    If(Option<String>),
    With(Option<String>),
    /// With the variables for key and value.
    Range(Option<String>, Option<String>),
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Dot,
    /// The document; `$` alone.
    Document,
    Variable(String),
    Literal(Value),
    Field(Box<Expression>, String),
    Call(Function, Vec<Expression>),
}

/// What can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Json,
    Join,
    Lower,
    Upper,
    Title,
    Pad,
    Truncate,
    Split,
    Len,
    Index,
    Slice,
    /// `.Label "key"`: a label of a row, or in its heading the key.
    Label,
    Print,
    Println,
    Printf,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    Not,
}

const FUNCTIONS: [(&str, Function); 23] = [
    ("json", Function::Json),
    ("join", Function::Join),
    ("lower", Function::Lower),
    ("upper", Function::Upper),
    ("title", Function::Title),
    ("pad", Function::Pad),
    ("truncate", Function::Truncate),
    ("split", Function::Split),
    ("len", Function::Len),
    ("index", Function::Index),
    ("slice", Function::Slice),
    ("print", Function::Print),
    ("println", Function::Println),
    ("printf", Function::Printf),
    ("eq", Function::Eq),
    ("ne", Function::Ne),
    ("lt", Function::Lt),
    ("le", Function::Le),
    ("gt", Function::Gt),
    ("ge", Function::Ge),
    ("and", Function::And),
    ("or", Function::Or),
    ("not", Function::Not),
];

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        parse::parse(text)
    }
}

/// What [`Template::fields`] has for the document itself, as in `{{json .}}`.
pub const WHOLE: &str = ".";

impl Template {
    /// The text for this document. An error names the field or value that does not fit.
    pub fn render(&self, document: &Value) -> Result<String, String> {
        evaluate::render(&self.0, document, &[])
    }

    /// The same of a document in which `tables` are: what such a one does not have is nothing, as of Go's maps, and no error.
    pub fn render_with(&self, document: &Value, tables: &[&Value]) -> Result<String, String> {
        evaluate::render(&self.0, document, tables)
    }

    /// The fields of the document that are named, but for those of variables and of what `range` and `with` lead to. The
    /// whole of it is [`WHOLE`].
    pub fn fields(&self) -> Vec<&str> {
        let mut fields = Vec::new();
        nodes(&self.0, Inside::Document, &mut fields);
        fields
    }
}

/// What the dot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Document,
    Other,
}

fn nodes<'t>(list: &'t [Node], inside: Inside, fields: &mut Vec<&'t str>) {
    for node in list {
        match node {
            Node::Text(_) => {}
            Node::Show(expression) | Node::Set(_, expression) => expression.fields(inside, fields),
            Node::Branch(branch, of, body, otherwise) => {
                of.fields(inside, fields);
                nodes(body, if matches!(branch, Branch::If(_)) { inside } else { Inside::Other }, fields);
                nodes(otherwise, inside, fields);
            }
        }
    }
}

impl Expression {
    fn fields<'t>(&'t self, inside: Inside, fields: &mut Vec<&'t str>) {
        match self {
            Expression::Dot if inside == Inside::Other => {}
            Expression::Dot | Expression::Document => fields.push(WHOLE),
            Expression::Variable(_) | Expression::Literal(_) => {}
            Expression::Field(of, name) => match **of {
                Expression::Document => fields.push(name),
                Expression::Dot if inside == Inside::Document => fields.push(name),
                _ => of.fields(inside, fields),
            },
            Expression::Call(_, arguments) => arguments.iter().for_each(|it| it.fields(inside, fields)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(template: &str) -> Result<String, String> {
        let document = json!({
            "Name": "/web",
            "State": { "Pid": 7, "Running": true, "Health": null, "Error": "" },
            "Env": ["A=1", "B=2"],
            "Ports": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }], "53/udp": null },
            "Labels": { "a.b": "c" },
        });
        template.parse::<Template>()?.render(&document)
    }

    #[test]
    fn what_people_write_after_docker_inspect() {
        let table = [
            ("{{.State.Pid}}", "7"),
            ("{{ .Name }}\\t{{.State.Running}}", "/web\ttrue"),
            ("{{json .Env}}", r#"["A=1","B=2"]"#),
            ("{{.Env}}", "[A=1 B=2]"),
            ("{{.Labels}}", "map[a.b:c]"),
            ("{{.State.Health}}", "<no value>"),
            ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
            ("{{range .Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
            ("{{range $i, $e := .Env}}{{$i}}={{$e}};{{end}}", "0=A=1;1=B=2;"),
            ("{{range $p, $c := .Ports}}{{if $c}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}{{end}}", "80/tcp -> 8080"),
            (r#"{{(index (index .Ports "80/tcp") 0).HostIp}}"#, "127.0.0.1"),
            (r#"{{index .Labels "a.b"}}|{{index .Labels "x"}}"#, "c|"),
            (r#"{{join .Env ","}} {{len .Env}}"#, "A=1,B=2 2"),
            (r#"{{.Name | upper | printf "%s %q %v" "x" "y"}}"#, r#"x "y" /WEB"#),
            (r#"{{if eq .State.Pid 7}}seven{{end}}{{if ne .Name "x"}}!{{end}}"#, "seven!"),
            (r#"{{if and .State.Running (not .State.Error)}}well{{end}}"#, "well"),
            ("a {{- .Name -}} b", "a/webb"),
            ("{{with .State}}{{.Pid}} of {{$.Name}}{{end}}", "7 of /web"),
            (r#"{{index (split .Name "/") 1}}{{/* the end */}}"#, "web"),
            ("{{range .Ports}}{{else}}none{{end}}", ""),
            (r#"{{printf "%s %v" .Name .State.Pid}}{{eq .Name .State.Error}}"#, "/web 7false"),
            (r#"{{or .State.Error .Name}}{{join .Env .Name}}"#, "/webA=1/webB=2"),
            (
                r#"{{$n := .Name}}{{if $p := .State.Pid}}{{$p}}{{$n}}{{end}}{{with $x := .State}}{{$x.Pid}}{{end}}"#,
                "7/web7",
            ),
            // What decides already keeps the rest from being looked at.
            (r#"{{if and .State.Health (eq .State.Health.Status "healthy")}}well{{else}}ill{{end}}"#, "ill"),
            (r#"{{or .State.Running .State.Health.Status}}"#, "true"),
            (r#"{{lt 1 2}} {{gt 1 2}} {{le "a" "b"}} {{ge .State.Pid 7}}"#, "true false true true"),
            (
                r#"{{slice .Name 1 3}}{{slice .Name 2}} {{title "a b"}} {{truncate .Name 3}} {{pad "x" 1 2}}|"#,
                "weeb A B /we  x  |",
            ),
            (r#"{{print 1 2 "x" "y"}} {{index (split "a" "") 0}}{{len (split "ab" "")}}"#, "1 2xy a2"),
            (
                r#"{{printf "%-5s|%5v|%05d|%x|%t|%.1f|%q|%%" "ab" "cd" 42 255 true 1.25 "e"}}"#,
                "ab   |   cd|00042|ff|true|1.2|\"e\"|%",
            ),
            (r#"{{(index .Ports "80/tcp" 0).HostPort}}{{range $p, $c := .Ports}}{{$p}}{{end}}"#, "808053/udp80/tcp"),
        ];
        for (template, expected) in table {
            assert_eq!(shown(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_there_is() {
        let table = [
            ("{{.Nmae}}", "Name"),
            ("{{.State.Health.Status}}", "`.State.Health`"),
            ("{{.Env.A}}", "`.Env`"),
            ("{{tojson .}}", "json"),
            ("{{.Name", "}}"),
            ("{{end}}", "end"),
            ("{{if .Name}}x", "end"),
            ("{{$x}}", "$x"),
            ("{{index .Env 5}}", "5"),
            ("{{json}}", "json"),
            (r#"{{"x}}"#, "\""),
            ("{{template \"x\"}}", "template"),
            ("{{.Name .Env}}", "`.Env` follows `.Name`"),
            (r#"{{lt 1 "a"}}"#, "`lt`"),
            ("{{slice .Name 2 9}}", "9"),
            ("{{$x = 1}}", "="),
            (r#"{{printf "%5"}}"#, "%5"),
            ("{{if .Name}}{{$x := 1}}{{end}}{{$x}}", "$x"),
        ];
        for (template, told) in table {
            let refused = shown(template).unwrap_err();
            assert!(refused.contains(told), "{template}: {refused}");
        }
    }

    #[test]
    fn what_a_table_does_not_have_is_nothing() {
        let document = json!({ "Actor": { "Attributes": { "name": "web" } } });
        let tables = [&document["Actor"]["Attributes"]];
        let shown = |text: &str| text.parse::<Template>().unwrap().render_with(&document, &tables);
        let text = "{{.Actor.Attributes.name}}|{{.Actor.Attributes.exitCode}}|{{with .Actor.Attributes}}{{.x}}{{end}}|";
        assert_eq!(shown(text).as_deref(), Ok("web|||"));
        assert!(shown("{{.Actor.Nmae}}").is_err());
    }

    #[test]
    fn fields_of_the_document_are_told() {
        let template: Template =
            "{{.A.B}}{{range .C}}{{.D}}{{.}}{{$.E}}{{end}}{{json .F}}{{if .G}}{{.H}}{{end}}".parse().unwrap();
        assert_eq!(template.fields(), ["A", "C", "E", "F", "G", "H"]);
        assert_eq!("{{json .}}".parse::<Template>().unwrap().fields(), [WHOLE]);
    }
}
