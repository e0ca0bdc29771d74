//! From a [`super::Template`] and a document to text.

use std::borrow::Cow;

use serde_json::Value;

use super::functions::call;
use super::{Branch, Expression, Function, Node};

pub fn render(nodes: &[Node], document: &Value, tables: &[&Value]) -> Result<String, String> {
    let mut text = String::new();
    let scope = Scope { document, dot: document, variables: Vec::new(), tables };
    scope.run(nodes, &mut text)?;
    Ok(text)
}

/// What names mean at one place of a template.
#[derive(Clone)]
struct Scope<'a> {
    document: &'a Value,
    dot: &'a Value,
    variables: Vec<(&'a str, Value)>,
    /// Those values of the document whose keys are anybody's to choose.
    tables: &'a [&'a Value],
}

impl<'a> Scope<'a> {
    fn run(&self, nodes: &[Node], text: &mut String) -> Result<(), String> {
        let mut scope = self.clone();
        for node in nodes {
            match node {
                Node::Text(written) => text.push_str(written),
                Node::Show(expression) => text.push_str(&shown(&*scope.value(expression)?)),
                Node::Set(name, expression) => {
                    let value = scope.value(expression)?.into_owned();
                    scope.variables.push((name.as_str(), value));
                }
                Node::Branch(branch, of, body, otherwise) => scope.branch(branch, of, [body, otherwise], text)?,
            }
        }
        Ok(())
    }

    fn branch(
        &self,
        branch: &Branch,
        of: &Expression,
        [body, otherwise]: [&[Node]; 2],
        text: &mut String,
    ) -> Result<(), String> {
        let value = self.value(of)?;
        if !is_true(&value) {
            return self.run(otherwise, text);
        }
        match branch {
            Branch::If(name) => self.with(name, &value).run(body, text),
            Branch::With(name) => Scope { dot: &value, ..self.with(name, &value) }.run(body, text),
            Branch::Range(key, item) => {
                let entries: Vec<(Value, &Value)> = match &*value {
                    Value::Array(items) => items.iter().enumerate().map(|(at, item)| (at.into(), item)).collect(),
                    Value::Object(map) => map.iter().map(|(key, item)| (key.as_str().into(), item)).collect(),
                    _ => return Err(format!("{} is no list to range over", of.written())),
                };
                for (number, entry) in entries {
                    let mut scope = Scope { dot: entry, ..self.clone() };
                    scope.variables.extend(key.as_deref().map(|name| (name, number)));
                    scope.variables.extend(item.as_deref().map(|name| (name, entry.clone())));
                    scope.run(body, text)?;
                }
                Ok(())
            }
        }
    }

    /// With one variable more, where it has a name.
    fn with<'b>(&self, name: &'b Option<String>, value: &Value) -> Scope<'b>
    where
        'a: 'b,
    {
        let mut scope: Scope<'b> = self.clone();
        scope.variables.extend(name.as_deref().map(|name| (name, value.clone())));
        scope
    }

    fn value(&self, expression: &Expression) -> Result<Cow<'_, Value>, String> {
        match expression {
            Expression::Dot => Ok(Cow::Borrowed(self.dot)),
            Expression::Document => Ok(Cow::Borrowed(self.document)),
            Expression::Literal(value) => Ok(Cow::Owned(value.clone())),
            Expression::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| Cow::Borrowed(value)).ok_or_else(|| format!("there is no variable `${name}`"))
            }
            Expression::Field(of, name) => match self.value(of)? {
                Cow::Borrowed(value) => match field(value, of, name) {
                    Err(_) if self.tables.iter().any(|table| std::ptr::eq(*table, value)) => {
                        Ok(Cow::Owned(Value::from("")))
                    }
                    found => found.map(Cow::Borrowed),
                },
                Cow::Owned(value) => field(&value, of, name).cloned().map(Cow::Owned),
            },
            Expression::Call(Function::And, arguments) => self.first(arguments, false),
            Expression::Call(Function::Or, arguments) => self.first(arguments, true),
            Expression::Call(function, arguments) => {
                let values = arguments.iter().map(|it| self.value(it)).collect::<Result<Vec<_>, _>>()?;
                let values: Vec<&Value> = values.iter().map(|value| &**value).collect();
                call(*function, &values).map(Cow::Owned)
            }
        }
    }
}

impl Scope<'_> {
    /// The first that is as wanted, or the last. What is behind it is not looked at, and may have no value.
    fn first(&self, arguments: &[Expression], wanted: bool) -> Result<Cow<'_, Value>, String> {
        let (last, others) = arguments.split_last().ok_or("`and` and `or` take values")?;
        for argument in others {
            let value = self.value(argument)?;
            if is_true(&value) == wanted {
                return Ok(value);
            }
        }
        self.value(last)
    }
}

fn field<'v>(value: &'v Value, of: &Expression, name: &str) -> Result<&'v Value, String> {
    let Value::Object(map) = value else {
        let what = if value.is_null() { "has no value here" } else { "has no fields" };
        return Err(format!("{} {what}: there is no `.{name}` of it", of.written()));
    };
    map.get(name).ok_or_else(|| {
        let names: Vec<&str> = map.keys().map(String::as_str).collect();
        format!(
            "there is no `{}`: {} has {}",
            Expression::Field(Box::new(of.clone()), name.to_owned()).path(),
            of.written(),
            names.join(", ")
        )
    })
}

impl Expression {
    /// As it may have been written.
    pub fn written(&self) -> String {
        format!("`{}`", self.path())
    }

    fn path(&self) -> String {
        match self {
            Expression::Dot => ".".to_owned(),
            Expression::Document => "$".to_owned(),
            Expression::Variable(name) => format!("${name}"),
            Expression::Literal(value) => value.to_string(),
            Expression::Field(of, name) if **of == Expression::Dot => format!(".{name}"),
            Expression::Field(of, name) => format!("{}.{name}", of.path()),
            Expression::Call(..) => "(..)".to_owned(),
        }
    }
}

/// Go's: what is empty, zero or not there is false.
pub fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go's `%v` prints it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key}:{}", shown(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
    }
}
