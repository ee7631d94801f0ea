//! A socket to one protocol of the kernel, with one exchange at a time.

use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use crate::channel::Channel;
use crate::error::Cause;
use crate::exchange::{Dump, Dumped, Transaction, acknowledged, answered};
use crate::message::{Message, Request};

/// How often a dump is tried that others interrupt with changes (`NLM_F_DUMP_INTR`).
pub(crate) const DUMP_ATTEMPTS: usize = 16;

/// A channel and the sequence number of the last request on it.
#[derive(Debug)]
pub(crate) struct Connection {
    channel: Channel,
    sequence: u32,
}

impl Connection {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, sequence: 0 }
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Asks for a change and waits until it is made.
    pub(crate) fn change(&mut self, request: impl Request, flags: u16) -> Result<(), Cause> {
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
        request: impl Request,
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
        request: &impl Request,
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, Cause> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Dumped::Complete(objects) = self.dump_once(request.clone(), &parse)? {
                return Ok(objects);
            }
        }
        Err(Cause::Interrupted)
    }

    /// Asks for several changes of which all are made or none, in one datagram.
    ///
    /// The first and the last request only bracket the others. An error comes with the position of
    /// the request that it is about; 0, the opening bracket, stands for the whole.
    pub(crate) fn transact(
        &mut self,
        requests: Vec<(impl Request, u16)>,
    ) -> Result<(), (usize, Cause)> {
        let first = self.sequence.wrapping_add(1);
        let acknowledged = requests.len().saturating_sub(2);
        let mut datagram = Vec::new();
        for (position, (request, flags)) in requests.into_iter().enumerate() {
            let ack = if position == acknowledged { NLM_F_ACK } else { 0 };
            datagram.append(&mut self.emit(request, flags | ack));
        }
        self.channel.send(&datagram).map_err(|cause| (0, cause))?;
        let mut transaction = Transaction::new(first, acknowledged);
        loop {
            match self.channel.receive() {
                Ok(datagram) if transaction.handle_datagram(datagram) => {
                    return transaction.finish();
                }
                Ok(_) => {}
                Err(cause) => return Err(transaction.abandon(cause)),
            }
        }
    }

    fn dump_once<T>(
        &mut self,
        request: impl Request,
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

    fn send(&mut self, request: impl Request, flags: u16) -> Result<u32, Cause> {
        let datagram = self.emit(request, flags);
        self.channel.send(&datagram)?;
        Ok(self.sequence)
    }

    fn emit(&mut self, request: impl Request, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        request.emit(flags | NLM_F_REQUEST, self.sequence)
    }
}
