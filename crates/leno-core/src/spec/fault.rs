//! What a rule breaks on purpose, so that people see what their services make of it. Done by [`crate::fault`].

use crate::grpc::Status;
use crate::time::{Duration, UnixTime};

/// All of something, in millionths.
pub const ALL_PPM: u32 = 1_000_000;

/// The longest delay: whoever waits longer has gone away, and a delayed request holds a place.
pub const FAULT_DELAY_MAX: Duration = Duration::from_secs(600);
/// The slowest and the fastest that a body can be sent on purpose, in bytes a second.
pub const FAULT_RATES: (u32, u32) = (16, 1 << 30);

/// Faults of one rule. Each is thrown by chance and for itself; a request that is to be reset is not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// It waits before anything else happens to it.
    pub delay: Option<Share<Duration>>,
    /// It is answered here, and not sent.
    pub abort: Option<Share<Abort>>,
    /// Its connection is closed without an answer, and it is not sent.
    pub reset: Option<Share<()>>,
    /// Its answer's body comes at so many bytes a second.
    pub slow: Option<Share<u32>>,
    /// Of a million requests no more get anything of all this, whatever chance says; `None`: as many as it says.
    pub most_ppm: Option<u32>,
    /// From then on it is over; `None`: when the rule is taken away.
    pub until: Option<UnixTime>,
    /// When it is over at once.
    pub stop: Option<Stop>,
}

/// Something, and of how many requests of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<T> {
    /// What.
    pub what: T,
    /// How many of a million.
    pub ppm: u32,
}

/// What a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// This status, 200 to 599; a call of gRPC gets the code that stands for it.
    Http(u16),
    /// This code; what is no call gets the status that stands for it.
    Grpc(Status),
}

/// The service fails by itself: then nothing is broken on purpose any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// More than this share of the requests that got no fault failed, in percent.
    pub failed_percent: u32,
    /// Requests in [`Self::window`] before the share is looked at.
    pub requests_min: u32,
    /// How far back it looks.
    pub window: Duration,
}

/// Requests that are looked at, and how far back, where nothing else is said: as outlier detection looks.
pub const STOP_REQUESTS: u32 = 20;
/// See [`STOP_REQUESTS`].
pub const STOP_WINDOW: Duration = Duration::from_secs(10);

impl Fault {
    /// True when it does anything.
    pub const fn does_something(&self) -> bool {
        self.delay.is_some() || self.abort.is_some() || self.reset.is_some() || self.slow.is_some()
    }
}

impl Abort {
    /// The status that a client of HTTP gets.
    pub const fn status(self) -> u16 {
        match self {
            Self::Http(status) => status,
            // The statuses that the gRPC code's own documentation gives (google/rpc/code.proto).
            Self::Grpc(code) => match code.0 {
                1 => 499,
                3 | 9 | 11 => 400,
                4 => 504,
                5 => 404,
                6 | 10 => 409,
                7 => 403,
                8 => 429,
                12 => 501,
                14 => 503,
                16 => 401,
                _ => 500,
            },
        }
    }

    /// The code that a call of gRPC gets.
    pub const fn code(self) -> Status {
        match self {
            Self::Http(status) => Status::of_http(status),
            Self::Grpc(code) => code,
        }
    }
}
