//! Open control streams, for status.

use leno_core::index::SubscriberId;
use leno_core::name::ServiceId;
use leno_core::session::Server;

use super::Registry;

/// What is shown of a stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamView {
    /// The service of the peer's certificate.
    pub(crate) service: ServiceId,
    /// What the peer calls itself; empty until its first request.
    pub(crate) node: String,
    /// Everything told is answered.
    pub(crate) settled: bool,
    /// Up to this generation everything is acknowledged.
    pub(crate) acknowledged: u64,
    /// What it refused, with reasons; the first [`REJECTED_SHOWN_MAX`].
    pub(crate) rejected: Vec<(String, String)>,
}

impl Registry {
    /// A stream was opened by a peer with the certificate of `service`.
    pub(crate) fn open_stream(&mut self, service: ServiceId) -> SubscriberId {
        let id = SubscriberId(self.next_number());
        let view = StreamView {
            service,
            node: String::new(),
            settled: false,
            acknowledged: 0,
            rejected: Vec::new(),
        };
        self.streams.insert(id, view);
        id
    }

    /// Names the peer of a stream.
    pub(crate) fn name_stream(&mut self, id: SubscriberId, node: String) {
        if let Some(view) = self.streams.get_mut(&id) {
            view.node = node;
        }
    }

    /// Shows how far a stream is.
    pub(crate) fn show_stream(&mut self, id: SubscriberId, session: &Server) {
        let generation = self.generation();
        if let Some(view) = self.streams.get_mut(&id) {
            view.settled = session.is_settled();
            view.acknowledged = session.acknowledged(generation);
            let refused = session.rejected().take(REJECTED_SHOWN_MAX);
            view.rejected = refused.map(|(key, reason)| (key.to_string(), reason.to_owned())).collect();
        }
    }

    /// A stream is gone.
    pub(crate) fn close_stream(&mut self, id: SubscriberId) {
        self.streams.remove(&id);
        self.index.leave(id);
    }
}

/// Most refused resources that are shown per stream.
const REJECTED_SHOWN_MAX: usize = 16;
