//! Classic BPF over `struct seccomp_data` (seccomp(2)): tests of arguments and a search over numbers.
//!
//! Code is written backwards and turned around at the end: every piece ends in a return, so pieces are joined by writing
//! one before the other, and every jump goes forward over pieces of known length.

use crate::sys::seccomp::Instruction;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// A comparison of one argument, 64 bits wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub argument: u32,
    pub comparison: Comparison,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Above(u64),
    AtLeast(u64),
    Below(u64),
    AtMost(u64),
    MaskedEqual { mask: u64, value: u64 },
}

/// What happens to one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Tried in order; all tests of one must hold.
    pub conditional: Vec<(Vec<Test>, u32)>,
    pub otherwise: u32,
}

impl Verdict {
    pub(super) fn always(action: u32) -> Verdict {
        Verdict { conditional: Vec::new(), otherwise: action }
    }
}

/// A whole program: for each architecture (its audit number) verdicts by number, each valid up to the next one's
/// number. The first of an architecture begins at 0. Other architectures get `foreign`.
pub(super) fn program(architectures: &[(u32, Vec<(u32, Verdict)>)], foreign: u32) -> Vec<Instruction> {
    let mut backwards = vec![plain(RETURN, foreign)];
    for (architecture, verdicts) in architectures.iter().rev() {
        choose(&mut backwards, IF_EQUAL, *architecture, |backwards| {
            search(backwards, verdicts);
            backwards.push(plain(LOAD, NUMBER));
        });
    }
    backwards.push(plain(LOAD, ARCHITECTURE));
    backwards.reverse();
    backwards
}

/// Binary search over the verdicts' first numbers.
fn search(backwards: &mut Vec<Instruction>, verdicts: &[(u32, Verdict)]) {
    match verdicts {
        [] => {}
        [(_, verdict)] => backwards.extend(decide(verdict).into_iter().rev()),
        _ => {
            let (low, high) = verdicts.split_at(verdicts.len() / 2);
            search(backwards, low);
            choose(backwards, IF_AT_LEAST, high[0].0, |backwards| search(backwards, high));
        }
    }
}

/// What `yes` writes where the comparison holds, else what is there already. A conditional jump reaches 255
/// instructions; a longer `yes` is jumped over by an unconditional one.
fn choose(backwards: &mut Vec<Instruction>, comparison: u16, operand: u32, yes: impl FnOnce(&mut Vec<Instruction>)) {
    let behind = backwards.len();
    yes(backwards);
    let length = backwards.len() - behind;
    match u8::try_from(length) {
        Ok(length) => backwards.push(jump(comparison, operand, 0, length)),
        Err(_) => backwards.extend([plain(JUMP, length as u32), jump(comparison, operand, 1, 0)]),
    }
}

fn decide(verdict: &Verdict) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (tests, action) in &verdict.conditional {
        let mut rule = vec![plain(RETURN, *action)];
        for test in tests.iter().rev() {
            // At most six tests of six instructions: never out of a jump's reach.
            let mut front = check(test, rule.len() as u8);
            front.append(&mut rule);
            rule = front;
        }
        code.append(&mut rule);
    }
    code.push(plain(RETURN, verdict.otherwise));
    code
}

/// Goes on behind itself when the test holds, else jumps `fail` instructions further. 64 bits are compared as two
/// words, the upper one first.
fn check(test: &Test, fail: u8) -> Vec<Instruction> {
    let low = plain(LOAD, ARGUMENTS + 8 * test.argument);
    let high = plain(LOAD, ARGUMENTS + 8 * test.argument + 4);
    let words = |value: u64| ((value >> 32) as u32, value as u32);
    match test.comparison {
        Comparison::Equal(value) => {
            let (upper, lower) = words(value);
            vec![high, jump(IF_EQUAL, upper, 0, 2 + fail), low, jump(IF_EQUAL, lower, 0, fail)]
        }
        Comparison::NotEqual(value) => {
            let (upper, lower) = words(value);
            vec![high, jump(IF_EQUAL, upper, 0, 2), low, jump(IF_EQUAL, lower, fail, 0)]
        }
        Comparison::Above(value) => ordered(high, low, words(value), (IF_ABOVE, fail)),
        Comparison::AtLeast(value) => ordered(high, low, words(value), (IF_AT_LEAST, fail)),
        Comparison::Below(value) => reversed(high, low, words(value), (IF_AT_LEAST, fail)),
        Comparison::AtMost(value) => reversed(high, low, words(value), (IF_ABOVE, fail)),
        Comparison::MaskedEqual { mask, value } => {
            let ((mask_upper, mask_lower), (upper, lower)) = (words(mask), words(value));
            vec![
                high,
                plain(AND, mask_upper),
                jump(IF_EQUAL, upper, 0, 3 + fail),
                low,
                plain(AND, mask_lower),
                jump(IF_EQUAL, lower, 0, fail),
            ]
        }
    }
}

/// Holds when the argument is above (or at least) the value.
fn ordered(
    high: Instruction,
    low: Instruction,
    (upper, lower): (u32, u32),
    (comparison, fail): (u16, u8),
) -> Vec<Instruction> {
    vec![high, jump(IF_ABOVE, upper, 3, 0), jump(IF_EQUAL, upper, 0, 2 + fail), low, jump(comparison, lower, 0, fail)]
}

/// Holds when the argument is not above (or not at least) the value.
fn reversed(
    high: Instruction,
    low: Instruction,
    (upper, lower): (u32, u32),
    (comparison, fail): (u16, u8),
) -> Vec<Instruction> {
    vec![high, jump(IF_ABOVE, upper, 3 + fail, 0), jump(IF_EQUAL, upper, 0, 2), low, jump(comparison, lower, fail, 0)]
}

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, operand }
}

fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

/// Runs a program as the kernel does: for tests that no process has to die for.
#[cfg(test)]
pub(super) fn evaluate(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => architecture,
        other => {
            let argument = arguments[((other - ARGUMENTS) / 8) as usize];
            if (other - ARGUMENTS) % 8 == 4 { (argument >> 32) as u32 } else { argument as u32 }
        }
    };
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let instruction = program[at];
        at += 1;
        let holds = match instruction.code {
            LOAD => {
                accumulator = word(instruction.operand);
                continue;
            }
            AND => {
                accumulator &= instruction.operand;
                continue;
            }
            JUMP => {
                at += instruction.operand as usize;
                continue;
            }
            RETURN => return instruction.operand,
            IF_EQUAL => accumulator == instruction.operand,
            IF_ABOVE => accumulator > instruction.operand,
            IF_AT_LEAST => accumulator >= instruction.operand,
            other => panic!("instruction {other}"),
        };
        at += usize::from(if holds { instruction.jump_true } else { instruction.jump_false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86_64: u32 = 0xc000_003e;

    #[test]
    fn comparisons_look_at_all_64_bits() {
        let values = [0, 1, 5, u64::from(u32::MAX), 1 << 32, (1 << 32) + 5, (5 << 32) + 1, u64::MAX - 1, u64::MAX];
        for value in values {
            let mask = 0xff00_0000_0f0f;
            let cases: [(Comparison, &dyn Fn(u64) -> bool); 7] = [
                (Comparison::Equal(value), &|x| x == value),
                (Comparison::NotEqual(value), &|x| x != value),
                (Comparison::Above(value), &|x| x > value),
                (Comparison::AtLeast(value), &|x| x >= value),
                (Comparison::Below(value), &|x| x < value),
                (Comparison::AtMost(value), &|x| x <= value),
                (Comparison::MaskedEqual { mask, value: value & mask }, &|x| x & mask == value & mask),
            ];
            for (comparison, expected) in cases {
                let tests =
                    vec![Test { argument: 3, comparison }, Test { argument: 0, comparison: Comparison::Equal(7) }];
                let verdict = Verdict { conditional: vec![(tests, 1)], otherwise: 2 };
                let code = program(&[(X86_64, vec![(0, verdict)])], 9);
                for argument in values {
                    let got = evaluate(&code, X86_64, 0, [7, 0, 0, argument, 0, 0]);
                    assert_eq!(got == 1, expected(argument), "{comparison:?} {argument:#x}");
                    assert_eq!(evaluate(&code, X86_64, 0, [8, 0, 0, argument, 0, 0]), 2);
                }
            }
        }
    }

    #[test]
    fn the_search_finds_every_number_and_architecture() {
        let verdicts: Vec<(u32, Verdict)> = (0..600).map(|n| (n * 3, Verdict::always(n))).collect();
        let code = program(&[(1, verdicts.clone()), (2, verdicts)], 99_999);
        for number in 0..1800 {
            assert_eq!(evaluate(&code, 1, number, [0; 6]), number / 3);
            assert_eq!(evaluate(&code, 2, number, [0; 6]), number / 3);
        }
        assert_eq!(evaluate(&code, 3, 0, [0; 6]), 99_999);
    }
}
