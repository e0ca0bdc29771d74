//! The step from a process that nobody in a container sees to one that lives beside the container's processes (see
//! `exec`, "Decisions").

use std::os::fd::AsFd;

use super::error::{Context, RuntimeError};
use super::handshake::{Channel, Word};
use super::program::Program;
use super::{capabilities, init};
use crate::sys::clone::{Copy, OneThread, clone_sibling, exit_now};

/// Gives up what the program does not get, makes a copy where the next child is born, says so, and ends. Returns in the
/// copy, once the parent knows of it. Root, directories and descriptors are the container's already.
pub(super) fn become_visible(
    program: &Program,
    subject: &'static str,
    channel: &Channel,
    one_thread: &OneThread,
) -> Result<OneThread, RuntimeError> {
    capabilities::limit_bounding(&program.capabilities)?;
    capabilities::keep_within(program.needed_capabilities())?;
    // Another user may have made it dumpable again (prctl(2), `PR_SET_DUMPABLE`).
    init::hide()?;
    match clone_sibling(one_thread, 0).during("make", subject)? {
        Copy::Parent { pid, pidfd } => {
            channel.born(pid, pidfd.as_fd()).during("report to", "the parent")?;
            exit_now(0)
        }
        Copy::Child(one_thread) => {
            // Whoever made it may be slower to say so than it is to get ready.
            channel.expect(Word::Known).during("wait for", "the word that it is known")?;
            init::begin_session()?;
            init::tell_agent(program)?;
            Ok(one_thread)
        }
    }
}
