//! Messages between Leno's processes
