//! mallopt(3): an allocator that gives back what is freed.

/// Serves every request of 16 KiB and more by a mapping of its own, which is returned when it is freed, and trims the
/// heap as soon as a page at its end is free. Without this glibc moves its threshold up with the first large block that
/// is freed, and keeps the memory of later ones for good. A speed for size bargain, for processes that mostly sleep.
pub fn give_back_what_is_freed() {
    // SAFETY: mallopt takes two numbers. The process has one thread here, so no allocation is under way.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 16 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 0);
    }
}

/// Gives whole free pages inside the heap back too (malloc_trim(3)).
pub fn trim() {
    // SAFETY: malloc_trim takes a number and may be called at any time.
    unsafe { libc::malloc_trim(0) };
}
