//! The system calls and library functions that have no safe wrapper. The only module with `unsafe` code.
#![allow(unsafe_code, reason = "each block has its argument beside it")]

/// Gives free memory of the allocator back to the system.
pub(crate) fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) may be called by any thread at any time; it takes the allocator's own locks and touches
    // free memory only. With another allocator in front of it, it finds nothing to do.
    unsafe {
        libc::malloc_trim(0);
    }
}
