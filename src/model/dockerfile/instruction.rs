//! One logical line becomes one instruction.

use std::ops::Range;

use super::files;
use super::flags::{self, Flag};
use super::lines::Line;
use super::mount::{self, Asked};
use super::words;
use super::{Argument, CommandLine, CopyKind, Healthcheck, Instruction, Run, RunNetwork, Stage, Step, SyntaxError};
use crate::model::units::Signal;

pub(super) enum Parsed {
    From(Stage),
    Step(Step),
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The instruction that an image keeps for whoever builds on it.
pub fn parse_trigger(text: &str) -> Result<Instruction, String> {
    match parse_line(&Line::alone(text.trim()), '\\') {
        Ok(Parsed::Step(step)) => Ok(Instruction { line: 0, text: text.trim().to_owned(), step }),
        Ok(Parsed::From(_)) => Err("it is a `FROM`".to_owned()),
        Err(error) => Err(error.message),
    }
}

pub(super) fn parse_line(line: &Line, escape: char) -> Result<Parsed, SyntaxError> {
    let reader = Reader::new(line, escape);
    let keyword = line.text[..line.keyword_end()].to_ascii_uppercase();
    if !KEYWORDS.contains(&keyword.as_str()) {
        let near = KEYWORDS.iter().map(|known| (strsim::damerau_levenshtein(known, &keyword), *known)).min();
        let message = format!("`{}` is not an instruction", &line.text[..line.keyword_end()]);
        let expected = match near {
            Some((distance, known)) if distance <= 2 => format!("did you mean `{known}`?"),
            _ => "expected an instruction such as `FROM`, `RUN` or `COPY`".to_owned(),
        };
        return Err(line.error(0..line.keyword_end(), message, expected));
    }
    if keyword == "FROM" {
        return reader.from().map(Parsed::From);
    }
    let step = match keyword.as_str() {
        "ADD" => Step::Copy(files::read(&reader, CopyKind::Add)?),
        "COPY" => Step::Copy(files::read(&reader, CopyKind::Copy)?),
        "ARG" => Step::Arg(reader.arguments()?),
        "CMD" => Step::Cmd(reader.command_line()?),
        "ENTRYPOINT" => Step::Entrypoint(reader.command_line()?),
        "ENV" => Step::Env(reader.pairs()?),
        "LABEL" => Step::Label(reader.pairs()?),
        "EXPOSE" => Step::Expose(reader.list("a port")?),
        "VOLUME" => Step::Volume(reader.list_or_json("a path")?),
        "HEALTHCHECK" => Step::Healthcheck(reader.healthcheck()?),
        "MAINTAINER" => Step::Maintainer(reader.whole("a name")?),
        "ONBUILD" => Step::OnBuild(reader.trigger()?),
        "RUN" => Step::Run(reader.run()?),
        "SHELL" => Step::Shell(reader.shell()?),
        "STOPSIGNAL" => Step::StopSignal(reader.stop_signal()?),
        "USER" => Step::User(reader.whole("a user")?),
        _ => Step::Workdir(reader.whole("a directory")?),
    };
    Ok(Parsed::Step(step))
}

/// A line, and how its parts are read.
pub(super) struct Reader<'l> {
    pub line: &'l Line,
    escape: char,
    pub flags: Vec<Flag<'l>>,
    /// Where the arguments begin.
    pub begin: usize,
}

impl<'l> Reader<'l> {
    fn new(line: &'l Line, escape: char) -> Reader<'l> {
        let (flags, begin) = flags::split(line, escape);
        Reader { line, escape, flags, begin }
    }

    pub fn rest(&self) -> &'l str {
        self.line.text[self.begin..].trim()
    }

    fn keyword(&self) -> &'l str {
        &self.line.text[..self.line.keyword_end()]
    }

    /// Places of words of the rest, in the line.
    fn places(&self, words: Vec<Range<usize>>) -> Vec<Range<usize>> {
        words.into_iter().map(|word| self.begin + word.start..self.begin + word.end).collect()
    }

    pub fn plain_words(&self) -> Vec<Range<usize>> {
        self.places(words::plain(&self.line.text[self.begin..]))
    }

    pub fn text(&self, at: &Range<usize>) -> &'l str {
        &self.line.text[at.clone()]
    }

    pub fn missing(&self, what: &str) -> SyntaxError {
        let message = format!("`{}` needs {what}", self.keyword());
        self.line.error(0..self.line.text.len(), message, format!("expected {what}"))
    }

    pub fn wrong<T>(&self, at: Range<usize>, message: impl Into<String>, expected: &str) -> Result<T, SyntaxError> {
        Err(self.line.error(at, message, expected))
    }

    fn no_flags(&self) -> Result<(), SyntaxError> {
        self.flags.first().map_or(Ok(()), |flag| Err(flag.unknown(self.line, "it has no flags")))
    }

    fn whole(&self, what: &str) -> Result<String, SyntaxError> {
        self.no_flags()?;
        match self.rest() {
            "" => Err(self.missing(what)),
            text => Ok(text.to_owned()),
        }
    }

    fn list(&self, what: &str) -> Result<Vec<String>, SyntaxError> {
        self.no_flags()?;
        match self.plain_words().as_slice() {
            [] => Err(self.missing(what)),
            words => Ok(words.iter().map(|at| self.text(at).to_owned()).collect()),
        }
    }

    fn list_or_json(&self, what: &str) -> Result<Vec<String>, SyntaxError> {
        match words::json(self.rest()) {
            Some(list) if list.is_empty() => Err(self.missing(what)),
            Some(list) => self.no_flags().map(|()| list),
            None => self.list(what),
        }
    }

    fn from(&self) -> Result<Stage, SyntaxError> {
        let mut platform = None;
        for flag in &self.flags {
            match flag.name {
                "platform" => platform = Some(flag.text(self.line)?),
                _ => return Err(flag.unknown(self.line, "its only flag is `--platform`")),
            }
        }
        let words = self.plain_words();
        let name = match words.as_slice() {
            [] => return Err(self.missing("an image")),
            [_] => None,
            [_, word, name] if self.text(word).eq_ignore_ascii_case("as") => Some(name),
            [_, other, ..] => {
                let end = words.last().map_or(other.end, |last| last.end);
                return self.wrong(other.start..end, "only a name may follow the image", "expected `AS NAME`");
            }
        };
        if let Some(at) = name {
            let text = self.text(at);
            let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !text.starts_with(|c: char| c.is_ascii_alphabetic()) || !text.chars().all(letters) {
                let expected = "expected a letter, then letters, digits, `-`, `_` or `.`";
                return self.wrong(at.clone(), format!("`{text}` is not a name of a stage"), expected);
            }
        }
        Ok(Stage {
            line: self.line.number,
            name: name.map(|at| self.text(at).to_ascii_lowercase()),
            base: self.text(&words[0]).to_owned(),
            base_place: words[0].clone(),
            platform,
            instructions: Vec::new(),
        })
    }

    fn arguments(&self) -> Result<Vec<Argument>, SyntaxError> {
        self.no_flags()?;
        let words = self.places(words::quoted(&self.line.text[self.begin..], self.escape));
        if words.is_empty() {
            return Err(self.missing("a name"));
        }
        words
            .iter()
            .map(|at| {
                let text = self.text(at);
                let (name, default) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
                match name.is_empty() {
                    true => self.wrong(at.clone(), "an argument has a name", "expected `NAME=VALUE`"),
                    false => Ok(Argument { name: name.to_owned(), default: default.map(str::to_owned) }),
                }
            })
            .collect()
    }

    /// `NAME=VALUE ..`, or the old form `NAME VALUE` with one value to the end of the line.
    fn pairs(&self) -> Result<Vec<(String, String)>, SyntaxError> {
        self.no_flags()?;
        let words = self.places(words::quoted(&self.line.text[self.begin..], self.escape));
        let Some(first) = words.first() else { return Err(self.missing("`NAME=VALUE`")) };
        if !self.text(first).contains('=') {
            let value = self.line.text[first.end..].trim();
            return match value {
                "" => {
                    self.wrong(first.clone(), format!("`{}` has no value", self.text(first)), "expected `NAME=VALUE`")
                }
                value => Ok(vec![(self.text(first).to_owned(), value.to_owned())]),
            };
        }
        words
            .iter()
            .map(|at| match self.text(at).split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                _ => self.wrong(at.clone(), format!("`{}` is no pair", self.text(at)), "expected `NAME=VALUE`"),
            })
            .collect()
    }

    /// Nothing is a command too: it takes the image's away.
    fn command_line(&self) -> Result<CommandLine, SyntaxError> {
        self.no_flags()?;
        Ok(command_line(self.rest()))
    }

    fn shell(&self) -> Result<Vec<String>, SyntaxError> {
        self.no_flags()?;
        match words::json(self.rest()) {
            Some(list) if !list.is_empty() => Ok(list),
            _ => self.wrong(self.begin..self.line.text.len(), "a shell is a list", "expected `[\"/bin/sh\", \"-c\"]`"),
        }
    }

    fn stop_signal(&self) -> Result<String, SyntaxError> {
        let text = self.whole("a signal")?;
        if let (false, Err(error)) = (text.contains('$'), text.parse::<Signal>()) {
            let message = format!("`{text}` is not a signal");
            return self.wrong(self.begin..self.line.text.len(), message, &error.to_string());
        }
        Ok(text)
    }

    fn run(&self) -> Result<Run, SyntaxError> {
        let (mut mounts, mut secrets, mut network) = (Vec::new(), Vec::new(), None);
        for flag in &self.flags {
            match (flag.name, flag.value) {
                ("mount", _) => match mount::read(self.line, flag)? {
                    Asked::Mount(mount) => mounts.push(mount),
                    Asked::Secret(secret) => secrets.push(secret),
                },
                ("network", Some("default")) => network = None,
                ("network", Some("none")) => network = Some(RunNetwork::None),
                ("network", Some("host")) => network = Some(RunNetwork::Host),
                ("network", _) => {
                    let expected = "expected `default`, `none` or `host`";
                    return self.wrong(flag.at.clone(), "it is not a network of a build", expected);
                }
                // The other one is `insecure`, which no build here is.
                ("security", Some("sandbox")) => {}
                _ => return Err(flag.unknown(self.line, "its flags are `--mount` and `--network`")),
            }
        }
        if self.rest().is_empty() {
            return Err(self.missing("a command"));
        }
        let command = command_line(self.rest());
        Ok(Run { command, documents: self.line.documents.clone(), mounts, secrets, network })
    }

    fn trigger(&self) -> Result<String, SyntaxError> {
        let text = self.whole("an instruction")?;
        let keyword = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let at = self.begin..self.line.text.len();
        if matches!(keyword.as_str(), "FROM" | "ONBUILD" | "MAINTAINER") {
            return self.wrong(at, format!("`{keyword}` cannot be a trigger"), "expected another instruction");
        }
        match parse_line(&Line::alone(&text), self.escape) {
            Ok(_) => Ok(text),
            Err(error) => self.wrong(at, error.message, &error.expected),
        }
    }

    fn healthcheck(&self) -> Result<Healthcheck, SyntaxError> {
        let mut check =
            Healthcheck { command: None, interval: 0, timeout: 0, start_period: 0, start_interval: 0, retries: 0 };
        for flag in &self.flags {
            let text = flag.text(self.line)?;
            let time = || match nanoseconds(&text) {
                Some(time) => Ok(time),
                None => {
                    self.wrong(flag.at.clone(), format!("`{text}` is not a time"), "expected a time such as `1m30s`")
                }
            };
            match flag.name {
                "interval" => check.interval = time()?,
                "timeout" => check.timeout = time()?,
                "start-period" => check.start_period = time()?,
                "start-interval" => check.start_interval = time()?,
                "retries" => match text.parse() {
                    Ok(number) => check.retries = number,
                    Err(_) => return self.wrong(flag.at.clone(), format!("`{text}` is not a number"), "expected one"),
                },
                _ => return Err(flag.unknown(self.line, HEALTHCHECK_FLAGS)),
            }
        }
        let rest = self.rest();
        let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let at = self.begin..self.line.text.len();
        match (kind.to_ascii_uppercase().as_str(), command.trim()) {
            ("NONE", "") => Ok(check),
            ("CMD", "") => Err(self.missing("a command after `CMD`")),
            ("CMD", command) => Ok(Healthcheck { command: Some(command_line(command)), ..check }),
            _ => self.wrong(at, "it is not a health check", "expected `CMD COMMAND` or `NONE`"),
        }
    }
}

const HEALTHCHECK_FLAGS: &str =
    "its flags are `--interval`, `--timeout`, `--start-period`, `--start-interval` and `--retries`";

fn command_line(text: &str) -> CommandLine {
    match words::json(text) {
        Some(list) => CommandLine::Exec(list),
        None => CommandLine::Shell(text.to_owned()),
    }
}

/// A duration as Go writes it: numbers with units, `1m30s`, `1.5h`.
fn nanoseconds(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number * UNITS.iter().find(|(unit, _)| *unit == &rest[..end])?.1;
        rest = &rest[end..];
    }
    (!text.is_empty() && total < i64::MAX as f64).then_some(total as i64)
}
