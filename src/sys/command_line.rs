//! proc_pid_cmdline(5): what ps(1) shows as a process's command line is memory of the process itself.

use std::io;
use std::ops::Range;

/// Shows `title` as the command line of this process, cut to the length of its arguments. No byte of them is left.
/// /proc must be the kernel's own: addresses are read from it.
pub fn show(title: &[u8]) -> io::Result<()> {
    let area = area(&std::fs::read_to_string("/proc/self/stat")?).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat does not say where arguments are")
    })?;
    let length = title.len().min(area.len().saturating_sub(1));
    let start = area.start as *mut u8;
    // SAFETY: the kernel has put the arguments there (proc_pid_stat(5), `arg_start` and `arg_end`), on the stack, where
    // they stay readable and writable until execve(2). Rust's runtime copies them whenever it is asked for them, as
    // strings that end in a zero byte, and the last byte of the area stays one. `length` is within the area.
    unsafe {
        std::ptr::write_bytes(start, 0, area.len());
        std::ptr::copy_nonoverlapping(title.as_ptr(), start, length);
    }
    Ok(())
}

/// `arg_start` and `arg_end` are fields 48 and 49. The second is the program's name in parentheses and may contain any
/// character.
fn area(stat: &str) -> Option<Range<usize>> {
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split_ascii_whitespace().skip(48 - 3);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (start != 0 && start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_where_the_kernel_says() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let area = area(&stat).unwrap();
        let arguments = std::fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(area.len(), arguments.len());
        assert_eq!(super::area("1 (a) b) R 0"), None);
    }
}
