//! From a [`super::Template`] and a document to text.

use std::borrow::Cow;

use serde_json::{Number, Value};

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

impl Scope<'_> {
    fn run(&self, nodes: &[Node], text: &mut String) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(written) => text.push_str(written),
                Node::Show(expression) => text.push_str(&shown(&*self.value(expression)?)),
                Node::Branch(branch, of, body, otherwise) => self.branch(branch, of, [body, otherwise], text)?,
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
            Branch::If => self.run(body, text),
            Branch::With => Scope { dot: &value, ..self.clone() }.run(body, text),
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
            Expression::Call(function, arguments) => {
                let values = arguments.iter().map(|it| self.value(it)).collect::<Result<Vec<_>, _>>()?;
                let values: Vec<&Value> = values.iter().map(|value| &**value).collect();
                call(*function, &values).map(Cow::Owned)
            }
        }
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
fn is_true(value: &Value) -> bool {
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
fn shown(value: &Value) -> String {
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

fn call(function: Function, values: &[&Value]) -> Result<Value, String> {
    let count = |name: &str, what: &str| format!("`{name}` takes {what}");
    Ok(match (function, values) {
        (Function::Json, [value]) => serde_json::to_string(value).unwrap_or_default().into(),
        (Function::Json, _) => return Err(count("json", "one value")),
        (Function::Lower, [Value::String(text)]) => text.to_lowercase().into(),
        (Function::Upper, [Value::String(text)]) => text.to_uppercase().into(),
        (Function::Lower | Function::Upper, _) => return Err(count("lower` and `upper", "one text")),
        (Function::Join, [Value::Array(items), Value::String(between)]) => {
            items.iter().map(shown).collect::<Vec<_>>().join(between).into()
        }
        (Function::Join, _) => return Err(count("join", "a list and a text")),
        (Function::Split, [Value::String(text), Value::String(between)]) => {
            text.split(between.as_str()).map(Value::from).collect::<Vec<_>>().into()
        }
        (Function::Split, _) => return Err(count("split", "two texts")),
        (Function::Len, [Value::String(text)]) => text.len().into(),
        (Function::Len, [Value::Array(items)]) => items.len().into(),
        (Function::Len, [Value::Object(map)]) => map.len().into(),
        (Function::Len, _) => return Err(count("len", "a text or a list")),
        (Function::Index, [value, keys @ ..]) => {
            keys.iter().try_fold((*value).clone(), |value, key| index(&value, key))?
        }
        (Function::Index, []) => return Err(count("index", "a list and a number, or a map and a key")),
        (Function::Print, values) => values.iter().map(|value| shown(value)).collect::<String>().into(),
        (Function::Println, values) => {
            (values.iter().map(|value| shown(value)).collect::<Vec<_>>().join(" ") + "\n").into()
        }
        (Function::Printf, [Value::String(format), values @ ..]) => printf(format, values)?.into(),
        (Function::Printf, _) => return Err(count("printf", "a text with %s, %d, %v, %q, and a value for each")),
        (Function::Eq, [first, others @ ..]) if !others.is_empty() => others.contains(first).into(),
        (Function::Ne, [a, b]) => (a != b).into(),
        (Function::Eq | Function::Ne, _) => return Err(count("eq` and `ne", "two values")),
        (Function::And, [first, rest @ ..]) => {
            rest.iter().fold(*first, |so_far, next| if is_true(so_far) { next } else { so_far }).clone()
        }
        (Function::Or, [first, rest @ ..]) => {
            rest.iter().fold(*first, |so_far, next| if is_true(so_far) { so_far } else { next }).clone()
        }
        (Function::Not, [value]) => (!is_true(value)).into(),
        (Function::And | Function::Or | Function::Not, _) => return Err(count("and`, `or` and `not", "values")),
    })
}

/// What a map has not is empty, as with Go's maps of texts.
fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Array(items), Value::Number(number)) => {
            let found = number.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?));
            found.cloned().ok_or_else(|| format!("there is no item {number} in a list of {}", items.len()))
        }
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_else(|| "".into())),
        _ => Err(format!("`{key}` finds nothing in `{}`", shown(value))),
    }
}

fn printf(format: &str, values: &[&Value]) -> Result<String, String> {
    let mut text = String::new();
    let mut values = values.iter();
    let mut characters = format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let verb = characters.next();
        if verb == Some('%') {
            text.push('%');
            continue;
        }
        let value = *values.next().ok_or_else(|| format!("`{format}` has more verbs than there are values"))?;
        match (verb, value) {
            (Some('s' | 'v'), value) => text.push_str(&shown(value)),
            (Some('q'), value) => text.push_str(&format!("{:?}", shown(value))),
            (Some('d'), Value::Number(number)) => text.push_str(&Number::to_string(number)),
            _ => return Err(format!("`{format}` knows %s, %v, %q, and %d for numbers")),
        }
    }
    match values.next() {
        None => Ok(text),
        Some(_) => Err(format!("there are more values than `{format}` has verbs")),
    }
}
