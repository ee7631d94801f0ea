//! Networks of namespaces to try tunnels in.
//!
//! Used by `adit lab`, by tests and by measurements. Everything here stays in network namespaces
//! that the lab made itself, runs no program but adit, and lives only as long as the process that
//! made it: nothing has to be cleaned up, even after `kill -9`.
//!
//! | to | use |
//! |---|---|
//! | build hosts and links | [`TwoHosts::build`], [`ThreeHosts::build`], [`Gateway::build`], [`SharedFolder::build`] |
//! | do something inside a host | [`Host::run`], [`Host::spawn`] |
//! | see packets, or be sure that there are none | [`Capture`], [`Witness`] |
//! | measure TCP throughput | [`throughput::measure`] |
//! | send and count numbered packets | [`probe`] |
//! | play a whole scenario and get a report | [`run`] |
//! | leave a topology standing | [`standing`] |

mod binary;
pub mod capture;
pub mod deadline;
pub mod filter;
pub mod host;
pub mod identity;
pub mod probe;
pub mod process;
pub mod rootless;
pub mod run;
mod scratch;
mod snapshot;
pub mod standing;
#[expect(unsafe_code, reason = "AF_PACKET, unshare and PR_SET_PDEATHSIG have no safe wrapper")]
mod sys;
pub mod throughput;
pub mod topology;
pub mod tunnel;

pub use binary::{BinaryError, binary};
pub use capture::{Capture, Packet, Witness};
pub use deadline::{Deadline, Interrupt};
pub use filter::Filter;
pub use host::Host;
pub use process::Process;
pub use topology::{Gateway, Network, SharedFolder, ThreeHosts, Topology, TwoHosts};
