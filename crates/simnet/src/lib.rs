//! A network in virtual time that loses, delays, repeats and reorders datagrams, from a seed.
//!
//! For tests only: a run with the same seed is the same run.
//!
//! - [`Random`]: the only source of chance.
//! - [`Network`]: datagrams on their way between addresses.
//! - [`WallClock`]: what people call the time, which may jump.
//!
//! Time is a [`Duration`](std::time::Duration) since the beginning of the run. Nothing waits: who drives a run
//! asks everything that it drives when it is due next, and goes there.

#![forbid(unsafe_code)]

mod clock;
mod network;
mod random;

pub use clock::WallClock;
pub use network::{Conditions, Delivery, IN_FLIGHT_MAX, Network};
pub use random::Random;
