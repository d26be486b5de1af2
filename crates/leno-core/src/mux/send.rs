//! What we send: frames are appended to one buffer, which the shell writes.

use super::codec::{self, BadHead, Meta};
use super::error::{Code, OpenError, SendError, Violation};
use super::frame::{self, HEADER_BYTES, Header};
use super::limits::Settings;
use super::stream::{Half, Stream, StreamId, Wants};
use super::{AppSaw, CONTROL_RESERVE_BYTES, ConnectionError, Drain, Mux, NUMBER_MAX, Role};
use crate::edit::Edits;
use crate::head::{Fields, RequestHead, ResponseHead};
use crate::time::Instant;

impl Mux {
    /// Opens a stream with a request head, `edits` applied. With `end` the request has no body. Of a
    /// [`Kind::Tcp`](super::Kind::Tcp) stream only the authority is sent.
    ///
    /// # Errors
    /// Nothing was sent; see [`OpenError`] for where to go instead.
    pub fn open(
        &mut self,
        meta: &Meta<'_>,
        head: &RequestHead<'_>,
        edits: &Edits,
        end: bool,
    ) -> Result<StreamId, OpenError> {
        if let Some(error) = self.refuses_open() {
            return Err(error);
        }
        let number = self.next_local;
        self.push_head(frame::HEAD, number, end, |out| codec::encode_request(out, meta, head, edits))
            .map_err(OpenError::Head)?;
        self.next_local += 2;
        Ok(self.table.insert(Stream {
            number,
            send: if end { Half::Done } else { Half::Body },
            receive: Half::Head,
            send_credit: self.peer.stream_window,
            receive_credit: self.limits.stream_window,
            held: 0,
            due: 0,
            body_left: 0,
            head_end: self.out_end(),
            interim: 0,
            wants: Wants::Nothing,
            queued: false,
        }))
    }

    /// Sends a response head, `edits` applied. A status below 200, 101 apart, is interim: the final head is still
    /// to come and `end` has no meaning.
    ///
    /// # Errors
    /// Nothing was sent. After [`SendError::Full`], [`Mux::next_writable`] says when to try again.
    pub fn respond(
        &mut self,
        stream: StreamId,
        meta: &Meta<'_>,
        head: &ResponseHead<'_>,
        edits: &Edits,
        end: bool,
    ) -> Result<(), SendError> {
        let interim = is_interim(head.status);
        let end = end && !interim;
        self.check_send(stream, Half::Head)?;
        self.check_room(stream)?;
        self.push_head(frame::HEAD, stream.number, end, |out| codec::encode_response(out, meta, head, edits))
            .map_err(SendError::Head)?;
        if !interim {
            self.advance(stream, if end { Half::Done } else { Half::Body });
        }
        Ok(())
    }

    /// Sends body bytes, as many as credit and output allow, and returns how many; `end` counts when all of them
    /// were taken. When not, [`Mux::next_writable`] says when to go on with the rest.
    ///
    /// # Errors
    /// [`SendError::Gone`] and [`SendError::State`]; never [`SendError::Full`].
    pub fn send_data(&mut self, stream: StreamId, data: &[u8], end: bool) -> Result<usize, SendError> {
        self.check_send(stream, Half::Body)?;
        if data.is_empty() {
            if end {
                self.push_end(stream);
            }
            return Ok(0);
        }
        let frame_max = self.peer.data_bytes_max.min(self.limits.data_bytes_max) as usize;
        let mut taken = 0;
        while taken < data.len() {
            let rest = &data[taken..];
            let room = self.writable(stream).min(frame_max);
            if room == 0 {
                self.wait_for_data(stream);
                return Ok(taken);
            }
            let (now, later) = rest.split_at(rest.len().min(room));
            let last = end && later.is_empty();
            self.out.extend_from_slice(&Header::encode(frame::DATA, last, now.len(), stream.number));
            self.out.extend_from_slice(now);
            taken += now.len();
            self.send_credit -= now.len() as u32;
            if let Some(state) = self.table.get_mut(stream) {
                state.send_credit -= now.len() as u32;
            }
        }
        if end {
            self.advance(stream, Half::Done);
        }
        Ok(taken)
    }

    /// Sends trailer fields and ends our half; fields that cannot be trailers are left out.
    ///
    /// # Errors
    /// Nothing was sent. After [`SendError::Full`], [`Mux::next_writable`] says when to try again.
    pub fn send_trailers(&mut self, stream: StreamId, fields: &Fields<'_>) -> Result<(), SendError> {
        self.check_send(stream, Half::Body)?;
        self.check_room(stream)?;
        self.push_head(frame::TRAILERS, stream.number, false, |out| codec::encode_trailers(out, fields))
            .map_err(SendError::Head)?;
        self.advance(stream, Half::Done);
        Ok(())
    }

    /// Ends our half. Always fits.
    ///
    /// # Errors
    /// [`SendError::Gone`] and [`SendError::State`].
    pub fn send_end(&mut self, stream: StreamId) -> Result<(), SendError> {
        self.send_data(stream, &[], true).map(|_| ())
    }

    /// Ends both halves at once. From an acceptor, `app_saw` tells the dialer whether the request may be done
    /// again elsewhere. Whatever the shell still holds of the stream counts as released. Nothing happens when the
    /// stream is over.
    pub fn reset(&mut self, stream: StreamId, code: Code, app_saw: AppSaw) {
        if self.dead.is_none() && self.is_open(stream) {
            self.push_reset(stream.number, code, app_saw);
            self.forget(stream);
        }
    }

    /// The shell has got rid of `bytes` that [`Event::Data`](super::Event::Data) gave it. The peer gets them back
    /// as credit, in a frame only when half a window is due.
    pub fn release(&mut self, stream: StreamId, bytes: usize) {
        let window = self.limits.stream_window;
        let Some(state) = self.table.get_mut(stream) else { return };
        let bytes = state.held.min(u32::try_from(bytes).unwrap_or(u32::MAX));
        state.held -= bytes;
        if state.receive == Half::Body {
            state.due += bytes;
            if state.due >= window / 2 {
                let due = core::mem::take(&mut state.due);
                state.receive_credit += due;
                self.push_credit(stream.number, due);
            }
        }
        self.give_back(bytes);
        self.settle(stream);
    }

    /// Begins to finish: the peer opens no more streams, those that are open go on to their end.
    /// See the [module](super).
    pub fn drain(&mut self, now: Instant) {
        if self.drain != Drain::No || self.dead.is_some() {
            return;
        }
        match self.role {
            // Nobody opens streams towards a dialer; it just opens no more itself.
            Role::Dialer => self.drain = Drain::Final,
            Role::Acceptor => {
                self.push_drain(u32::MAX);
                self.push_ping(now);
                self.drain = Drain::Announced(self.pings_sent);
            }
        }
    }

    /// What is to be written to the peer.
    pub fn output(&self) -> &[u8] {
        self.out.get(self.out_start..).unwrap_or(&[])
    }

    /// The first `bytes` of [`Mux::output`] are written. From then on the peer may have seen them.
    pub fn output_sent(&mut self, bytes: usize) {
        let bytes = bytes.min(self.output().len());
        self.out_start += bytes;
        self.out_taken += bytes as u64;
        if self.out_start == self.out.len() {
            self.out.clear();
            self.out_start = 0;
        } else if self.out_start >= self.limits.output_bytes_max as usize {
            // Moves at most the output's bound for every such amount written.
            self.out.drain(..self.out_start);
            self.out_start = 0;
        }
        if self.output().len() <= self.limits.output_bytes_max as usize / 2 {
            self.out_full = false;
        }
    }

    /// Body bytes that [`Mux::send_data`] would take now.
    pub fn writable(&self, stream: StreamId) -> usize {
        let Some(state) = self.table.get(stream).filter(|_| self.dead.is_none()) else { return 0 };
        if state.send != Half::Body {
            return 0;
        }
        self.data_room().min(state.send_credit as usize).min(self.send_credit as usize)
    }

    /// A stream whose sending was cut short and can go on, first come first served, heads and trailers before data;
    /// call it until `None` after each turn that received CREDIT or wrote output. A stream that still cannot finish
    /// queues up again.
    pub fn next_writable(&mut self) -> Option<StreamId> {
        if self.out_full || self.dead.is_some() {
            return None;
        }
        while let Some(id) = self.heads.pop_front() {
            let Some(state) = self.table.get_mut(id) else { continue };
            if state.wants == Wants::Room {
                state.wants = Wants::Nothing;
                if state.send != Half::Done {
                    return Some(id);
                }
            }
        }
        while self.send_credit > 0 {
            let id = self.queue.pop_front()?;
            let Some(state) = self.table.get_mut(id) else { continue };
            state.queued = false;
            // Without credit of its own it waits for CREDIT, which puts it into the queue again.
            if state.wants == Wants::Data && state.send_credit > 0 {
                state.wants = Wants::Nothing;
                if state.send != Half::Done {
                    return Some(id);
                }
            }
        }
        None
    }

    /// True when the output takes another head.
    pub fn has_room(&self) -> bool {
        self.dead.is_none() && self.output().len() < self.limits.output_bytes_max as usize
    }

    /// Why no stream can be opened now.
    pub(super) fn refuses_open(&self) -> Option<OpenError> {
        let over = self.dead.is_some() || self.is_draining() || self.next_local > NUMBER_MAX;
        if over || self.role == Role::Acceptor {
            Some(OpenError::Draining)
        } else if self.table.len() >= self.peer.streams_max as usize {
            Some(OpenError::Streams)
        } else if !self.has_room() {
            Some(OpenError::Full)
        } else {
            None
        }
    }

    /// Checks that our half is at `half`.
    fn check_send(&self, stream: StreamId, half: Half) -> Result<(), SendError> {
        let Some(state) = self.table.get(stream).filter(|_| self.dead.is_none()) else {
            return Err(SendError::Gone);
        };
        if state.send == half { Ok(()) } else { Err(SendError::State) }
    }

    /// Checks that the output takes a head or trailers; queues the stream when it does not.
    fn check_room(&mut self, stream: StreamId) -> Result<(), SendError> {
        if self.has_room() {
            return Ok(());
        }
        self.out_full = true;
        if let Some(state) = self.table.get_mut(stream)
            && state.wants != Wants::Room
        {
            state.wants = Wants::Room;
            self.heads.push_back(stream);
            if self.heads.len() > 2 * self.table.len() {
                self.heads.retain(|id| self.table.get(*id).is_some());
            }
        }
        Err(SendError::Full)
    }

    /// Bytes of data that the output takes now. Once it is full, none until half of it has left, so that a slow peer
    /// does not cost a turn for every few bytes.
    fn data_room(&self) -> usize {
        let most = self.limits.output_bytes_max as usize;
        if self.out_full { 0 } else { (most - most / 4).saturating_sub(self.output().len() + HEADER_BYTES) }
    }

    /// Notes that a stream has more data than fits.
    fn wait_for_data(&mut self, stream: StreamId) {
        self.out_full |= self.data_room() == 0;
        let Some(state) = self.table.get_mut(stream) else { return };
        state.wants = Wants::Data;
        if state.send_credit > 0 && !state.queued {
            state.queued = true;
            self.queue.push_back(stream);
            // Streams that were reset while they waited leave their places behind.
            if self.queue.len() > 2 * self.table.len() {
                self.queue.retain(|id| self.table.get(*id).is_some());
            }
        }
    }

    /// Our half of a stream gets to `half`.
    fn advance(&mut self, stream: StreamId, half: Half) {
        if let Some(state) = self.table.get_mut(stream) {
            state.send = half;
        }
        self.settle(stream);
    }

    /// Offset in everything ever written where the output ends now.
    fn out_end(&self) -> u64 {
        self.out_taken + self.output().len() as u64
    }

    fn push_head(
        &mut self,
        kind: u8,
        number: u32,
        end: bool,
        encode: impl FnOnce(&mut alloc::vec::Vec<u8>) -> Result<(), BadHead>,
    ) -> Result<(), BadHead> {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEADER_BYTES]);
        let encoded = encode(&mut self.out);
        let length = self.out.len() - start - HEADER_BYTES;
        let fits = length <= self.peer.head_bytes_max.min(self.limits.head_bytes_max) as usize;
        if let Err(bad) = encoded.and(if fits { Ok(()) } else { Err(BadHead::TooLarge) }) {
            self.out.truncate(start);
            return Err(bad);
        }
        let header = Header::encode(kind, end, length, number);
        self.out[start..start + HEADER_BYTES].copy_from_slice(&header);
        Ok(())
    }

    fn push(&mut self, kind: u8, number: u32, payload: &[u8]) {
        self.out.extend_from_slice(&Header::encode(kind, false, payload.len(), number));
        self.out.extend_from_slice(payload);
    }

    fn push_end(&mut self, stream: StreamId) {
        self.push(frame::END, stream.number, &[]);
        self.advance(stream, Half::Done);
    }

    pub(super) fn push_settings(&mut self) {
        let mut payload = alloc::vec::Vec::new();
        Settings::encode(&self.limits, &mut payload);
        self.push(frame::SETTINGS, 0, &payload);
    }

    pub(super) fn push_reset(&mut self, number: u32, code: Code, app_saw: AppSaw) {
        let saw = match app_saw {
            AppSaw::Nothing => 0,
            AppSaw::Maybe => 1,
        };
        self.push(frame::RESET, number, &[code as u8, saw]);
    }

    pub(super) fn push_credit(&mut self, number: u32, bytes: u32) {
        self.push(frame::CREDIT, number, &bytes.to_be_bytes());
    }

    pub(super) fn push_ping(&mut self, now: Instant) {
        self.pings_sent += 1;
        self.ping = Some((self.pings_sent, now));
        self.push(frame::PING, 0, &self.pings_sent.to_be_bytes());
    }

    pub(super) fn push_pong(&mut self, payload: &[u8]) {
        self.push(frame::PONG, 0, payload);
    }

    pub(super) fn push_drain(&mut self, last: u32) {
        self.push(frame::DRAIN, 0, &last.to_be_bytes());
    }

    pub(super) fn push_close(&mut self, violation: Violation) {
        self.push(frame::CLOSE, 0, &[violation as u8]);
    }

    /// Bytes left the shell's memory: they are due to the peer as connection credit.
    pub(super) fn give_back(&mut self, bytes: u32) {
        self.held -= bytes;
        self.credit_connection(bytes);
    }

    /// Adds to what is due to the peer, and grants it when it is half the window.
    pub(super) fn credit_connection(&mut self, bytes: u32) {
        self.due += bytes;
        if self.due >= self.limits.connection_window / 2 && self.dead.is_none() {
            let due = core::mem::take(&mut self.due);
            self.receive_credit += due;
            self.push_credit(0, due);
        }
    }

    /// The peer's fault when what it makes us say piles up.
    pub(super) fn check_output(&self) -> Result<(), ConnectionError> {
        if self.output().len() > self.limits.output_bytes_max as usize + CONTROL_RESERVE_BYTES {
            return Err(ConnectionError::Peer(Violation::NotReading));
        }
        Ok(())
    }
}

/// True for a head that another head follows (RFC 9110 §15.2); 101 is the last one of its stream.
pub(super) const fn is_interim(status: u16) -> bool {
    status < 200 && status != 101
}
