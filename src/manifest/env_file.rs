//! Environment files, as `docker run --env-file` reads them.
//!
//! One `NAME=value` a line; the value is everything behind the first `=`, quotes included. A name alone takes its
//! value from the environment and is left out when it is not set there. Empty lines and lines that begin with `#`
//! are skipped. Nothing is interpolated.

use super::problem::{Place, Problem};

/// Variables in the order of the file. `source` is the number of this text for problems.
pub(super) fn parse(
    text: &str,
    source: usize,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Vec<Problem>> {
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let place = Place::new(source, start..start + line.trim_end().len());
        start += line.len();
        let line = line.trim_end_matches(['\n', '\r']).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, variable(line)),
        };
        if name.is_empty() || name.contains(char::is_whitespace) || line.contains('\0') {
            problems.push(
                Problem::at(&place, "this line of an environment file is not a variable")
                    .label("expected `NAME=value`")
                    .maybe_help(meant(line)),
            );
        } else if let Some(value) = value {
            variables.push((name.to_owned(), value));
        }
    }
    match problems.is_empty() {
        true => Ok(variables),
        false => Err(problems),
    }
}

/// For lines that a shell would read.
fn meant(line: &str) -> Option<String> {
    let (name, value) = line.split_once('=')?;
    let bare = name.strip_prefix("export ").unwrap_or(name).trim();
    let is_name = !bare.is_empty() && !bare.contains(char::is_whitespace) && !line.contains('\0');
    is_name.then(|| format!("no shell reads this file: write `{bare}={}`", value.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_docker_reads_them() {
        let text = "# comment\nA=1\r\n\nB=\"quoted\" = yes\nHOME\nUNSET\nEMPTY=\n";
        let variable = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let variables = parse(text, 0, &variable).unwrap();
        let expected = [("A", "1"), ("B", "\"quoted\" = yes"), ("HOME", "/root"), ("EMPTY", "")];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_line_without_a_name_is_a_problem() {
        assert_eq!(parse("=x\nA B=c\n", 0, &|_| None).unwrap_err().len(), 2);
    }
}
