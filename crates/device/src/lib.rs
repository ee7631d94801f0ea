//! TUN and TAP devices of the kernel.
//!
//! A *device* is a network interface whose wire is a file descriptor: what the kernel sends
//! through the interface is read from the descriptor, and what is written to the descriptor
//! arrives at the interface. A [`Mode::Tun`] device carries IP packets, a [`Mode::Tap`] device
//! Ethernet frames. A device has one or more [`Queue`]s, each a descriptor of its own; the kernel
//! keeps a flow on one queue.
//!
//! [`Builder::open`] makes a device or attaches to one, and reads back what the kernel did with
//! the request. A device vanishes with its last queue, unless it is *persistent* ([`persist`]);
//! then it keeps its addresses and routes and waits for the next process to attach, which needs
//! no privilege if the device belongs to it.
//!
//! What an ioctl refuses, [`OpenError`] explains: the driver answers the same error number to
//! several causes, and says nothing about which it was.
//!
//! References: Linux `Documentation/networking/tuntap.rst`, `drivers/net/tun.c`,
//! `include/uapi/linux/if_tun.h`.

pub mod account;
mod builder;
mod device;
mod diagnose;
mod features;
mod holder;
mod inherited;
mod name;
mod offload;
pub mod persist;
mod queue;
#[expect(unsafe_code, reason = "ioctls of the tun driver and of ethtool have no safe wrapper")]
mod sys;

pub use builder::{Builder, DEFAULT_NODE, MAX_QUEUES, Mode, Observed, Presence};
pub use device::Device;
pub use diagnose::{Attempt, OpenError};
pub use features::{Driver, driver, transmit_offload};
pub use holder::{Holder, MAX_HOLDERS, holders};
pub use inherited::close_on_exec;
pub use name::{DeviceName, MAX_NAME, NameError};
pub use offload::Offload;
pub use queue::{MAX_PACKET, MAX_SLICES, Queue, Received};
