//! The spool in real folders: on tmpfs, and where the build goes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claim;
mod faults;
mod foreign;
mod load;
mod rig;
