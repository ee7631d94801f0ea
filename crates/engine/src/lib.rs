//! The running tunnel: the only place that waits.
//!
//! A tunnel is two processes: the supervisor, which has privilege, and the worker, which faces the network.
//!
//! - [`config`]: a file becomes a configuration that cannot be wrong.
//! - [`keyfile`]: the secret keys that a configuration names.
//! - [`supervisor`]: a configuration becomes a running tunnel, until a signal ends it.
//! - [`worker`]: the process that carries packets, and gives up everything else first.
//! - `channel`: what the two tell each other.
//! - [`down`]: a tunnel is ended from outside, or cleaned up after.
//! - [`doctor`]: what keeps packets from passing on a host, which it only looks at.
//! - [`control`]: what a running tunnel is asked from outside, and answers.
//! - [`status`], [`uapi`]: what it says of itself; the protocol that `wg` speaks.
//! - [`runtime`]: where running tunnels keep what others may want to know.
//! - [`metrics`]: counters of packets, octets and drops.
//! - `poll`, [`signal`]: what is waited for.

#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod doctor;
pub mod down;
pub mod keyfile;
pub mod metrics;
pub mod runtime;
pub mod signal;
pub mod status;
pub mod supervisor;
pub mod uapi;
pub mod worker;

mod channel;
mod poll;
mod regular_file;
mod with_causes;

pub use supervisor::observe;
