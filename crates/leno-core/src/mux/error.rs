//! What can go wrong, and whose fault it is.

use core::fmt;

use super::codec::BadHead;

/// Why a stream was reset, as the RESET frame says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// A fault of the Leno that sent it.
    Internal = 0,
    /// Nobody waits for the answer any more: the downstream went away or another attempt won.
    Cancel = 1,
    /// A limit or a drain: the request was not processed and may go elsewhere.
    Refused = 2,
    /// The application could not be reached; it saw nothing.
    AppConnectFailed = 3,
    /// The application closed or reset its connection before its answer was complete.
    AppClosed = 4,
    /// The application's answer was not valid HTTP.
    AppProtocol = 5,
    /// The peer broke a rule of this transport on this stream.
    Protocol = 6,
    /// The request's deadline passed.
    Deadline = 7,
    /// The application or its proxy has more work than it can take.
    Overload = 8,
    /// The answer is complete and the rest of the request is not wanted (HTTP/2's NO_ERROR).
    Enough = 9,
    /// A rule of the mesh forbids it, whoever is asked.
    Denied = 10,
    /// The caller sends more than it may: the application saw nothing, and it is not to be tried elsewhere.
    RateLimited = 11,
    /// The application has more requests than it can work on in time, and was not given this one.
    Shed = 12,
}

impl Code {
    /// The code of a byte on the wire; one that only later versions know is [`Code::Internal`].
    pub const fn from_wire(byte: u8) -> Self {
        match byte {
            1 => Self::Cancel,
            2 => Self::Refused,
            3 => Self::AppConnectFailed,
            4 => Self::AppClosed,
            5 => Self::AppProtocol,
            6 => Self::Protocol,
            7 => Self::Deadline,
            8 => Self::Overload,
            9 => Self::Enough,
            10 => Self::Denied,
            11 => Self::RateLimited,
            12 => Self::Shed,
            _ => Self::Internal,
        }
    }

    /// A stable word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Cancel => "cancel",
            Self::Refused => "refused",
            Self::AppConnectFailed => "app-connect-failed",
            Self::AppClosed => "app-closed",
            Self::AppProtocol => "app-protocol",
            Self::Protocol => "protocol",
            Self::Deadline => "deadline",
            Self::Overload => "overload",
            Self::Enough => "enough",
            Self::Denied => "denied",
            Self::RateLimited => "rate-limited",
            Self::Shed => "shed",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a connection cannot go on. Every stream that is still open is lost; see
/// [`Mux::next_lost`](super::Mux::next_lost).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// The peer broke a rule of the protocol.
    Peer(Violation),
    /// The peer speaks this version, which we do not.
    Version(u8),
    /// The peer sent no SETTINGS in time: it is not a Leno, or it hangs.
    SettingsTimeout,
    /// The peer or the way to it is dead: silence for longer than a PING may take.
    PingTimeout,
    /// The socket failed or ended under streams that were open.
    Lost,
    /// The peer closed the connection and says that we broke a rule.
    ClosedByPeer(Violation),
}

/// Who is to blame for a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// The process at the other end.
    Peer,
    /// This process.
    Us,
    /// The peer or anything on the way to it: they look the same from here.
    Network,
}

impl ConnectionError {
    /// Whose fault it is.
    pub const fn culprit(self) -> Culprit {
        match self {
            Self::Peer(_) | Self::Version(_) | Self::SettingsTimeout => Culprit::Peer,
            Self::PingTimeout | Self::Lost => Culprit::Network,
            Self::ClosedByPeer(_) => Culprit::Us,
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(violation) => write!(f, "the peer broke the mesh protocol: {violation}"),
            Self::Version(version) => {
                write!(
                    f,
                    "the peer speaks version {version} of the mesh protocol, this Leno speaks version 1"
                )
            }
            Self::SettingsTimeout => f.write_str("the peer sent no SETTINGS in time"),
            Self::PingTimeout => f.write_str("the peer did not answer a PING in time"),
            Self::Lost => f.write_str("the connection to the peer was lost"),
            Self::ClosedByPeer(violation) => {
                write!(f, "the peer closed the connection because we broke the mesh protocol: {violation}")
            }
        }
    }
}

impl core::error::Error for ConnectionError {}

/// The rule that was broken, so that the log on both sides can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Violation {
    /// One that only a later version knows.
    Unknown = 0,
    /// SETTINGS missing, repeated, malformed or below the floor.
    Settings = 1,
    /// A frame kind that must be understood and is not, or a flag that its kind does not have.
    Kind = 2,
    /// A payload length that the kind does not allow.
    Length = 3,
    /// A frame for the connection on a stream, or the other way round, or on a stream never opened.
    Stream = 4,
    /// A stream number other than the next one.
    Order = 5,
    /// More DATA than the credit allowed.
    Credit = 6,
    /// Credit past its maximum.
    CreditOverflow = 7,
    /// More PINGs than an honest peer sends (CVE-2019-9512).
    PingFlood = 8,
    /// Too many streams opened and reset (CVE-2023-44487).
    ResetFlood = 9,
    /// Too many frames that carry nothing (CVE-2019-9518).
    IdleFlood = 10,
    /// It makes us answer and does not read the answers.
    NotReading = 11,
    /// A PONG that answers no PING.
    Pong = 12,
    /// A DRAIN that goes back up or names a stream never opened.
    Drain = 13,
}

impl Violation {
    /// The violation of a byte on the wire.
    pub const fn from_wire(byte: u8) -> Self {
        match byte {
            1 => Self::Settings,
            2 => Self::Kind,
            3 => Self::Length,
            4 => Self::Stream,
            5 => Self::Order,
            6 => Self::Credit,
            7 => Self::CreditOverflow,
            8 => Self::PingFlood,
            9 => Self::ResetFlood,
            10 => Self::IdleFlood,
            11 => Self::NotReading,
            12 => Self::Pong,
            13 => Self::Drain,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a rule that this version does not know",
            Self::Settings => "SETTINGS missing, repeated or out of range",
            Self::Kind => "a frame kind or flag that is not known",
            Self::Length => "a frame length that its kind does not allow",
            Self::Stream => "a frame on a stream where it cannot be",
            Self::Order => "a stream number out of order",
            Self::Credit => "more data than was allowed",
            Self::CreditOverflow => "credit beyond its maximum",
            Self::PingFlood => "too many PINGs",
            Self::ResetFlood => "too many streams opened and reset",
            Self::IdleFlood => "too many frames that carry nothing",
            Self::NotReading => "answers are asked for and not read",
            Self::Pong => "a PONG without a PING",
            Self::Drain => "a DRAIN that contradicts an earlier frame",
        })
    }
}

/// What the peer did wrong on one stream; the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// A HEAD or TRAILERS payload that cannot be what an honest encoder wrote.
    Head(BadHead),
    /// A frame that the stream's state does not allow: data before the head, anything after the end.
    State,
    /// More or less DATA than the HEAD declared.
    BodyLength,
    /// More interim heads than [`INTERIM_HEADS_MAX`](super::INTERIM_HEADS_MAX).
    InterimHeads,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(bad) => write!(f, "the peer sent a malformed head: {bad}"),
            Self::State => f.write_str("the peer sent a frame that the stream's state does not allow"),
            Self::BodyLength => f.write_str("the peer sent another body length than its head declared"),
            Self::InterimHeads => f.write_str("the peer sent too many interim responses"),
        }
    }
}

impl core::error::Error for StreamError {}

/// Why [`Mux::open`](super::Mux::open) opened nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The peer's limit of concurrent streams is reached: use or dial another connection.
    Streams,
    /// The connection drains, is dead or has used up its stream numbers: dial another one.
    Draining,
    /// The output buffer is full; the peer reads too slowly. Use another connection or wait for
    /// [`Mux::has_room`](super::Mux::has_room).
    Full,
    /// The head does not fit the peer's limit or is not valid; the caller's input is at fault.
    Head(BadHead),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streams => f.write_str("every stream that the peer allows is in use"),
            Self::Draining => f.write_str("the connection takes no new streams"),
            Self::Full => f.write_str("the connection's output buffer is full"),
            Self::Head(bad) => write!(f, "the request head cannot be sent: {bad}"),
        }
    }
}

impl core::error::Error for OpenError {}

/// Why nothing was sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The stream is over: it ended, was reset or its connection died.
    Gone,
    /// Our half is not in a state for this: body before head, anything after the end. The caller's mistake.
    State,
    /// The output buffer is full; the stream is reported by [`Mux::next_writable`](super::Mux::next_writable)
    /// when it has room.
    Full,
    /// The head does not fit the peer's limit or is not valid; the stream is untouched.
    Head(BadHead),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the stream is over"),
            Self::State => f.write_str("the stream's sending half does not allow this now"),
            Self::Full => f.write_str("the connection's output buffer is full"),
            Self::Head(bad) => write!(f, "the head cannot be sent: {bad}"),
        }
    }
}

impl core::error::Error for SendError {}
