//! A pseudo-terminal from the container's own devpts.
//!
//! The master side goes to the parent, the slave side becomes the standard descriptors, the controlling terminal and
//! /dev/console. No name is opened on the way: the slave comes from the master itself (ioctl_tty(2), `TIOCGPTPEER`),
//! so nothing that an image or a neighbour puts in its place can be taken for it (CVE-2025-52565).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::error::{Context, RuntimeError};
use super::launch::Lines;
use super::paths::{self, Kind, Links};
use super::rootfs::attach;

/// Both sides of a terminal.
pub(super) struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// A new terminal of the devpts instance whose root directory is `devpts`.
pub(super) fn open(devpts: BorrowedFd<'_>, size: Option<Winsize>, lines: Lines) -> Result<Terminal, RuntimeError> {
    let step = "open a terminal of";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = openat(devpts, "ptmx", flags, Mode::empty()).during(step, "/dev/pts")?;
    unlockpt(&master).during(step, "/dev/pts")?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .during(step, "/dev/pts")?;
    if let Some(size) = size {
        tcsetwinsize(&master, size).during("set the size of", "the terminal")?;
    }
    if lines == Lines::Kept {
        let step = "set the modes of";
        let mut modes = tcgetattr(&master).during(step, "the terminal")?;
        modes.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(&master, OptionalActions::Now, &modes).during(step, "the terminal")?;
    }
    Ok(Terminal { master, slave })
}

/// Shows the terminal as the container's /dev/console.
pub(super) fn show_as_console(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let name = Path::new("/dev/console");
    let place = paths::ensure(root, name, Kind::File, Links::Refused).during("make", name.display())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let console = open_tree(slave, "", flags).during("show the terminal as", name.display())?;
    attach(console.as_fd(), place.as_fd(), name)
}

/// Makes the terminal the controlling one of this session, whose leader this process must be.
pub(super) fn take_control(slave: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    ioctl_tiocsctty(slave).during("take control of", "the terminal")
}

/// Gives the terminal to the user that will work at it; its group stays what devpts says.
pub(super) fn give_to(slave: BorrowedFd<'_>, uid: u32) -> Result<(), RuntimeError> {
    fchown(slave, Some(Uid::from_raw(uid)), None::<Gid>).during("give away", "the terminal")
}
