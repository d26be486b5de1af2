//! Leno's control plane: registry, authority, configuration server
