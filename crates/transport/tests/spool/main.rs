//! The spool in real folders: on file systems of the kernel, through sshfs, and on one that misbehaves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "says what was measured, and why a test cannot run")]

mod alone;
mod claim;
mod exchange;
mod faults;
mod filesystems;
mod foreign;
mod fuse;
mod load;
mod misbehaviour;
mod rig;
