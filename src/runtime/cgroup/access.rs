//! Which devices a cgroup's processes may use: OCI's rules, and how they are put into force.
//!
//! Everything is refused that no rule allows. The devices that every container has are always allowed, and so is
//! making nodes: without a rule for reading or writing a node is of no use.

use std::fs;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::{Cgroup, Controller, Layout, devices, files};
use crate::runtime::error::{RuntimeError, invalid};

/// One rule; later rules win over earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub verdict: Verdict,
    pub kind: Kind,
    /// `None` is any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    Block,
    Character,
}

/// Bits as the device program sees them (linux/bpf.h, `BPF_DEVCG_ACC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access(pub u32);

impl Access {
    pub(super) const MKNOD: Access = Access(1);
    const LETTERS: [(char, u32); 3] = [('r', 2), ('w', 4), ('m', 1)];

    fn text(self) -> String {
        Access::LETTERS.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(letter, _)| letter).collect()
    }
}

/// null, zero, full, random, urandom, tty, ptmx, and the slaves of terminals (devices.txt).
const DEFAULT: [(u32, Option<u32>); 8] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];

/// Puts `rules`, and those that hold everywhere, into force.
pub(super) fn apply(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<(), RuntimeError> {
    let rules = all(rules)?;
    match (cgroup.hierarchy.layout(), cgroup.directory(Controller::Devices)) {
        // Without the controller nothing can be refused; then neither can what the rules would refuse.
        (Layout::V1, None) => {
            Err(RuntimeError::Controller { controller: "devices", field: "`linux.resources.devices`".to_owned() })
        }
        (Layout::V1, Some(directory)) => {
            let current = files::read(&directory, "devices.list")?;
            let wanted = lines(&rules);
            // What is in force stays: writing it anew would refuse everything for a moment.
            if fs::exists(directory.join("devices.list")).unwrap_or(false) && same(&current, &wanted) {
                return Ok(());
            }
            files::write(&directory, "devices.deny", "a")?;
            wanted.iter().try_for_each(|(file, line)| files::write(&directory, file, line))
        }
        (Layout::V2, Some(directory)) => devices::replace(&directory, &rules),
        (Layout::V2, None) => Ok(()),
    }
}

fn all(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, RuntimeError> {
    let mut all: Vec<Rule> = rules.iter().map(rule).collect::<Result<_, _>>()?;
    let allow = |major, minor, access| Rule { verdict: Verdict::Allow, kind: Kind::Character, major, minor, access };
    all.push(allow(None, None, Access::MKNOD));
    all.push(Rule { kind: Kind::Block, ..allow(None, None, Access::MKNOD) });
    all.extend(DEFAULT.map(|(major, minor)| allow(Some(major), minor, Access(7))));
    Ok(all)
}

fn rule(rule: &LinuxDeviceCgroup) -> Result<Rule, RuntimeError> {
    let refuse = |reason: String| invalid("linux.resources.devices", reason);
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => Kind::Any,
        LinuxDeviceType::B => Kind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => Kind::Character,
        LinuxDeviceType::P => return Err(refuse("a pipe is no device".to_owned())),
    };
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| refuse(format!("{value} is no device number"))),
    };
    let mut bits = 0;
    for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
        let found = Access::LETTERS.iter().find(|(known, _)| *known == letter);
        bits |= found.ok_or_else(|| refuse(format!("`{letter}` is none of `rwm`")))?.1;
    }
    Ok(Rule {
        verdict: if rule.allow() { Verdict::Allow } else { Verdict::Deny },
        kind,
        major: number(rule.major())?,
        minor: number(rule.minor())?,
        access: Access(bits),
    })
}

/// File and line of each rule for version 1. Its `a` stands for everything there is and ignores the rest of the line,
/// so a rule for both kinds is written as two unless it means everything.
fn lines(rules: &[Rule]) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for rule in rules {
        let file = match rule.verdict {
            Verdict::Allow => "devices.allow",
            Verdict::Deny => "devices.deny",
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let line =
            |letter| (file, format!("{letter} {}:{} {}", number(rule.major), number(rule.minor), rule.access.text()));
        match rule.kind {
            Kind::Any if *rule == everything(rule.verdict) => lines.push((file, "a *:* rwm".to_owned())),
            Kind::Any => lines.extend([line('b'), line('c')]),
            Kind::Block => lines.push(line('b')),
            Kind::Character => lines.push(line('c')),
        }
    }
    lines
}

fn everything(verdict: Verdict) -> Rule {
    Rule { verdict, kind: Kind::Any, major: None, minor: None, access: Access(7) }
}

/// Whether `devices.list` says what `lines` would make it say, as far as that is plain to see.
fn same(current: &str, lines: &[(&'static str, String)]) -> bool {
    if let Some((_, last)) = lines.iter().rev().find(|(_, line)| line == "a *:* rwm") {
        let allows_all = lines.iter().any(|(file, line)| line == last && *file == "devices.allow");
        let denies_one = lines.iter().any(|(file, line)| *file == "devices.deny" && line != last);
        if allows_all {
            return !denies_one && current.trim() == "a *:* rwm";
        }
    }
    let allowed = |(file, line): &&(&'static str, String)| *file == "devices.allow" && line != "a *:* rwm";
    let mut wanted: Vec<&str> = lines.iter().filter(allowed).map(|(_, line)| line.as_str()).collect();
    let denies_one = lines.iter().any(|(file, line)| *file == "devices.deny" && line != "a *:* rwm");
    let mut current: Vec<&str> = current.lines().collect();
    wanted.sort_unstable();
    wanted.dedup();
    current.sort_unstable();
    !denies_one && wanted == current
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Vec<Rule> {
        all(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap()).unwrap()
    }

    #[test]
    fn rules_become_lines() {
        let rules = parsed(
            r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "access": "r"},
                {"allow": true, "type": "a", "major": 10, "minor": 200, "access": "rw"}]"#,
        );
        let lines = lines(&rules);
        let text: Vec<String> = lines.iter().map(|(file, line)| format!("{} {line}", &file[8..])).collect();
        assert_eq!(text[..4], ["deny a *:* rwm", "allow b 8:* r", "allow b 10:200 rw", "allow c 10:200 rw"]);
        assert!(text.contains(&"allow c 1:3 rwm".to_owned()));
    }

    #[test]
    fn what_is_in_force_is_recognised() {
        let lines = lines(&parsed(r#"[{"allow": false}]"#));
        let list: Vec<&str> = lines[1..].iter().map(|(_, line)| line.as_str()).collect();
        assert!(same(&list.join("\n"), &lines));
        assert!(!same("a *:* rwm", &lines));
        assert!(!same("c 1:3 rwm", &lines));
    }
}
