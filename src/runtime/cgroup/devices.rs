//! The device filter of version 2: rules become an extended BPF program, attached to the cgroup.
//!
//! ```text
//! struct bpf_cgroup_dev_ctx { u32 access_type;   kind in the lower 16 bits, access in the upper
//!                             u32 major; u32 minor; }
//! r1 = context    r2 = kind    r3 = access    r4 = major    r5 = minor    r0 = 1: allowed
//! ```
//!
//! Later rules win, so the program asks them from the last to the first and returns with the first that matches.

use std::os::fd::AsFd;
use std::path::Path;

use super::access::{Kind, Rule, Verdict};
use super::files;
use crate::runtime::error::RuntimeError;
use crate::sys::bpf::{self, Instruction};

/// Attaches the program of `rules` and takes off those that were there. In between both hold, which refuses too much
/// for a moment but never allows too much.
pub(super) fn replace(directory: &Path, rules: &[Rule]) -> Result<(), RuntimeError> {
    let failure = |error| files::failure("filter the devices of the cgroup", directory, error);
    let cgroup = files::open_directory(directory)?;
    let before = bpf::device_programs(cgroup.as_fd()).map_err(failure)?;
    let loaded = bpf::load_device_program(&program(rules)).map_err(failure)?;
    bpf::attach_device_program(cgroup.as_fd(), loaded.as_fd()).map_err(failure)?;
    before.iter().try_for_each(|old| bpf::detach_device_program(cgroup.as_fd(), old.as_fd())).map_err(failure)
}

// Codes of extended BPF (linux/bpf.h, linux/bpf_common.h).
const LOAD_WORD: u8 = 0x61;
const MOVE_IMMEDIATE: u8 = 0xb7;
const MOVE_WORD: u8 = 0xbc;
const AND_WORD: u8 = 0x54;
const SHIFT_RIGHT_WORD: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const JUMP_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, (2, 1), 0, 0),
        instruction(MOVE_WORD, (3, 2), 0, 0),
        instruction(AND_WORD, (2, 0), 0, 0xffff),
        instruction(SHIFT_RIGHT_WORD, (3, 0), 0, 16),
        instruction(LOAD_WORD, (4, 1), 4, 0),
        instruction(LOAD_WORD, (5, 1), 8, 0),
    ];
    for rule in rules.iter().rev() {
        code.extend(check(rule));
        if matches_everything(rule) {
            return code;
        }
    }
    code.extend(verdict(Verdict::Deny));
    code
}

/// Behind a rule for everything nothing is reached, and the verifier refuses what is not reached.
fn matches_everything(rule: &Rule) -> bool {
    rule.kind == Kind::Any && rule.major.is_none() && rule.minor.is_none() && rule.access.0 == 7
}

/// Returns the rule's verdict where it matches, else goes on behind itself. A rule that allows must allow every access
/// asked for; one that denies needs only one of them.
fn check(rule: &Rule) -> Vec<Instruction> {
    let mut tests: Vec<Instruction> = Vec::new();
    let kind = match rule.kind {
        Kind::Any => None,
        Kind::Block => Some(1),
        Kind::Character => Some(2),
    };
    if let Some(kind) = kind {
        tests.push(instruction(JUMP_NOT_EQUAL, (2, 0), 0, kind));
    }
    if rule.access.0 != 7 {
        tests.push(instruction(MOVE_WORD, (1, 3), 0, 0));
        tests.push(instruction(AND_WORD, (1, 0), 0, rule.access.0 as i32));
        tests.push(match rule.verdict {
            Verdict::Allow => instruction(JUMP_NOT_EQUAL_REGISTER, (1, 3), 0, 0),
            Verdict::Deny => instruction(JUMP_EQUAL, (1, 0), 0, 0),
        });
    }
    if let Some(major) = rule.major {
        tests.push(instruction(JUMP_NOT_EQUAL, (4, 0), 0, major as i32));
    }
    if let Some(minor) = rule.minor {
        tests.push(instruction(JUMP_NOT_EQUAL, (5, 0), 0, minor as i32));
    }
    tests.extend(verdict(rule.verdict));
    let length = tests.len();
    for (at, test) in tests.iter_mut().enumerate() {
        if matches!(test.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER | JUMP_EQUAL) {
            test.offset = (length - at - 1) as i16;
        }
    }
    tests
}

fn verdict(verdict: Verdict) -> [Instruction; 2] {
    [instruction(MOVE_IMMEDIATE, (0, 0), 0, i32::from(verdict == Verdict::Allow)), instruction(EXIT, (0, 0), 0, 0)]
}

fn instruction(code: u8, (destination, source): (u8, u8), offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::super::access::Access;
    use super::*;

    /// Runs a program as the kernel does, on one access.
    fn allows(rules: &[Rule], kind: u64, access: u64, (major, minor): (u64, u64)) -> bool {
        let code = program(rules);
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0_u64; 11], 0_usize);
        loop {
            let Instruction { code, registers: pair, offset, immediate } = code[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let operand = immediate as u32 as u64;
            at += 1;
            let jumps = match code {
                LOAD_WORD => {
                    registers[to] = context[offset as usize / 4];
                    false
                }
                MOVE_IMMEDIATE => {
                    registers[to] = operand;
                    false
                }
                MOVE_WORD => {
                    registers[to] = registers[from];
                    false
                }
                AND_WORD => {
                    registers[to] &= operand;
                    false
                }
                SHIFT_RIGHT_WORD => {
                    registers[to] >>= operand;
                    false
                }
                JUMP_NOT_EQUAL => registers[to] != operand,
                JUMP_NOT_EQUAL_REGISTER => registers[to] != registers[from],
                JUMP_EQUAL => registers[to] == operand,
                EXIT => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            };
            if jumps {
                at += offset as usize;
            }
        }
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let rule = |verdict, kind, numbers: (Option<u32>, Option<u32>), access| Rule {
            verdict,
            kind,
            major: numbers.0,
            minor: numbers.1,
            access: Access(access),
        };
        let rules = [
            rule(Verdict::Deny, Kind::Any, (None, None), 7),
            rule(Verdict::Allow, Kind::Character, (Some(1), Some(3)), 6),
            rule(Verdict::Allow, Kind::Block, (Some(8), None), 2),
            rule(Verdict::Deny, Kind::Block, (Some(8), Some(1)), 2),
        ];
        assert!(allows(&rules, 2, 2, (1, 3)) && allows(&rules, 2, 6, (1, 3)));
        assert!(!allows(&rules, 2, 1, (1, 3)) && !allows(&rules, 1, 2, (1, 3)) && !allows(&rules, 2, 2, (1, 4)));
        assert!(allows(&rules, 1, 2, (8, 0)) && !allows(&rules, 1, 6, (8, 0)) && !allows(&rules, 1, 2, (8, 1)));
        assert!(!allows(&[], 2, 2, (1, 3)));
        assert!(allows(&[rule(Verdict::Allow, Kind::Any, (None, None), 7)], 1, 7, (8, 0)));
    }
}
