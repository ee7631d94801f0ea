//! adit beside other implementations of WireGuard: the real programs and the real kernel, one subject a file.
//!
//! | file | holds |
//! |---|---|
//! | `party` | one implementation in a host, told by the words of wg(8) what to do |
//! | `pair` | two hosts with a party each, and which implementations meet |
//! | `messages` | what was seen on the wire: the four messages, by type |
//! | all others | tests |
//!
//! Every test says what must hold, whoever the two parties are, and runs for each of [`pair::MEETINGS`].
//! The list of subjects is that of WireGuard's own `tools/testing/selftests/wireguard/netns.sh` in the
//! kernel's tree. Tests run where namespaces can be made and the programs are installed, else they say
//! why not; with `CI=true` that is a failure.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why it was skipped"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/rig/mod.rs"]
#[allow(dead_code, reason = "tunnels without WireGuard use the rest")]
mod rig;

mod messages;
mod pair;
mod party;

mod allowed_ips;
mod flood;
mod hub;
mod icmp;
mod keys;
mod nat;
mod pings;
mod rekey;
mod restart;
mod roaming;
mod routing_loop;
mod sizes;
mod sources;
mod transfers;
