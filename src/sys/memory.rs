//! Memory that is given back: mallopt(3), malloc_trim(3), madvise(2). For processes that mostly sleep.

/// How a program is started so that glibc keeps no cache of freed blocks: this environment variable with this value
/// (GNU C Library manual, "Memory Allocation Tunables"). No call switches it off later.
pub const NO_CACHE: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");

/// Serves every request of 16 KiB and more by a mapping of its own, which is returned when it is freed, joins freed
/// blocks at once, and trims the heap as soon as a page at its end is free. Without this glibc moves its threshold up
/// with the first large block that is freed, and keeps the memory of later ones for good.
pub fn give_back_what_is_freed() {
    // SAFETY: mallopt takes two numbers. The process has one thread here, so no allocation is under way.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 16 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 0);
        libc::mallopt(libc::M_MXFAST, 0);
    }
}

/// Gives back whole free pages inside the heap, and those of the stack that returned calls have used. On the main thread
/// only: the stack of another one may have something else right below it.
pub fn trim() {
    // SAFETY: malloc_trim takes a number and may be called at any time.
    unsafe { libc::malloc_trim(0) };
    trim_stack();
}

/// As much of a stack as deep calls have used and as lies within what exec has mapped (128 KiB).
const DEEP: usize = 64 * 1024;

/// What a call to madvise and this function itself need, the red zone included.
const OWN_FRAMES: usize = 1024;

/// The size of a page of this kernel: some processors leave the choice to it.
pub fn page_size() -> usize {
    // SAFETY: sysconf takes a number; this one always has an answer (sysconf(3)).
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

#[inline(never)]
fn trim_stack() {
    let local = 0_u8;
    let end = ((&raw const local).addr() - OWN_FRAMES) & !(page_size() - 1);
    // SAFETY: the stack grows down, so below the frames of this call nothing is in use, and a page that was dropped
    // reads as zeros when a later call comes to it. Of what may not be the stack's any more, the 1 MiB below its
    // lowest page is never mapped (stack_guard_gap). An error, ENOMEM for such a hole, changes nothing.
    unsafe { libc::madvise(std::ptr::without_provenance_mut(end - DEEP), DEEP, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_in_use_outlives_a_trim() {
        let (on_stack, on_heap) = ([7_u8; 9000], vec![7_u8; 9000]);
        super::trim();
        assert_eq!(on_stack.to_vec(), on_heap);
    }
}
