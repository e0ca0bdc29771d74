//! Patterns of paths: those of `.dockerignore` and `--exclude`, wildcards of `COPY`, and cuts of variables.
//!
//! Path patterns are Go's `filepath.Match` with `**` for any number of directories, anchored at the root of the context
//! (not as `.gitignore` is read). Of several the last that matches counts; one with `!` takes back.

/// The patterns of a file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    takes_back: bool,
    parts: Vec<String>,
}

impl Ignore {
    /// Reads `.dockerignore`.
    pub fn parse(text: &str) -> Result<Ignore, String> {
        let text = text.trim_start_matches('\u{feff}');
        // A comment begins in the first column.
        Ignore::of(text.lines().filter(|line| !line.starts_with('#')))
    }

    /// Of these patterns. Slashes around one mean nothing, and `.` and `..` are resolved by name.
    pub fn of<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Ignore, String> {
        let mut rules = Vec::new();
        for pattern in patterns {
            let pattern = pattern.trim();
            let (takes_back, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |rest| (true, rest.trim()));
            let mut parts: Vec<String> = Vec::new();
            for part in pattern.split('/') {
                match part {
                    "" | "." => {}
                    ".." => drop(parts.pop()),
                    part => parts.push(part.to_owned()),
                }
            }
            if let Some(bad) = parts.iter().find(|part| !is_well_formed(part)) {
                return Err(format!("`{bad}` is not a pattern: a `[` is not closed, or a `\\` stands at the end"));
            }
            if !parts.is_empty() {
                rules.push(Rule { takes_back, parts });
            }
        }
        Ok(Ignore { rules })
    }

    /// Whether this path, from the context on and without a slash in front, is left out.
    pub fn leaves_out(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut left_out = false;
        for rule in &self.rules {
            // A pattern that matches a directory matches all in it.
            if rule.takes_back == left_out && (1..=parts.len()).any(|end| matches_path(&rule.parts, &parts[..end])) {
                left_out = !rule.takes_back;
            }
        }
        left_out
    }

    /// Whether something in a directory that is left out could be taken back.
    pub fn takes_back(&self) -> bool {
        self.rules.iter().any(|rule| rule.takes_back)
    }
}

/// Whether the path matches, part by part.
pub fn matches_path(pattern: &[impl AsRef<str>], path: &[&str]) -> bool {
    match (pattern.split_first(), path) {
        (None, path) => path.is_empty(),
        (Some((first, rest)), path) if first.as_ref() == "**" => {
            // At the end it stands for what is in a directory, not for the directory.
            let least = usize::from(rest.is_empty());
            (least..=path.len()).any(|skipped| matches_path(rest, &path[skipped..]))
        }
        (Some((first, rest)), [part, others @ ..]) => {
            Glob::new(first.as_ref()).matches(part) && matches_path(rest, others)
        }
        (Some(_), []) => false,
    }
}

/// Whether it means more than itself.
pub fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn is_well_formed(part: &str) -> bool {
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return false,
            '[' => loop {
                match chars.next() {
                    None => return false,
                    Some('\\') => drop(chars.next()),
                    Some(']') => break,
                    Some(_) => {}
                }
            },
            _ => {}
        }
    }
    true
}

/// `*`, `?`, `[a-z]`, `[^a-z]` and `\` before a character that means itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    Run,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    pub fn new(text: &str) -> Glob {
        let mut chars = text.chars().peekable();
        let mut tokens = Vec::new();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Run,
                '?' => Token::Any,
                '\\' => Token::Char(chars.next().unwrap_or('\\')),
                '[' => {
                    let negated = chars.next_if(|c| matches!(c, '^' | '!')).is_some();
                    let mut ranges = Vec::new();
                    while let Some(mut low) = chars.next() {
                        if low == ']' {
                            break;
                        }
                        if low == '\\' {
                            low = chars.next().unwrap_or('\\');
                        }
                        let mut high = low;
                        if chars.next_if_eq(&'-').is_some() {
                            high = chars.next().unwrap_or('-');
                            if high == '\\' {
                                high = chars.next().unwrap_or('\\');
                            }
                        }
                        ranges.push((low, high));
                    }
                    Token::Class { negated, ranges }
                }
                c => Token::Char(c),
            });
        }
        Glob { tokens }
    }

    /// The whole text. Goes back to the last `*` only, so that it takes no more than the product of both lengths.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut token) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.tokens.get(token) {
                Some(Token::Run) => {
                    retry = Some((token, at));
                    token += 1;
                }
                Some(other) if other.takes(text[at]) => (at, token) = (at + 1, token + 1),
                _ => match retry {
                    None => return false,
                    Some((run, from)) => {
                        retry = Some((run, from + 1));
                        (at, token) = (from + 1, run + 1);
                    }
                },
            }
        }
        self.tokens[token..].iter().all(|token| *token == Token::Run)
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Token::Char(own) => *own == c,
            Token::Any | Token::Run => true,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}
