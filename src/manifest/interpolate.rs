//! `${NAME}`, `${NAME:-default}` and `$$` in a text.
//!
//! As in Compose, `:-` covers names that are unset and names that are empty, and a default may itself hold
//! variables. A lone dollar is refused rather than guessed at.

/// A variable that is not there, or a dollar that means nothing; with the part of the text that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterpolationError {
    pub message: String,
    pub part: String,
    pub help: String,
}

/// How deep defaults may hold variables: the texts are not ours, the stack is.
const DEPTH_MAX: u32 = 8;

pub(super) fn interpolate(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, InterpolationError> {
    expand(text, variable, 0)
}

fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>, depth: u32) -> Result<String, InterpolationError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(body) = tail.strip_prefix('{') {
            let end = closing_brace(body).ok_or_else(|| malformed(&rest[at..], "`${` has no closing `}`"))?;
            out.push_str(&value_of(&body[..end], variable, depth)?);
            rest = &body[end + 1..];
        } else {
            return Err(malformed(&rest[at..at + 1], "a lone `$`"));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace that was opened before `body` closes; inner `${` count.
fn closing_brace(body: &str) -> Option<usize> {
    let mut open = 0u32;
    let mut previous = ' ';
    for (at, c) in body.char_indices() {
        match c {
            '{' if previous == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        previous = c;
    }
    None
}

fn value_of(body: &str, variable: &dyn Fn(&str) -> Option<String>, depth: u32) -> Result<String, InterpolationError> {
    let name_end = body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(body.len());
    let (name, rest) = body.split_at(name_end);
    let whole = format!("${{{body}}}");
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(malformed(&whole, "a variable has a name of letters, digits and `_`"));
    }
    let value = variable(name);
    match rest.strip_prefix(":-") {
        Some(_) if depth >= DEPTH_MAX => Err(malformed(&whole, "defaults are nested too deep")),
        Some(default) => match value.filter(|value| !value.is_empty()) {
            Some(value) => Ok(value),
            None => expand(default, variable, depth + 1),
        },
        None if rest.is_empty() => value.ok_or_else(|| InterpolationError {
            message: format!("the variable `{name}` is not set"),
            part: whole,
            help: format!("set it in the environment, or give a default: `${{{name}:-value}}`"),
        }),
        None => Err(InterpolationError {
            help: in_our_words(name, rest),
            ..malformed(&whole, "only `:-` may follow the name of a variable")
        }),
    }
}

/// What to write instead of the shell's other forms.
fn in_our_words(name: &str, rest: &str) -> String {
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    match rest.split_at_checked(1) {
        Some(("?", _)) => format!("write `${{{name}}}`: a variable that is not set is an error already"),
        Some(("-" | "=", default)) => format!("write `${{{name}:-{default}}}`"),
        _ => MEANING.to_owned(),
    }
}

const MEANING: &str = "write `${NAME}` or `${NAME:-default}` for a variable and `$$` for a dollar";

fn malformed(part: &str, message: &str) -> InterpolationError {
    InterpolationError { message: message.to_owned(), part: part.to_owned(), help: MEANING.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, String> {
        let variable = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        interpolate(text, &variable).map_err(|error| error.message)
    }

    #[test]
    fn variables_defaults_and_dollars_are_replaced() {
        assert_eq!(with("x${A}y").unwrap(), "xoney");
        assert_eq!(with("${B:-two}").unwrap(), "two");
        assert_eq!(with("${EMPTY:-two}${EMPTY}").unwrap(), "two");
        assert_eq!(with("${B:-${A}-${C:-three}}").unwrap(), "one-three");
        assert_eq!(with("$${A}").unwrap(), "${A}");
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        assert_eq!(with("${B}").unwrap_err(), "the variable `B` is not set");
        assert!(with("$A").unwrap_err().contains("lone"));
        assert!(with("${A").unwrap_err().contains("closing"));
        assert!(with("${}").is_err());
        assert!(with("${A?x}").is_err());
        assert!(with(&"${X:-".repeat(5000)).is_err());
        let deep = format!("{}{}", "${X:-".repeat(5000), "}".repeat(5000));
        assert!(with(&deep).unwrap_err().contains("deep"));
    }
}
