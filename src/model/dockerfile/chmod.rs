//! `--chmod`: permission bits as a number, or changes to them as chmod(1) reads them.

use std::str::FromStr;

use crate::model::units::FileMode;

/// What is done to the mode of whatever is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    Set(u32),
    Changes(Vec<Change>),
}

/// `u+rwX` is one; `ug=r+x` is two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The bits of those whom it is about.
    who: u32,
    operation: Operation,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Become,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Bits, for everybody; and whether `X` is among them: to execute, for directories and what somebody executes.
    Bits { bits: u32, search: bool },
    /// What these have: how far their bits are from the lowest.
    Same(u32),
}

const ALL: u32 = 0o7777;

impl Chmod {
    /// The mode that comes of `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Chmod::Set(bits) => *bits,
            Chmod::Changes(changes) => changes.iter().fold(mode & ALL, |mode, change| change.apply(mode, is_directory)),
        }
    }
}

impl Change {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let bits = match self.what {
            What::Bits { bits, search } if search && (is_directory || mode & 0o111 != 0) => bits | 0o111,
            What::Bits { bits, .. } => bits,
            What::Same(shift) => (mode >> shift & 7) * 0o111,
        };
        match self.operation {
            Operation::Add => mode | bits & self.who,
            Operation::Remove => mode & !(bits & self.who),
            Operation::Become => mode & !self.who | bits & self.who,
        }
    }
}

impl FromStr for Chmod {
    type Err = String;

    fn from_str(text: &str) -> Result<Chmod, String> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return text.parse().map(|mode: FileMode| Chmod::Set(mode.0)).map_err(|error| error.to_string());
        }
        let clauses: Option<Vec<Vec<Change>>> = text.split(',').map(clause).collect();
        match clauses {
            Some(clauses) => Ok(Chmod::Changes(clauses.concat())),
            None => Err("expected permission bits such as `0644`, or changes such as `u=rwX,go=rX`".to_owned()),
        }
    }
}

fn clause(text: &str) -> Option<Vec<Change>> {
    let begin = text.find(['+', '-', '='])?;
    let mut who = text[..begin].chars().try_fold(0, |who, c| {
        Some(match c {
            'u' => who | 0o4700,
            'g' => who | 0o2070,
            'o' => who | 0o1007,
            'a' => ALL,
            _ => return None,
        })
    })?;
    if begin == 0 {
        // There is no umask here.
        who = ALL;
    }
    let mut changes = Vec::new();
    let mut rest = &text[begin..];
    while let Some(operation) = rest.chars().next() {
        let operation = match operation {
            '+' => Operation::Add,
            '-' => Operation::Remove,
            _ => Operation::Become,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |end| end + 1);
        changes.push(Change { who, operation, what: what(&rest[1..end])? });
        rest = &rest[end..];
    }
    Some(changes)
}

fn what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::Same(6)),
        "g" => return Some(What::Same(3)),
        "o" => return Some(What::Same(0)),
        _ => {}
    }
    let (mut bits, mut search) = (0, false);
    for c in text.chars() {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => search = true,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Bits { bits, search })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_numbers_or_changes() {
        let of = |text: &str, mode, is_directory| text.parse::<Chmod>().unwrap().apply(mode, is_directory);
        for (text, before, file, directory) in [
            ("0640", 0o755, 0o640, 0o640),
            ("u=rwX,go=rX", 0o600, 0o644, 0o755),
            ("u=rwX,go=rX", 0o700, 0o755, 0o755),
            ("+x", 0o644, 0o755, 0o755),
            ("a-w,u+w", 0o666, 0o644, 0o644),
            ("g=u", 0o740, 0o770, 0o770),
            ("u+s,g-s,+t", 0o2755, 0o5755, 0o5755),
            ("ug=r+x,o=", 0o777, 0o550, 0o550),
        ] {
            assert_eq!((of(text, before, false), of(text, before, true)), (file, directory), "{text}");
        }
        for wrong in ["", "9", "rwx", "u", "z+x", "u+q", "u+x,", "01234567"] {
            assert!(wrong.parse::<Chmod>().is_err(), "{wrong}");
        }
    }
}
