//! Who is let in to an application that has more requests than it can work on, at the side that receives them.
//!
//! A [`Gate`] stands before one application. It has so many places; whoever finds none waits in line, for a time and not
//! for a number of others, and is then refused before the application has seen anything of the request. A place that
//! becomes free goes to the highest [`Class`] that waits, so that nobody of a lower one is let in while somebody of a
//! higher one stands there.
//!
//! Within a class the first come is the first served as long as the line empties now and then. When it has not for as long
//! as one may wait, everybody who is served in order has nearly waited too long already, and more and more of what is served
//! is not worth it any more; from then on the last come is served first (the field calls it adaptive LIFO), and whoever comes
//! waits a part of the time only: if it is not its turn soon it will never be, and the caller is better told at once.
//!
//! How many places there are is a number, or is found out: see [`Auto`]. The gate is one for all workers, since a limit that
//! each kept alone would be reached too early or passed, and since what waits at one worker must know of the place that another
//! one frees. It is the shell that puts a lock around it, only where a limit is declared.

mod auto;
mod class;
mod gate;

pub use auto::Auto;
pub use class::{Class, PRIORITY_HEADER};
pub use gate::{CONGESTED_PART, Counts, Entered, Gate, Left, STREAM_AFTER, Standing, Ticket, WAITING_MAX};

#[cfg(test)]
mod tests;
