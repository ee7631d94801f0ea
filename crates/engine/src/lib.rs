//! The running tunnel: the only place that waits.
//!
//! - [`config`]: a file becomes a configuration that cannot be wrong.
//! - [`tunnel`]: a configuration becomes a running tunnel, until a signal ends it.
//! - `worker`: a thread that serves lanes; `lane`: one direction of packets, from one source.
//! - `egress`, `ingress`: the two kinds of lane, from the device to the wire and back.
//! - `attachment`: the device that a tunnel has at the moment, with its workers.
//! - `host`: what the tunnel needs of the host's network, applied and undone.
//! - `underlay`: which sockets there are, how peers are reached, and how large packets may be.
//! - [`metrics`]: counters of packets, octets and drops.
//! - `stop`, [`signal`]: how it ends.

#![forbid(unsafe_code)]

pub mod config;
pub mod metrics;
pub mod signal;
pub mod tunnel;

mod attachment;
mod egress;
mod host;
mod ingress;
mod lane;
mod notice;
mod stop;
mod underlay;
mod worker;

pub use attachment::observe;
