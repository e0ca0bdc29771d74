//! The mount namespace that a build has for itself.
//!
//! What is mounted in it is seen by the commands of the build and by nobody else, and is gone with its last process,
//! whatever ends that:
//!
//! ```text
//! layers/<diff id>/mounted    a layer that is an image, attached when the first instruction needs it
//! <staged>/secrets            the memory that secrets are in while a command runs
//! ```
//!
//! # Decisions
//! * Every mount of a layer that is an image is a file system of its own to the kernel, with a cache of its own and a line
//!   in the kernel's log. Here they are found by each instruction of the build, so there is one for each layer. In the
//!   host's namespace they would outlive a build that is killed.
//! * The host's mounts and unmounts are followed, so that a long build keeps no disk of the host busy.
//! * Behind chroot(2) the root may be no mount, and nothing there can name the one that it is in. There a build goes on,
//!   and where that mount is shared the host sees what is mounted for it, and keeps it. No secret is mounted then.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::engine::image::error::ImageError;

/// Does `what` on a thread whose mounts are its own, and those of the threads and processes that it starts.
pub fn apart<T: Send>(what: impl FnOnce() -> Result<T, ImageError> + Send) -> Result<T, ImageError> {
    let done = std::thread::scope(|scope| scope.spawn(|| leave().and_then(|()| what())).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn leave() -> Result<(), ImageError> {
    let failed = |source: io::Error| ImageError::file("make a mount namespace of", Path::new("/"))(source);
    // The working directory and the root become this thread's too (unshare(2), CLONE_NEWNS), so no other one is moved.
    crate::sys::namespace::unshare(libc::CLONE_NEWNS).map_err(failed)?;
    match mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC) {
        // mount(2): the target is not a mount point.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Whether nobody else sees what this thread mounts, or keeps it; within [`apart`].
pub fn is_apart() -> bool {
    // The same again changes nothing.
    mount_change("/", MountPropagationFlags::DOWNSTREAM).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_is_no_mount_is_enough() {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let directory = tempfile::tempdir().unwrap();
        let entered = || {
            // The root of this thread alone (unshare(2), CLONE_NEWNS).
            crate::sys::namespace::unshare(libc::CLONE_NEWNS).unwrap();
            rustix::process::chroot(directory.path()).unwrap();
            apart(|| Ok(is_apart()))
        };
        let is_apart_there = std::thread::scope(|scope| scope.spawn(entered).join()).unwrap().unwrap();
        assert!(!is_apart_there, "the host may see its mounts");
        assert!(apart(|| Ok(is_apart())).unwrap());
    }
}
