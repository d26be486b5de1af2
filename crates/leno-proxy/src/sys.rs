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

/// Gives the calling thread a new network namespace with nothing in it.
pub(crate) fn leave_network_namespace() -> std::io::Result<()> {
    // SAFETY: of the things that unshare(2) can separate, only the table of file descriptors is one that other code relies on;
    // a network namespace is what sockets made later by this thread belong to.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET)? };
    Ok(())
}
