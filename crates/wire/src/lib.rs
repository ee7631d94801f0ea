//! Octets: headers, checksums, segmentation and coalescing. No I/O, no clock, no randomness.
//!
//! Every header has one module with the same skeleton: a checked view over a slice whose accessors
//! cannot fail once `parse` succeeded, and constants where a field stands for what is rewritten in place.

#![forbid(unsafe_code)]

pub mod checksum;
pub mod ethernet;
pub mod flow;
pub mod frame;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod message;
pub mod offload;
pub mod parse_error;
pub mod summary;
pub mod tcp;
pub mod udp;
pub mod virtio;

pub use parse_error::ParseError;
