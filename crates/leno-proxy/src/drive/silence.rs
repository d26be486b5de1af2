//! Answers between whose parts any time may pass.

use leno_core::head::ResponseHead;

/// The media type of server-sent events.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// True for server-sent events, between which any time may pass.
pub(super) fn is_event_stream(head: &ResponseHead<'_>) -> bool {
    let kind = head.fields.get_named(b"content-type").unwrap_or(&[]);
    kind.get(..EVENT_STREAM.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
}
