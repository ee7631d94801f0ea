//! A source and a sink of numbered UDP messages: the traffic of the three-machine demo.
//!
//! [`Source`] sends messages such as `7 Hello from client@…` to one address; [`Sink`] counts what
//! arrives and, when asked, answers. Both run until they are done or until their *stop descriptor*
//! becomes readable, and end with a report.
//!
//! * [`message`]: the octets of a message; pure.
//! * [`tally`]: loss, duplicates, order and latency of a stream of messages; pure.
//! * [`source`] and [`sink`]: the sockets, each with its report.

mod error;
pub mod message;
pub mod sink;
pub mod source;
pub mod tally;
mod wait;

pub use error::{ProbeError, SocketErrors};
pub use sink::{Sink, SinkEvent, SinkReport, StreamReport};
pub use source::{EchoReport, Pace, SendReport, Source, SourceEvent};
