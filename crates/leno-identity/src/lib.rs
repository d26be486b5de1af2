//! Keys, certificates, join tokens and who a peer is
