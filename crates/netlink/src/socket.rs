//! A socket to the kernel's routing tables.

use crate::channel::Channel;
use crate::connection::Connection;
use crate::error::Error;

/// A connection to the kernel's routing tables (rtnetlink(7)) in one network namespace.
///
/// The namespace is that of the thread that opened it and stays the same wherever the socket goes.
#[derive(Debug)]
pub struct Socket {
    pub(crate) connection: Connection,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// Fails when the process may not open another descriptor, or on a kernel older than 4.20, which
    /// lacks strict checking of requests.
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open_route_requests()
            .map_err(|cause| Error::new("open netlink socket", cause))?;
        Ok(Self { connection: Connection::new(channel) })
    }
}
