//! What one message may cost before it is refused.

/// Limits of one message. The defaults are what a busy proxy has been shown to live with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Start line and header fields together, with the empty line, in bytes. Default 64 KiB; precedents: Envoy
    /// 60 KiB, nginx 32 KiB, Node 16 KiB. At most `u32::MAX`.
    pub head_bytes_max: usize,
    /// Header fields of one head, or trailer fields of one body. Default 100; precedents: Envoy and Apache 100.
    pub fields_max: usize,
    /// Method token, in bytes. Default 32; the longest registered one has 16 (`UPDATEREDIRECTREF` 17).
    pub method_bytes_max: usize,
    /// Request target, in bytes. Default 16 KiB; RFC 9112 §3 asks for at least 8000.
    pub target_bytes_max: usize,
    /// A chunk's size line with its extensions and CRLF, in bytes. Default 256: a size has at most 16 digits and
    /// extensions are dropped.
    pub chunk_line_bytes_max: usize,
    /// Chunk extensions of one body together, in bytes. Default 16 KiB, as in Go: without it a body of one-byte
    /// chunks could make us read hundreds of bytes for each byte that we forward.
    pub chunk_extension_bytes_max: usize,
    /// Trailer section with its empty line, in bytes. Default 8 KiB. It is the only part of a message that is
    /// copied, because it may straddle reads.
    pub trailer_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            fields_max: 100,
            method_bytes_max: 32,
            target_bytes_max: 16 * 1024,
            chunk_line_bytes_max: 256,
            chunk_extension_bytes_max: 16 * 1024,
            trailer_bytes_max: 8 * 1024,
        }
    }
}
