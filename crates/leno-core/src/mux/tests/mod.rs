//! Tests of the transport: two ends over a simulated wire.

mod exchange;
mod hostile;
mod pair;
mod random;
mod told;
