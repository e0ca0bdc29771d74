//! Time namespaces: a boot time and a monotonic clock of the container's own (time_namespaces(7)).
//!
//! Offsets are written before the first process enters, and by a descriptor that is opened while this process is still
//! the host's user: the kernel asks what that user may do.

use std::fs::File;
use std::io::Write;

use oci_spec::runtime::Linux;

use super::error::{Context, RuntimeError, invalid};
use crate::sys::namespace::unshare;

const FILE: &str = "/proc/self/timens_offsets";

/// What is added to the host's clocks, a line for each as the kernel reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offsets(String);

/// Reads `linux.timeOffsets`.
pub(super) fn offsets(linux: &Linux) -> Result<Offsets, RuntimeError> {
    let mut lines = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let field = format!("linux.timeOffsets.{clock}");
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            return Err(invalid(field, "the clocks are `monotonic` and `boottime`"));
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanoseconds >= 1_000_000_000 {
            return Err(invalid(field, "a second has 1000000000 nanoseconds"));
        }
        lines.push(format!("{clock} {seconds} {nanoseconds}\n"));
    }
    lines.sort_unstable();
    Ok(Offsets(lines.concat()))
}

/// The way to write offsets later, opened now.
pub(super) fn open() -> Result<File, RuntimeError> {
    File::options().write(true).open(FILE).during("open", FILE)
}

/// Makes a namespace with these offsets for the children of this process.
pub(super) fn make(mut file: File, Offsets(lines): &Offsets) -> Result<(), RuntimeError> {
    unshare(libc::CLONE_NEWTIME).during("make", "a time namespace")?;
    match lines.is_empty() {
        true => Ok(()),
        false => file.write_all(lines.as_bytes()).during("set the clocks to", lines.trim_end()),
    }
}
