//! Why a message is refused: one table from error to word, status and sentence.

use core::fmt;

/// A message that was refused. The connection it came on must be closed: where the next message would begin is not
/// known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the table below has one sentence for each")]
pub enum ParseError {
    // Lines
    LineEnd,
    LeadingEmptyLines,
    HeadTooLarge,
    TooManyFields,
    FieldName,
    FieldValue,
    LineFolding,
    // Request line
    Method,
    MethodTooLong,
    Target,
    TargetTooLong,
    TargetForm,
    TargetUserinfo,
    TargetScheme,
    Version,
    VersionUnsupported,
    // Status line
    StatusCode,
    ReasonPhrase,
    // What the fields say
    HostMissing,
    HostRepeated,
    HostInvalid,
    ContentLengthInvalid,
    ContentLengthRepeated,
    LengthAndTransferEncoding,
    TransferEncodingUnsupported,
    TransferEncodingInHttp10,
    ConnectWithBody,
    Expectation,
    InterimWithBody,
    UpgradeNotAsked,
    // Bodies
    ChunkSize,
    ChunkLineTooLong,
    ChunkExtensionsTooLong,
    ChunkEnd,
    TrailersTooLarge,
    Truncated,
}

impl ParseError {
    /// Every error, for tables in tests and documents.
    pub const ALL: &'static [Self] = &[
        Self::LineEnd,
        Self::LeadingEmptyLines,
        Self::HeadTooLarge,
        Self::TooManyFields,
        Self::FieldName,
        Self::FieldValue,
        Self::LineFolding,
        Self::Method,
        Self::MethodTooLong,
        Self::Target,
        Self::TargetTooLong,
        Self::TargetForm,
        Self::TargetUserinfo,
        Self::TargetScheme,
        Self::Version,
        Self::VersionUnsupported,
        Self::StatusCode,
        Self::ReasonPhrase,
        Self::HostMissing,
        Self::HostRepeated,
        Self::HostInvalid,
        Self::ContentLengthInvalid,
        Self::ContentLengthRepeated,
        Self::LengthAndTransferEncoding,
        Self::TransferEncodingUnsupported,
        Self::TransferEncodingInHttp10,
        Self::ConnectWithBody,
        Self::Expectation,
        Self::InterimWithBody,
        Self::UpgradeNotAsked,
        Self::ChunkSize,
        Self::ChunkLineTooLong,
        Self::ChunkExtensionsTooLong,
        Self::ChunkEnd,
        Self::TrailersTooLarge,
        Self::Truncated,
    ];

    /// The status to answer a *request* with that has this error. For a response that has it, the server is to
    /// blame and its client gets [`Self::BAD_RESPONSE_STATUS`].
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// What the client gets when a server's response is refused (RFC 9110 §15.6.3).
    pub const BAD_RESPONSE_STATUS: u16 = 502;

    /// A stable `snake_case` word for metrics, logs and tests.
    pub const fn reason(self) -> &'static str {
        self.row().1
    }

    /// The table.
    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::LineEnd => (400, "line_end", "a line does not end in CRLF"),
            Self::LeadingEmptyLines => {
                (400, "leading_empty_lines", "too many empty lines before the request")
            }
            Self::HeadTooLarge => (431, "head_too_large", "the head is longer than the limit"),
            Self::TooManyFields => (431, "too_many_fields", "there are more header fields than the limit"),
            Self::FieldName => (
                400,
                "field_name",
                "a field name is empty, has a character that is not allowed, or no colon after it",
            ),
            Self::FieldValue => (400, "field_value", "a field value contains a control character"),
            Self::LineFolding => (400, "line_folding", "a field line is continued on the next line"),
            Self::Method => (400, "method", "the method is not a token followed by one space"),
            Self::MethodTooLong => {
                (501, "method_too_long", "the method is longer than any that is implemented")
            }
            Self::Target => {
                (400, "target", "the request target is empty or has a character that is not allowed")
            }
            Self::TargetTooLong => (414, "target_too_long", "the request target is longer than the limit"),
            Self::TargetForm => {
                (400, "target_form", "the request target does not have a form that its method may use")
            }
            Self::TargetUserinfo => (400, "target_userinfo", "the request target names a user"),
            Self::TargetScheme => (421, "target_scheme", "the scheme of the request target is not http"),
            Self::Version => (400, "version", "the start line has no HTTP version where it belongs"),
            Self::VersionUnsupported => {
                (505, "version_unsupported", "the version is neither HTTP/1.0 nor HTTP/1.1")
            }
            Self::StatusCode => (400, "status_code", "the status code is not a number from 100 to 999"),
            Self::ReasonPhrase => (400, "reason_phrase", "the reason phrase contains a control character"),
            Self::HostMissing => (400, "host_missing", "an HTTP/1.1 request has no Host field"),
            Self::HostRepeated => (400, "host_repeated", "there is more than one Host field"),
            Self::HostInvalid => {
                (400, "host_invalid", "the host is not a name or address with an optional port")
            }
            Self::ContentLengthInvalid => {
                (400, "content_length_invalid", "Content-Length is not a number of bytes below 2^63")
            }
            Self::ContentLengthRepeated => {
                (400, "content_length_repeated", "there is more than one Content-Length")
            }
            Self::LengthAndTransferEncoding => {
                (400, "length_and_transfer_encoding", "there are both Content-Length and Transfer-Encoding")
            }
            Self::TransferEncodingUnsupported => {
                (501, "transfer_encoding_unsupported", "Transfer-Encoding is something else than one chunked")
            }
            Self::TransferEncodingInHttp10 => {
                (400, "transfer_encoding_in_http10", "there is a Transfer-Encoding in an HTTP/1.0 message")
            }
            Self::ConnectWithBody => (400, "connect_with_body", "a CONNECT request announces a body"),
            Self::Expectation => (417, "expectation", "an expectation other than 100-continue cannot be met"),
            Self::InterimWithBody => (400, "interim_with_body", "a 1xx response announces a body"),
            Self::UpgradeNotAsked => {
                (400, "upgrade_not_asked", "a 101 response came although no upgrade was asked for")
            }
            Self::ChunkSize => (
                400,
                "chunk_size",
                "a chunk size is not a hexadecimal number below 2^63 followed by CRLF or an extension",
            ),
            Self::ChunkLineTooLong => {
                (400, "chunk_line_too_long", "a chunk size line is longer than the limit")
            }
            Self::ChunkExtensionsTooLong => {
                (400, "chunk_extensions_too_long", "chunk extensions are longer than the limit")
            }
            Self::ChunkEnd => (400, "chunk_end", "chunk data is not followed by CRLF"),
            Self::TrailersTooLarge => {
                (431, "trailers_too_large", "the trailer section is longer than the limit")
            }
            Self::Truncated => (400, "truncated", "the connection ended in the middle of the message"),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().2)
    }
}

impl core::error::Error for ParseError {}
