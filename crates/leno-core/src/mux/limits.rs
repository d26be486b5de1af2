//! Every bound of one transport connection, and the settings by which each end tells the other its own.

use core::time::Duration;

use super::error::{ConnectionError, Violation};
use super::frame;

/// What one end of a connection allows. Each end announces its receiving bounds in its SETTINGS frame; the other
/// end keeps to them. The defaults are for a proxy between two services.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams the peer may have open at once; one more is reset as [`Code::Refused`](super::Code::Refused).
    /// Bounds the stream table: some 80 bytes each. Default 4,096: a worker shares few connections among all its
    /// downstreams, so HTTP/2's usual 100 to 256 would cost connections.
    pub streams_max: u32,
    /// Bytes of DATA in flight or unread that a stream may have, in bytes. Default 256 KiB: 2 Gbit/s at 1 ms
    /// round trip; HTTP/2 stacks use 64 KiB to 2 MiB.
    pub stream_window: u32,
    /// The same for all streams of the connection together, in bytes. Bounds what one peer can make the shell
    /// hold. Default 4 MiB: sixteen stalled streams do not stall the others.
    pub connection_window: u32,
    /// Longest DATA payload in one frame, in bytes. Default 16 KiB, a TLS record (RFC 8446 §5.1), so that one bulk
    /// stream cannot keep the others waiting longer than that.
    pub data_bytes_max: u32,
    /// Longest HEAD or TRAILERS payload, in bytes. Default 64 KiB, the largest total that common servers accept.
    /// Such a frame must lie whole in the read buffer, see [`Limits::read_buffer_bytes`].
    pub head_bytes_max: u32,
    /// Most fields in one HEAD or TRAILERS. Default 512.
    pub head_fields_max: u32,
    /// Output bytes not yet taken by the shell beyond which no more heads are accepted, and three quarters of which
    /// data may fill, so that bulk does not keep requests out. Default 128 KiB: bulk that is ahead of a request
    /// delays it by less than 1 ms at 1 Gbit/s.
    pub output_bytes_max: u32,
    /// Silence after which a PING asks whether the peer lives. Default 10 s, gRPC's usual keepalive.
    pub ping_interval: Duration,
    /// How long the peer may stay silent after a PING, and how long its SETTINGS may take. Default 5 s.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_max: 4096,
            stream_window: 256 << 10,
            connection_window: 4 << 20,
            data_bytes_max: 16 << 10,
            head_bytes_max: 64 << 10,
            head_fields_max: 512,
            output_bytes_max: 128 << 10,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// The most bytes that [`Mux::receive`](super::Mux::receive) may leave unconsumed while it waits for more:
    /// the shell's read buffer must be able to hold them.
    pub const fn read_buffer_bytes(&self) -> usize {
        let head = self.head_bytes_max as usize;
        frame::HEADER_BYTES + if head > frame::CONTROL_BYTES_MAX { head } else { frame::CONTROL_BYTES_MAX }
    }

    /// These limits, raised where they were below what every peer may count on before it has read our SETTINGS.
    pub(super) fn at_least_floor(mut self) -> Self {
        self.streams_max = self.streams_max.max(FLOOR.streams_max);
        self.stream_window = self.stream_window.clamp(FLOOR.stream_window, CREDIT_MAX);
        self.connection_window = self.connection_window.clamp(FLOOR.connection_window, CREDIT_MAX);
        self.output_bytes_max = self.output_bytes_max.max(OUTPUT_BYTES_MIN);
        self.data_bytes_max = self.data_bytes_max.clamp(FLOOR.data_bytes_max, frame::LENGTH_MAX);
        self.head_bytes_max = self.head_bytes_max.clamp(FLOOR.head_bytes_max, frame::LENGTH_MAX);
        self
    }
}

/// Smallest output buffer, in bytes: less would cut bodies into slivers.
const OUTPUT_BYTES_MIN: u32 = 4 << 10;

/// What the peer announced; [`FLOOR`] until its SETTINGS came, so that a dialer need not wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) streams_max: u32,
    pub(super) stream_window: u32,
    pub(super) connection_window: u32,
    pub(super) data_bytes_max: u32,
    pub(super) head_bytes_max: u32,
}

/// What version 1 guarantees to a peer that has not read any SETTINGS. Announcing less is a protocol error.
pub(super) const FLOOR: Settings = Settings {
    streams_max: 128,
    stream_window: 16 << 10,
    connection_window: 64 << 10,
    data_bytes_max: 16 << 10,
    head_bytes_max: 16 << 10,
};

/// Largest credit of a stream or connection, in bytes: sums cannot overflow (HTTP/2's bound, RFC 9113 §6.9.1).
pub(super) const CREDIT_MAX: u32 = (1 << 31) - 1;

/// First bytes of the SETTINGS payload: a peer that speaks something else is told apart from one that is broken.
const MAGIC: &[u8; 4] = b"LENO";

/// The version of the frames described in [`super`].
const VERSION: u8 = 1;

const TAG_STREAMS: u64 = 1;
const TAG_STREAM_WINDOW: u64 = 2;
const TAG_CONNECTION_WINDOW: u64 = 3;
const TAG_DATA_BYTES: u64 = 4;
const TAG_HEAD_BYTES: u64 = 5;

impl Settings {
    /// Appends the payload of the SETTINGS frame that announces `limits`.
    pub(super) fn encode(limits: &Limits, out: &mut alloc::vec::Vec<u8>) {
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        for (tag, value) in [
            (TAG_STREAMS, limits.streams_max),
            (TAG_STREAM_WINDOW, limits.stream_window),
            (TAG_CONNECTION_WINDOW, limits.connection_window),
            (TAG_DATA_BYTES, limits.data_bytes_max),
            (TAG_HEAD_BYTES, limits.head_bytes_max),
        ] {
            frame::put_varint(out, tag);
            frame::put_varint(out, u64::from(value));
        }
    }

    /// Reads a SETTINGS payload. Unknown tags are skipped, a value outside its range is the peer's error.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, ConnectionError> {
        let bad = ConnectionError::Peer(Violation::Settings);
        let rest = payload.strip_prefix(MAGIC).ok_or(bad)?;
        let (&version, mut rest) = rest.split_first().ok_or(bad)?;
        if version != VERSION {
            return Err(ConnectionError::Version(version));
        }
        let mut settings = FLOOR;
        while !rest.is_empty() {
            let tag = frame::take_varint(&mut rest).ok_or(bad)?;
            let value = frame::take_varint(&mut rest).ok_or(bad)?;
            let (slot, floor, most) = match tag {
                TAG_STREAMS => (&mut settings.streams_max, FLOOR.streams_max, u32::MAX),
                TAG_STREAM_WINDOW => (&mut settings.stream_window, FLOOR.stream_window, CREDIT_MAX),
                TAG_CONNECTION_WINDOW => {
                    (&mut settings.connection_window, FLOOR.connection_window, CREDIT_MAX)
                }
                TAG_DATA_BYTES => (&mut settings.data_bytes_max, FLOOR.data_bytes_max, frame::LENGTH_MAX),
                TAG_HEAD_BYTES => (&mut settings.head_bytes_max, FLOOR.head_bytes_max, frame::LENGTH_MAX),
                _ => continue,
            };
            *slot = u32::try_from(value).ok().filter(|value| (floor..=most).contains(value)).ok_or(bad)?;
        }
        Ok(settings)
    }
}
