//! The half of the spool that touches the folder.

mod claim;
mod fault;
mod filesystem;
mod folder;
mod members;
mod probe;
mod reader;
mod remains;
mod spool;
mod status;
mod watch;
mod writer;

pub use fault::{Fault, OpenError};
pub use probe::Character;
pub use reader::Reader;
pub use spool::{Limits, Spool};
pub use status::{Counters, Outstanding, Status};
pub use writer::{Full, Outcome, Writer};
