//! The cases: what is sent after the prefaces, and what the specification wants to come back.

mod compression;
mod connection;
mod exchange;
mod fields;
mod flow;
mod settings;
mod states;

use crate::frame::{END_HEADERS, WHOLE, headers};
use crate::hpack::block;
use crate::peer::{Outcome, Peer};

/// One rule and its test.
pub(crate) struct Case {
    /// Of RFC 9113, or of the document that is named.
    pub(crate) section: &'static str,
    pub(crate) title: &'static str,
    run: Box<dyn Fn(&mut Peer) -> Outcome + Send + Sync>,
}

/// Bytes that a case sends.
type Sends = fn() -> Vec<u8>;

impl Case {
    /// Sends, and the connection has to be ended with one of these codes.
    fn connection_error(
        section: &'static str,
        title: &'static str,
        codes: &'static [u32],
        sends: Sends,
    ) -> Self {
        Self::after_hands(section, title, move |peer| {
            peer.send(&sends());
            peer.connection_error(codes)
        })
    }

    /// Sends, and stream 1 has to be reset with one of these codes.
    fn stream_error(section: &'static str, title: &'static str, codes: &'static [u32], sends: Sends) -> Self {
        Self::after_hands(section, title, move |peer| {
            peer.send(&sends());
            peer.stream_error(1, codes)
        })
    }

    /// Sends, and stream 1 has to be answered.
    fn answer(section: &'static str, title: &'static str, sends: Sends) -> Self {
        Self::after_hands(section, title, move |peer| {
            peer.send(&sends());
            peer.answer(1)
        })
    }

    /// Sends, and the connection has to live on.
    fn ignored(section: &'static str, title: &'static str, sends: Sends) -> Self {
        Self::after_hands(section, title, move |peer| {
            peer.send(&sends());
            peer.pong()
        })
    }

    /// Anything, on a connection whose prefaces are exchanged.
    fn after_hands(
        section: &'static str,
        title: &'static str,
        run: impl Fn(&mut Peer) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self::bare(section, title, move |peer| {
            peer.shake_hands()?;
            run(peer)
        })
    }

    /// Anything, on a new connection.
    fn bare(
        section: &'static str,
        title: &'static str,
        run: impl Fn(&mut Peer) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self { section, title, run: Box::new(run) }
    }

    /// How it is called in lists.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.section, self.title)
    }

    pub(crate) fn run(&self, peer: &mut Peer) -> Outcome {
        (self.run)(peer)
    }
}

/// All of them, in the order of the specifications' sections.
pub(crate) fn all() -> Vec<Case> {
    [
        connection::cases(),
        states::cases(),
        settings::cases(),
        flow::cases(),
        exchange::cases(),
        fields::cases(),
        compression::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The path whose answer is short and comes at once.
pub(crate) const HERE: &str = "/";
/// The path that is never answered.
pub(crate) const HOLD: &str = "/hold";
/// The path with a long answer.
pub(crate) const LONG: &str = "/long";

/// A request's block without anything special.
pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    request_with(method, path, &[])
}

/// The same with more fields.
pub(crate) fn request_with(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields =
        vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "server")];
    fields.extend(more);
    block(&fields)
}

/// A whole GET.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, WHOLE, &request("GET", path))
}

/// A POST whose body is still to come.
pub(crate) fn post(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_HEADERS, &request("POST", path))
}
