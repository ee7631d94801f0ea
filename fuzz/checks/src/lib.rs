//! What must hold for any input, by target: the bodies of the fuzz targets.
//!
//! A fuzzer looks for inputs that break these checks; `tests/corpus.rs` replays what it has found
//! with the stable toolchain. A check panics when something does not hold and says nothing otherwise.
//! Where a target wants structure, the layout of its input stands at the top of its file.

#![forbid(unsafe_code)]

pub mod coalesce;
pub mod conf;
pub mod config;
pub mod frame;
pub mod headers;
pub mod inner;
pub mod message;
mod naive;
pub mod segment;
pub mod spool;
pub mod ticket;
pub mod tunnel;
pub mod uapi;
pub mod virtio;

/// What panics if the input breaks something.
pub type Check = fn(&[u8]);

/// Every target and its check.
pub const TARGETS: [(&str, Check); 13] = [
    ("coalesce", coalesce::check),
    ("conf", conf::check),
    ("config", config::check),
    ("frame", frame::check),
    ("headers", headers::check),
    ("inner", inner::check),
    ("message", message::check),
    ("segment", segment::check),
    ("spool", spool::check),
    ("ticket", ticket::check),
    ("tunnel", tunnel::check),
    ("uapi", uapi::check),
    ("virtio", virtio::check),
];
