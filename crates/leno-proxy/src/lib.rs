//! Leno's data plane: sockets around the core
