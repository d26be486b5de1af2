//! Unary gRPC calls with a message of 128 bytes both ways: a client that makes them and an upstream that answers.
//!
//! Each message holds a number that no other call of the run has, and the answer must be the same message: an answer
//! that is another call's is a wrong one.

pub(crate) mod client;
pub(crate) mod upstream;

/// What is called.
const PATH: &[u8] = b"/bench.Echo/Unary";
const AUTHORITY: &[u8] = b"app.bench";
const CONTENT_TYPE: &[u8] = b"application/grpc";
/// A message with its prefix: not compressed, and its length.
const MESSAGE_BYTES: usize = 5 + BODY_BYTES;
const BODY_BYTES: usize = 128;

/// The message of a call.
fn message(number: u64) -> [u8; MESSAGE_BYTES] {
    let mut message = [b'm'; MESSAGE_BYTES];
    message[..5].copy_from_slice(&[0, 0, 0, 0, 128]);
    message[5..13].copy_from_slice(&number.to_be_bytes());
    message
}

/// An error unless these bytes are some call's message.
fn check(bytes: &[u8]) -> Result<(), String> {
    let number = bytes.get(5..13).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    if bytes == message(number) { Ok(()) } else { Err(format!("a wrong message of {} bytes", bytes.len())) }
}

/// A field that the other end remembers. Its name is a number of the static table, or as it is.
fn remembered(name: Name, value: &[u8], into: &mut Vec<u8>) {
    let text = |bytes: &[u8], into: &mut Vec<u8>| {
        into.push(u8::try_from(bytes.len()).unwrap_or(0));
        into.extend_from_slice(bytes);
    };
    match name {
        Name::Known(number) => into.push(0x40 | number),
        Name::New(name) => {
            into.push(0x40);
            text(name, into);
        }
    }
    text(value, into);
}

enum Name {
    Known(u8),
    New(&'static [u8]),
}
