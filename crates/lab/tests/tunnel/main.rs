//! Tunnels between hosts of a lab: the real program and the real kernel, one subject a file.
//!
//! Every test builds its hosts itself and leaves nothing behind. It runs where namespaces can be
//! made, else it says why not; with `CI=true` that is a failure. `ADIT_BIN` names the program if it
//! is not beside this one.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why it was skipped"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/rig/mod.rs"]
mod rig;

mod addresses;
mod bad_datagrams;
mod bad_host;
mod bridge;
mod busy_device;
mod default_route;
mod disturbance;
mod dns;
mod down;
mod endpoint_name;
mod endpoint_places;
mod families;
mod firewall;
mod first_sender;
mod hostile_host;
mod join;
mod many_peers;
mod mss;
mod nat;
mod offload;
mod persistent;
mod plan;
mod queues;
mod reload;
mod replay;
mod restart;
mod rp_filter;
mod secrets;
mod sessions;
mod several_peers;
mod sizes;
mod socat;
mod spool;
mod tap;
mod tcpdump;
mod teardown;
mod unprivileged;
mod wg;
mod wg_quick;
mod worker;
