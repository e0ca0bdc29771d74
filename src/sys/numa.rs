//! set_mempolicy(2): from which memory nodes this thread, and what it becomes by execve(2), gets its memory.

use std::io;

/// Sets the policy; `mode` holds its flags too. `nodes` is a mask, lowest node first; none is no mask at all.
pub fn set_memory_policy(mode: i32, nodes: &[libc::c_ulong]) -> io::Result<()> {
    let (mask, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        // The kernel takes one bit less than it is told.
        nodes => (nodes.as_ptr(), nodes.len() * libc::c_ulong::BITS as usize + 1),
    };
    // SAFETY: the kernel reads the `nodes.len()` words at `mask`, rounded up from bits less one, and keeps no pointer.
    match unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
