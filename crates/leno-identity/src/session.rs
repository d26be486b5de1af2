//! A TLS 1.3 session over bytes, for connections between two proxies: rustls shakes hands ([`Handshake`]) and keeps the
//! secrets, [`Records`] seals and opens what follows where it lies.
//!
//! rustls takes one record from each read, opens it into memory of its own and copies it out from there; for bulk that is
//! most of what a sidecar does. This is rustls' interface for kernels that do the records themselves
//! ([`rustls::kernel`]), without the kernel: it works on every machine, and the other end cannot tell.

use core::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, InvalidMessage, ServerConfig};

use crate::tls::server_name;

mod records;

pub use records::{Opened, RECORD_BYTES_MAX, RECORD_OVERHEAD, RECORD_PLAIN_MAX, Records};

/// What a peer may have us keep before its handshake is over, in bytes: rustls' own limit for one message is 64 KiB, and
/// its certificates and their proof come together.
pub const HANDSHAKE_BYTES_MAX: usize = 96 * 1024;

/// A handshake under way.
pub struct Handshake {
    connection: Connection,
    /// Bytes of the peer that rustls has not done with.
    received: Vec<u8>,
    /// What is to be sent.
    output: Vec<u8>,
    /// What the peer said in the same breath as the last words of its handshake.
    early: Vec<u8>,
}

enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The peer's next bytes are needed.
    Waiting,
    /// It is over.
    Done,
}

/// What a handshake has led to.
#[derive(Debug)]
pub struct Established {
    /// Seals and opens everything from now on.
    pub records: Records,
    /// What the peer has said already.
    pub early: Vec<u8>,
    /// Records of the peer that came with its handshake and are still sealed.
    pub sealed: Vec<u8>,
}

impl Handshake {
    /// Begins one with a server.
    ///
    /// # Errors
    /// The configuration is not one that rustls accepts.
    pub fn client(config: Arc<ClientConfig>) -> Result<Self, Error> {
        let connection = UnbufferedClientConnection::new(config, server_name())?;
        Ok(Self::new(Connection::Client(Box::new(connection))))
    }

    /// Awaits one of a client.
    ///
    /// # Errors
    /// The configuration is not one that rustls accepts.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(Connection::Server(Box::new(connection))))
    }

    const fn new(connection: Connection) -> Self {
        Self { connection, received: Vec::new(), output: Vec::new(), early: Vec::new() }
    }

    /// Takes what the peer has sent, and goes on as far as that leads. Send [`Handshake::output`] after each call, also
    /// after one that failed: the peer is told why.
    ///
    /// # Errors
    /// There will be no session: what is wrong with the peer, or what it says is wrong with us.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Progress, Error> {
        if self.received.len() + bytes.len() > HANDSHAKE_BYTES_MAX {
            return Err(Error::InvalidMessage(InvalidMessage::MessageTooLarge));
        }
        self.received.extend_from_slice(bytes);
        let Self { connection, received, output, early } = self;
        let result = loop {
            let (discard, step) = match connection {
                Connection::Client(client) => step(client.process_tls_records(received), output, early),
                Connection::Server(server) => step(server.process_tls_records(received), output, early),
            };
            received.drain(..discard.min(received.len()));
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Over(progress)) => break Ok(progress),
                Err(error) => break Err(error),
            }
        };
        if result.is_err() {
            self.say_why();
        }
        result
    }

    /// Puts the alert for a failure, if there is one, into the output.
    fn say_why(&mut self) {
        let Self { connection, received, output, early } = self;
        // With what is left of the bytes: rustls may remember places in them.
        let _ = match connection {
            Connection::Client(client) => step(client.process_tls_records(received), output, early),
            Connection::Server(server) => step(server.process_tls_records(received), output, early),
        };
    }

    /// What is to be sent to the peer; take it out.
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The protocol that both agreed on by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.common().alpn_protocol()
    }

    /// The peer's certificates, its own first; rustls has checked them.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.common().peer_certificates().unwrap_or(&[])
    }

    /// Ends a handshake that is [`Progress::Done`].
    ///
    /// # Errors
    /// It is not, or the session is none of TLS 1.3.
    pub fn finish(self) -> Result<Established, Error> {
        let records = match self.connection {
            Connection::Client(client) => {
                let (secrets, kernel) = client.dangerous_into_kernel_connection()?;
                Records::new(secrets, records::Keys::Client(kernel))?
            }
            Connection::Server(server) => {
                let (secrets, kernel) = server.dangerous_into_kernel_connection()?;
                Records::new(secrets, records::Keys::Server(kernel))?
            }
        };
        Ok(Established { records, early: self.early, sealed: self.received })
    }

    fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Client(client) => client,
            Connection::Server(server) => server,
        }
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match &self.connection {
            Connection::Client(_) => "client",
            Connection::Server(_) => "server",
        };
        f.debug_struct("Handshake").field("side", &side).finish_non_exhaustive()
    }
}

/// What follows from one step.
enum Step {
    Again,
    Over(Progress),
}

/// Does what rustls wants done now. Returns the bytes that it has done with, too.
fn step<Side>(
    status: UnbufferedStatus<'_, '_, Side>,
    output: &mut Vec<u8>,
    early: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let length = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => required_size,
                _ => 0,
            };
            let start = output.len();
            output.resize(start + length, 0);
            match data.encode(output.get_mut(start..).unwrap_or(&mut [])) {
                Ok(_) => Ok(Step::Again),
                Err(error) => Err(Error::General(error.to_string())),
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // It is: the caller sends the output before anything else.
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    early.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Over(Progress::Waiting)),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Over(Progress::Done)),
        // The peer has said farewell, or something that no configuration of ours allows.
        Ok(_) => Err(Error::HandshakeNotComplete),
    };
    (discard, step)
}
