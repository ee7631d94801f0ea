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
//! - [`invite`], [`serve`], [`join`]: a machine becomes a peer with a ticket, and a tunnel needs no file.
//! - `invitations`: what an inviter remembers of its tickets; `durable`: files that are written whole or not at all.
//! - [`runtime`]: where running tunnels keep what others may want to know; [`statedir`]: what outlives a boot.
//! - [`metrics`]: counters of packets, octets and drops.
//! - `poll`, [`signal`]: what is waited for.

#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod doctor;
pub mod down;
pub mod invite;
pub mod join;
pub mod keyfile;
pub mod metrics;
pub mod runtime;
pub mod serve;
pub mod signal;
pub mod statedir;
pub mod status;
pub mod supervisor;
pub mod uapi;
pub mod worker;

mod channel;
mod durable;
mod hostname;
mod invitations;
mod poll;
mod regular_file;
#[cfg(test)]
mod scratch;
mod with_causes;

pub use supervisor::observe;
