//! One request at a time to the kernel, and its answer.

use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;

use crate::channel::Channel;
use crate::error::{Cause, Error};
use crate::exchange::{Dump, Dumped, acknowledged, answered};
use crate::message::{Message, emit};

/// How often a dump is tried that others interrupt with changes (`NLM_F_DUMP_INTR`).
pub(crate) const DUMP_ATTEMPTS: usize = 16;

/// A connection to the kernel's routing tables (rtnetlink(7)) in one network namespace.
///
/// The namespace is that of the thread that opened it and stays the same wherever the socket goes.
#[derive(Debug)]
pub struct Socket {
    channel: Channel,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// Fails when the process may not open another descriptor, or on a kernel older than 4.20, which
    /// lacks strict checking of requests.
    pub fn open() -> Result<Self, Error> {
        let channel =
            Channel::open_requests().map_err(|cause| Error::new("open netlink socket", cause))?;
        Ok(Self { channel, sequence: 0 })
    }

    /// Asks for a change and waits until it is made.
    pub(crate) fn change(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<(), Cause> {
        let sequence = self.send(request, flags | NLM_F_ACK)?;
        loop {
            if let Some(verdict) = acknowledged(self.channel.receive()?, sequence) {
                return verdict;
            }
        }
    }

    /// Asks for one object.
    pub(crate) fn query<T>(
        &mut self,
        request: RouteNetlinkMessage,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> Result<T, Cause> {
        let sequence = self.send(request, 0)?;
        loop {
            if let Some(answer) = answered(self.channel.receive()?, sequence) {
                return parse(&answer?)?.ok_or(Cause::NoAnswer);
            }
        }
    }

    /// Asks for all objects of a table; again if the table changes meanwhile.
    pub(crate) fn dump<T>(
        &mut self,
        request: &RouteNetlinkMessage,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, Cause> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Dumped::Complete(objects) = self.dump_once(request.clone(), &parse)? {
                return Ok(objects);
            }
        }
        Err(Cause::Interrupted)
    }

    fn dump_once<T>(
        &mut self,
        request: RouteNetlinkMessage,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> Result<Dumped<T>, Cause> {
        let mut dump = Dump::new(self.send(request, NLM_F_DUMP)?);
        loop {
            match self.channel.receive() {
                Ok(datagram) if dump.handle_datagram(datagram, &parse) => return dump.finish(),
                Ok(_) => {}
                Err(cause) => return Err(dump.abandon(cause)),
            }
        }
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<u32, Cause> {
        self.sequence = self.sequence.wrapping_add(1);
        self.channel.send(&emit(request, flags | NLM_F_REQUEST, self.sequence))?;
        Ok(self.sequence)
    }
}
