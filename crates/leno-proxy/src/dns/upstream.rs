//! One question to one resolver. The sender of an answer is not proved by anything, so it is made hard to guess what one must
//! look like: a fresh random port and id for each question, and an answer from another address, to another id or to another
//! question is not one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use domain::base::iana::Rcode;
use rustls::crypto::SecureRandom;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;

use super::counters::{Count, Counters};
use super::message::{NoReply, Query, Reply, Token, Way};
use crate::dial::Dialer;

/// So many things that are no answer are passed over; then somebody is guessing, and the resolver is asked over TCP, where guessing
/// does not help.
const FOREIGN_MAX: usize = 16;
/// Room for a datagram: resolvers are told that they may send [`super::message::DATAGRAM_BYTES_MAX`], and some send more.
const RECEIVED_BYTES_MAX: usize = 4096;

/// What all questions to resolvers share.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) random: &'static dyn SecureRandom,
    /// In every question, so that one that comes back is recognised.
    pub(crate) token: Token,
    pub(crate) counters: Arc<Counters>,
    /// Makes connections to resolvers, and knows the mark that keeps questions from coming back.
    pub(crate) dialer: Dialer,
}

/// Why a resolver gave no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The network says why.
    Io(io::Error),
    /// It cannot be understood.
    Broken,
    /// It does not want to, or cannot.
    Refused(Rcode),
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Asker {
    /// Asks; the caller limits the time. A resolver that does not understand extensions is asked without.
    pub(crate) async fn ask(&self, server: SocketAddr, query: &Query, way: Way) -> Result<Reply, NoAnswer> {
        let mut reply = self.ask_once(server, query, way, true).await?;
        if matches!(reply.rcode, Rcode::FORMERR | Rcode::NOTIMP) {
            reply = self.ask_once(server, query, way, false).await?;
        }
        match reply.rcode {
            Rcode::NOERROR | Rcode::NXDOMAIN => Ok(reply),
            other => Err(NoAnswer::Refused(other)),
        }
    }

    async fn ask_once(
        &self,
        server: SocketAddr,
        query: &Query,
        way: Way,
        edns: bool,
    ) -> Result<Reply, NoAnswer> {
        if way == Way::Udp
            && let Some(reply) = self.datagram(server, query, edns).await?
        {
            return Ok(reply);
        }
        self.stream(server, query, edns).await
    }

    /// `None`: it has to be asked over TCP.
    async fn datagram(
        &self,
        server: SocketAddr,
        query: &Query,
        edns: bool,
    ) -> Result<Option<Reply>, NoAnswer> {
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // The kernel draws the port at random, and hands out only what comes from the server.
        let socket = UdpSocket::bind((any, 0)).await?;
        if let Some(mark) = self.dialer.mark() {
            socket2::SockRef::from(&socket).set_mark(mark)?;
        }
        socket.connect(server).await?;
        let id = self.id()?;
        socket.send(&query.forward(id, &self.token, edns)).await?;
        let mut buffer = vec![0; RECEIVED_BYTES_MAX];
        for _ in 0..FOREIGN_MAX {
            let length = socket.recv(&mut buffer).await?;
            match Reply::parse(buffer.get(..length).unwrap_or_default(), query, id) {
                Ok(reply) => return Ok(Some(reply)),
                Err(NoReply::Truncated) => return Ok(None),
                Err(NoReply::Broken) => return Err(NoAnswer::Broken),
                Err(NoReply::Foreign) => self.counters.bump(Count::Foreign),
            }
        }
        Ok(None)
    }

    async fn stream(&self, server: SocketAddr, query: &Query, edns: bool) -> Result<Reply, NoAnswer> {
        let mut stream = self.dialer.connect(server).await?;
        stream.set_nodelay(true)?;
        let id = self.id()?;
        stream.write_all(&framed(&query.forward(id, &self.token, edns))).await?;
        let length = stream.read_u16().await?;
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await?;
        Reply::parse(&bytes, query, id).map_err(|_| NoAnswer::Broken)
    }

    fn id(&self) -> io::Result<u16> {
        let mut id = [0; 2];
        self.random.fill(&mut id).map_err(|_| io::Error::other("the system has no random numbers"))?;
        Ok(u16::from_be_bytes(id))
    }
}

/// A message as it travels in a stream: behind its length (RFC 1035 §4.2.2).
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend_from_slice(message.get(..length.into()).unwrap_or(message));
    framed
}
