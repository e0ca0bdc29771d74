//! Processes that ended. A monitor is a child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): what its copies start
//! becomes its own child when the copy is gone.

use std::io;

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::model::status::Exit;
use crate::model::units::Signal;

/// Takes the next ended child in; `None` when no other has ended.
pub fn reap() -> io::Result<Option<(Pid, Exit)>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => return Ok(Some((pid, exit_of(status)))),
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal().and_then(Signal::from_number)) {
        (_, Some(signal)) => Exit::Signal(signal),
        // wait(2) gives eight bits.
        (code, None) => Exit::Code(code.unwrap_or_default() as u8),
    }
}
