//! The far end: does what it is told in the first bytes of each connection.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;

use super::{EXCHANGE_BYTES, ORDER_BYTES, Order, PIECE_BYTES, Pattern, RECEIPT_BYTES};
use crate::listen::{Peer, Served};

/// One connection.
pub(crate) struct Serving {
    stream: TcpStream,
    order: Option<Order>,
    /// What came before the order was whole, or the exchange's bytes.
    head: Vec<u8>,
    /// Bytes so far, without the order.
    place: usize,
    /// Receipts that have to be sent.
    owed: usize,
    pattern: Rc<Pattern>,
}

thread_local! {
    static PATTERN: Rc<Pattern> = Rc::new(Pattern::new());
}

impl Peer for Serving {
    fn new(stream: TcpStream) -> Self {
        let pattern = PATTERN.with(Rc::clone);
        Self { stream, order: None, head: Vec::new(), place: 0, owed: 0, pattern }
    }

    fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn serve(&mut self, readable: bool, buffer: &mut [u8]) -> Result<Served, String> {
        if self.order.is_none() && !self.hear_order()? {
            return Ok(Served::Open);
        }
        match self.order {
            Some(Order::Download) => self.download(readable),
            Some(Order::Upload) => self.upload(buffer),
            Some(Order::Exchange) => self.exchange(),
            None => Ok(Served::Over),
        }
    }
}

impl Serving {
    /// Reads the order; false: it is not whole yet, or will never be.
    fn hear_order(&mut self) -> Result<bool, String> {
        let mut bytes = [0; ORDER_BYTES];
        while self.head.len() < ORDER_BYTES {
            match self.stream.read(&mut bytes[..ORDER_BYTES - self.head.len()]) {
                Ok(0) if self.head.is_empty() => return Ok(true),
                Ok(0) => return Err("closed within an order".into()),
                Ok(count) => self.head.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nobody has asked for anything yet.
                Err(_) => return Ok(true),
            }
        }
        self.order = Order::ALL.into_iter().find(|order| order.bytes()[..] == self.head[..]);
        if self.order.is_some() { Ok(true) } else { Err("an order that is none".into()) }
    }

    fn download(&mut self, readable: bool) -> Result<Served, String> {
        if readable {
            match self.stream.read(&mut [0; 1]) {
                // The client has enough.
                Ok(0) => return Ok(Served::Over),
                Ok(_) => return Err("more than an order".into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Ok(Served::Over),
            }
        }
        for _ in 0..TURN {
            match self.stream.write(self.pattern.from(self.place)) {
                Ok(count) => self.place += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Served::Open),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(Served::Over),
            }
        }
        Ok(Served::More)
    }

    fn upload(&mut self, buffer: &mut [u8]) -> Result<Served, String> {
        for _ in 0..TURN {
            self.acknowledge()?;
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(Served::Over),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Served::Open),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(Served::Over),
            };
            self.pattern.check(self.place, &buffer[..count])?;
            let before = self.place / RECEIPT_BYTES;
            self.place += count;
            self.owed += self.place / RECEIPT_BYTES - before;
        }
        self.acknowledge()?;
        Ok(Served::More)
    }

    fn acknowledge(&mut self) -> Result<(), String> {
        while self.owed > 0 {
            let piece = self.owed.min(RECEIPTS.len());
            match self.stream.write(&RECEIPTS[..piece]) {
                Ok(count) => self.owed -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("receipt: {error}")),
            }
        }
        Ok(())
    }

    fn exchange(&mut self) -> Result<Served, String> {
        let mut bytes = [0; EXCHANGE_BYTES];
        while self.head.len() < EXCHANGE_BYTES {
            match self.stream.read(&mut bytes[..EXCHANGE_BYTES - self.head.len()]) {
                Ok(0) => return Err("closed within an exchange".into()),
                Ok(count) => self.head.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Served::Open),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("exchange: {error}")),
            }
        }
        // 128 bytes always fit into a fresh socket.
        let text = |error: std::io::Error| format!("exchange: {error}");
        self.stream.write_all(&self.head).map_err(text)?;
        self.stream.shutdown(Shutdown::Both).map_err(text)?;
        Ok(Served::Over)
    }
}

/// Pieces of one connection before the others have their turn.
const TURN: usize = 4;
const RECEIPTS: [u8; 64] = [b'+'; 64];
const _: () = assert!(PIECE_BYTES >= RECEIPT_BYTES);
