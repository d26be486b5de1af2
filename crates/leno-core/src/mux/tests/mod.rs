//! Tests of the transport: two ends over a simulated wire.

mod exchange;
mod pair;
