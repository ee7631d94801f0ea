//! The network of a Linux host: its links, addresses, routes, packet filter, sysctls and namespaces.
//!
//! Everything here speaks to the kernel itself, over a netlink socket or through `/proc/sys`; no
//! program is ever run. All calls are synchronous and act on the network namespace of the thread that
//! opened the [`Socket`] or [`Monitor`], or that reads or writes a sysctl.
//!
//! | to | use |
//! |---|---|
//! | ask and change | [`Socket`]: one request at a time, answered before the call returns |
//! | be told of changes | [`Monitor`]: a descriptor to poll, then [`Monitor::changes`] |
//! | translate addresses and filter | [`nftables::Socket`]: a table that lives as long as its owner |
//! | read and write `/proc/sys` | [`sysctl::read`], [`sysctl::write`] |
//! | make and enter namespaces | [`Netns`] |
//! | find what must change, and how to take it back | [`plan::plan`]: pure, from what is and what shall be |
//! | have a tunnel's servers answer names | [`resolver`]: systemd-resolved over D-Bus, or `/etc/resolv.conf` |
//! | take it back after a crash | [`journal::Journal`]: written before each change |
//!
//! Only what adit uses of an answer is decoded. Attributes that it does not know, or that a newer
//! kernel widened, are passed over; a malformed answer is an error and never a panic.

pub mod address;
#[cfg(test)]
#[cfg(target_endian = "little")]
mod captured;
mod channel;
mod connection;
mod error;
mod exchange;
pub mod journal;
pub mod link;
mod message;
pub mod monitor;
pub mod netns;
pub mod nftables;
pub mod plan;
pub mod resolver;
pub mod route;
mod socket;
#[expect(unsafe_code, reason = "setsockopt of netlink and unshare have no safe wrapper")]
mod sys;
pub mod sysctl;

pub use address::Address;
pub use error::{Cause, Error};
pub use link::{Link, LinkIndex, TunLink, TunMode, Vxlan};
pub use monitor::{Change, Group, Monitor};
pub use netns::Netns;
pub use route::{PROTOCOL_BOOT, PROTOCOL_STATIC, Route, TABLE_MAIN};
pub use socket::Socket;
pub use sysctl::SysctlError;
