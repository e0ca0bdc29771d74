//! Processes as /proc shows them (proc(5)): for `top` and `stats`.

use std::fs;

use crate::model::foreign::tamed_line;

/// One process. Times are in clock ticks, memory in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Its number inside the innermost pid namespace.
    pub inner_pid: u32,
    pub parent: u32,
    /// Effective.
    pub uid: u32,
    pub state: char,
    pub ticks: u64,
    pub memory: u64,
    /// At most 15 bytes, as the process names itself (prctl(2), PR_SET_NAME).
    pub name: String,
    /// With its arguments.
    pub command: String,
}

impl Process {
    /// `None` when it has ended.
    pub fn read(pid: u32) -> Option<Process> {
        let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
        let (stat, status, command) = (file("stat")?, file("status")?, file("cmdline")?);
        parse(pid, &String::from_utf8_lossy(&stat), &String::from_utf8_lossy(&status), &command)
    }
}

fn parse(pid: u32, stat: &str, status: &str, command: &[u8]) -> Option<Process> {
    // The name may hold blanks and parentheses; what follows it does not.
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the field behind the name is number 3.
    let field = |number: usize| fields.get(number - 3).copied();
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = line("VmRSS:").and_then(|value| value.split_ascii_whitespace().next()).and_then(|n| n.parse().ok());
    Some(Process {
        pid,
        inner_pid: line("NSpid:")?.split_ascii_whitespace().next_back()?.parse().ok()?,
        parent: field(4)?.parse().ok()?,
        uid: line("Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok()?,
        state: field(3)?.chars().next()?,
        ticks: field(14)?.parse::<u64>().ok()? + field(15)?.parse::<u64>().ok()?,
        memory: kibibytes.unwrap_or(0_u64) * 1024,
        name: tamed_line(name),
        command: match words(command) {
            empty if empty.is_empty() => format!("[{}]", tamed_line(name)),
            words => words,
        },
    })
}

/// The arguments of a process, NUL-terminated, as one line. A process that gave itself a shorter name leaves NULs behind it.
fn words(command: &[u8]) -> String {
    tamed_line(&String::from_utf8_lossy(command).trim_end_matches('\0').replace('\0', " "))
}

/// Bytes received and sent in the network namespace of a process, loopback not counted.
pub fn network_bytes(pid: u32) -> Option<(u64, u64)> {
    fs::read_to_string(format!("/proc/{pid}/net/dev")).ok().map(|table| count(&table))
}

/// All the memory that this host has, in bytes: `MemTotal` of /proc/meminfo (proc(5)), which is in KiB.
pub fn memory_of_host() -> Option<u64> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn count(table: &str) -> (u64, u64) {
    let mut total = (0, 0);
    // Two lines of heading, then `eth0: 1 2 3 ..`: bytes received are the first number, bytes sent the ninth.
    for (name, counters) in table.lines().skip(2).filter_map(|line| line.split_once(':')) {
        if name.trim() != "lo" {
            let number = |n| counters.split_ascii_whitespace().nth(n).and_then(|text| text.parse::<u64>().ok());
            total.0 += number(0).unwrap_or(0);
            total.1 += number(8).unwrap_or(0);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 5 0 0";
        let status = "Name:\ta\nNSpid:\t7\t1\nUid:\t0\t33\t0\t0\nVmRSS:\t  12 kB\n";
        let process = parse(7, stat, status, b"sleep\x0010\0").unwrap();
        assert_eq!((process.parent, process.inner_pid, process.uid, process.state), (1, 1, 33, 'S'));
        assert_eq!((process.ticks, process.memory, process.command.as_str()), (42, 12 * 1024, "sleep 10"));
        assert_eq!(process.name, "a) b (c)");
        assert_eq!(parse(7, stat, status, b"").unwrap().command, "[a) b (c)]");
        assert_eq!(parse(7, stat, status, b"evenkeel-init\0\0\0\0").unwrap().command, "evenkeel-init");
    }

    #[test]
    fn escape_sequences_in_arguments_do_not_reach_the_terminal() {
        assert_eq!(words(b"a\x1b[2Jb\0c\0"), "a\u{fffd}[2Jb c");
    }

    #[test]
    fn this_very_process_is_there() {
        assert_eq!(Process::read(std::process::id()).unwrap().pid, std::process::id());
        assert_eq!(Process::read(u32::MAX), None);
    }

    #[test]
    fn loopback_is_not_traffic() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 100 1 0 0 0 0 0 0 200 2\n";
        assert_eq!(count(table), (100, 200));
    }
}
