//! Variables in the arguments of instructions, and the quotes around them.
//!
//! As the Dockerfile reference has it ("Environment replacement"): `$name`, `${name}`, with `:-`, `-`, `:+`, `+`, `:?`,
//! `?`, `#`, `##`, `%`, `%%`, `/` and `//`; quotes go, single ones keep everything, the escape character takes the
//! meaning of the next. An unknown name is empty.

use super::pattern;

/// The value of a name.
pub type Lookup<'v> = dyn Fn(&str) -> Option<String> + 'v;

/// The text with its variables replaced and its quotes removed.
pub fn expand(text: &str, escape: char, lookup: &Lookup<'_>) -> Result<String, String> {
    let mut reader = Reader { rest: text.chars().peekable(), escape, lookup };
    reader.word(Until::End)
}

/// Inside a here-document quotes mean nothing.
pub fn expand_document(text: &str, lookup: &Lookup<'_>) -> Result<String, String> {
    let mut reader = Reader { rest: text.chars().peekable(), escape: '\\', lookup };
    let mut out = String::new();
    while let Some(c) = reader.rest.next() {
        match c {
            '\\' if matches!(reader.rest.peek(), Some('$' | '\\')) => out.extend(reader.rest.next()),
            '$' => out.push_str(&reader.variable()?),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    End,
    /// The `}` of a variable, which is taken.
    Brace,
    /// The `/` between pattern and replacement, which is taken, or the `}`, which is left.
    Slash,
}

struct Reader<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    escape: char,
    lookup: &'t Lookup<'t>,
}

impl Reader<'_> {
    fn word(&mut self, until: Until) -> Result<String, String> {
        let mut out = String::new();
        loop {
            match (self.rest.peek().copied(), until) {
                (None, Until::End) => return Ok(out),
                (None, _) => return Err("a `${` does not end".to_owned()),
                (Some('}'), Until::Slash) => return Ok(out),
                (Some('}'), Until::Brace) | (Some('/'), Until::Slash) => {
                    self.rest.next();
                    return Ok(out);
                }
                (Some('\''), _) => {
                    self.rest.next();
                    self.single_quoted(&mut out)?;
                }
                (Some('"'), _) => {
                    self.rest.next();
                    self.double_quoted(&mut out)?;
                }
                (Some('$'), _) => {
                    self.rest.next();
                    out.push_str(&self.variable()?);
                }
                (Some(c), _) if c == self.escape => {
                    self.rest.next();
                    out.push(self.rest.next().unwrap_or(c));
                }
                (Some(c), _) => {
                    self.rest.next();
                    out.push(c);
                }
            }
        }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next() {
                None => return Err("a single quote is not closed".to_owned()),
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
            }
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next() {
                None => return Err("a double quote is not closed".to_owned()),
                Some('"') => return Ok(()),
                Some('$') => out.push_str(&self.variable()?),
                Some(c) if c == self.escape => match self.rest.peek().copied() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => out.extend(self.rest.next()),
                    _ => out.push(c),
                },
                Some(c) => out.push(c),
            }
        }
    }

    /// What stands behind a `$`.
    fn variable(&mut self) -> Result<String, String> {
        if self.rest.peek() != Some(&'{') {
            let name = self.name();
            return Ok(match name.is_empty() {
                true => "$".to_owned(),
                false => (self.lookup)(&name).unwrap_or_default(),
            });
        }
        self.rest.next();
        let name = self.name();
        if name.is_empty() {
            return Err("a `${` is not followed by a name".to_owned());
        }
        let value = (self.lookup)(&name);
        let operator = self.rest.next().ok_or("a `${` does not end")?;
        let doubled = |reader: &mut Self, c: char| reader.rest.next_if_eq(&c).is_some();
        match operator {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let operator = self.rest.next().ok_or("a `${` does not end")?;
                self.conditional(operator, &name, value.filter(|value| !value.is_empty()))
            }
            '-' | '+' | '?' => self.conditional(operator, &name, value),
            '#' | '%' => {
                let longest = doubled(self, operator);
                let cut = pattern::Glob::new(&self.word(Until::Brace)?);
                Ok(trimmed(&value.unwrap_or_default(), operator, longest, &cut))
            }
            '/' => {
                let all = doubled(self, '/');
                let wanted = pattern::Glob::new(&self.word(Until::Slash)?);
                let by = self.word(Until::Brace)?;
                Ok(replaced(&value.unwrap_or_default(), all, &wanted, &by))
            }
            other => Err(format!("`{other}` is not supported in `${{{name}{other}..}}`")),
        }
    }

    fn conditional(&mut self, operator: char, name: &str, value: Option<String>) -> Result<String, String> {
        let word = self.word(Until::Brace)?;
        match (operator, value) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            ('?', None) if word.is_empty() => Err(format!("`{name}` is not set")),
            ('?', None) => Err(format!("`{name}` is not set: {word}")),
            (other, _) => Err(format!("`:{other}` is not supported in `${{{name}:{other}..}}`")),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            // `$1` is the first parameter, as in a shell, and never more than a digit.
            if name.len() == 1 && c.is_ascii_digit() {
                break;
            }
        }
        name
    }
}

/// Places at which the text can be cut.
fn cuts(text: &str) -> Vec<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).collect()
}

fn trimmed(value: &str, operator: char, longest: bool, cut: &pattern::Glob) -> String {
    let mut cuts = cuts(value);
    // From the shortest to the longest match.
    if (operator == '%') != longest {
        cuts.reverse();
    }
    let matching = cuts.into_iter().find(|at| match operator {
        '#' => cut.matches(&value[..*at]),
        _ => cut.matches(&value[*at..]),
    });
    match (matching, operator) {
        (None, _) => value.to_owned(),
        (Some(at), '#') => value[at..].to_owned(),
        (Some(at), _) => value[..at].to_owned(),
    }
}

fn replaced(value: &str, all: bool, wanted: &pattern::Glob, by: &str) -> String {
    let mut out = String::new();
    let mut begin = 0;
    while begin < value.len() {
        let rest = &value[begin..];
        let end = cuts(rest).into_iter().rev().find(|end| *end > 0 && wanted.matches(&rest[..*end]));
        match end {
            Some(end) => {
                out.push_str(by);
                begin += end;
                if !all {
                    break;
                }
            }
            None => {
                let step = rest.chars().next().map_or(1, char::len_utf8);
                out.push_str(&rest[..step]);
                begin += step;
            }
        }
    }
    out + &value[begin..]
}
