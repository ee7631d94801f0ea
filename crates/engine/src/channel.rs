//! The channel between the supervisor and its worker: messages, some with descriptors.
//!
//! # Theory of operation
//!
//! The two are connected by a UNIX stream socket. Each message is a *frame* ([`framing`]) of JSON
//! ([`message`]). Descriptors travel with the first octets of their message (`SCM_RIGHTS` of unix(7)), a *handful* with
//! each octet, since the kernel takes 253 at most at a time.
//!
//! The supervisor trusts the worker as little as it trusts the network that the worker faces:
//!
//! - it takes no descriptors: it receives without room for them, and the kernel closes what comes;
//! - a message from the worker is at most [`FROM_WORKER`] octets, and one that is longer or cannot be understood ends
//!   the worker;
//! - it never waits for the worker but until a deadline, and reads what is there and no more.
//!
//! Some messages hold keys, so what is sent and received leaves nothing in memory that was given back ([`octets`]).
//!
//! Both ends are the same program, so the format may change with every version.

pub(crate) mod framing;
pub(crate) mod key;
pub(crate) mod message;
mod octets;

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use zeroize::Zeroizing;

use self::framing::{FrameError, Frames};
use self::octets::Octets;
use crate::poll::poll_until;

/// The longest message to a worker: the largest table of peers.
pub(crate) const TO_WORKER: usize = 64 << 20;

/// The longest message from a worker.
pub(crate) const FROM_WORKER: usize = 64 << 10;

/// How long the other side may take to accept a message.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The most descriptors of a message: `MAX_TAP_QUEUES`, and more sockets than anybody listens on.
const DESCRIPTORS: usize = 256 + 1024;

/// The most descriptors that travel with one octet.
const HANDFUL: usize = 64;

/// Room for a handful.
const CONTROL_OCTETS: usize = rustix::cmsg_space!(ScmRights(HANDFUL));

/// Octets that are received at a time.
const PIECE: usize = 64 << 10;

/// The channel cannot be used any more.
#[derive(Debug, Error)]
pub(crate) enum ChannelError {
    /// The kernel refused.
    #[error("{operation} the other process")]
    Io {
        /// "send to" or "receive from".
        operation: &'static str,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The other side does not read.
    #[error("the other process does not take a message of {octets} octets")]
    Stuck {
        /// How long the message is.
        octets: usize,
    },
    /// What came is no frame, or one is too long to send.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What came cannot be understood.
    #[error("a message that cannot be understood")]
    Malformed(#[source] serde_json::Error),
    /// There are more descriptors than any message has.
    #[error("more than {DESCRIPTORS} descriptors")]
    Descriptors,
}

/// What a look at the channel brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// There may be messages.
    Octets,
    /// There is nothing now.
    Nothing,
    /// The other side is gone; what it sent before is here.
    End,
}

/// One end of a channel.
#[derive(Debug)]
pub(crate) struct Channel<F> {
    socket: F,
    frames: Frames,
    /// The longest message that may be sent.
    send_limit: usize,
    descriptors: VecDeque<OwnedFd>,
}

/// The two ends of a fresh channel, the supervisor's and the worker's.
pub(crate) fn pair() -> std::io::Result<(Channel<OwnedFd>, OwnedFd)> {
    let (here, there) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((Channel::of_supervisor(here), there))
}

/// Whether `socket` can be an end of a channel.
pub(crate) fn is_channel(socket: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
        && rustix::net::sockopt::socket_type(socket) == Ok(SocketType::STREAM)
}

impl<F: AsFd> Channel<F> {
    /// The supervisor's end.
    pub(crate) fn of_supervisor(socket: F) -> Self {
        let (frames, send_limit) = (Frames::new(FROM_WORKER), TO_WORKER);
        Self { socket, frames, send_limit, descriptors: VecDeque::new() }
    }

    /// The worker's end.
    pub(crate) fn of_worker(socket: F) -> Self {
        let (frames, send_limit) = (Frames::new(TO_WORKER), FROM_WORKER);
        Self { socket, frames, send_limit, descriptors: VecDeque::new() }
    }

    /// Sends a message; the other side has [`PATIENCE`] to take it.
    pub(crate) fn send(&self, message: &impl Serialize) -> Result<(), ChannelError> {
        self.send_with(message, &[])
    }

    /// Sends a message with descriptors, in this order.
    pub(crate) fn send_with(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        if descriptors.len() > DESCRIPTORS {
            return Err(ChannelError::Descriptors);
        }
        let mut json = Octets::default();
        serde_json::to_writer(&mut json, message).map_err(ChannelError::Malformed)?;
        let header = framing::header(json.as_slice().len(), self.send_limit)?;
        let mut frame = Octets::default();
        frame.push(&header);
        frame.push(json.as_slice());
        let deadline = Instant::now() + PATIENCE;
        let mut rest = frame.as_slice();
        for handful in descriptors.chunks(HANDFUL) {
            let Some((first, others)) = rest.split_first_chunk::<1>() else {
                return Err(ChannelError::Descriptors);
            };
            self.retry(first, deadline, |octet| give(self.socket.as_fd(), octet, handful))?;
            rest = others;
        }
        while !rest.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let sent = self.retry(rest, deadline, |rest| send(&self.socket, rest, flags))?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Receives what is there, without descriptors.
    pub(crate) fn receive(&mut self) -> Result<Arrival, ChannelError> {
        let mut piece = Zeroizing::new(vec![0; PIECE]);
        let received = recv(&self.socket, &mut piece[..], RecvFlags::DONTWAIT);
        self.arrived(&piece, received.map(|(count, _)| count))
    }

    /// Receives what is there; [`Self::take_descriptors`] has what came along.
    pub(crate) fn receive_descriptors(&mut self) -> Result<Arrival, ChannelError> {
        let mut piece = Zeroizing::new(vec![0; PIECE]);
        let mut space = [const { MaybeUninit::uninit() }; CONTROL_OCTETS];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received =
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut piece)], &mut control, flags);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if self.descriptors.len() > DESCRIPTORS {
            return Err(ChannelError::Descriptors);
        }
        self.arrived(&piece, received.map(|message| message.bytes))
    }

    /// The next whole message that was received.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ChannelError> {
        let Some(json) = self.frames.take()? else { return Ok(None) };
        serde_json::from_slice(&json).map(Some).map_err(ChannelError::Malformed)
    }

    /// The first `count` descriptors that were received; none if there are less.
    pub(crate) fn take_descriptors(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        (count <= self.descriptors.len()).then(|| self.descriptors.drain(..count).collect())
    }

    /// Waits until something is there, or `deadline` has passed; whether something is there.
    pub(crate) fn wait(&self, deadline: Instant) -> Result<bool, ChannelError> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let ready = poll_until(&mut fds, Some(deadline));
        ready
            .map(|count| count > 0)
            .map_err(|cause| ChannelError::Io { operation: "wait for", cause })
    }

    fn arrived(
        &mut self,
        piece: &[u8],
        received: Result<usize, Errno>,
    ) -> Result<Arrival, ChannelError> {
        match received {
            Ok(0) | Err(Errno::CONNRESET) => Ok(Arrival::End),
            Ok(count) => {
                self.frames.push(piece.get(..count).unwrap_or_default());
                Ok(Arrival::Octets)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Arrival::Nothing),
            Err(error) => Err(ChannelError::Io { operation: "receive from", cause: error.into() }),
        }
    }

    /// Sends some of `octets`, as soon as the socket takes some; how many it took.
    fn retry(
        &self,
        octets: &[u8],
        deadline: Instant,
        send: impl Fn(&[u8]) -> Result<usize, Errno>,
    ) -> Result<usize, ChannelError> {
        let failed = |cause| ChannelError::Io { operation: "send to", cause };
        loop {
            match send(octets) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
                    if poll_until(&mut fds, Some(deadline)).map_err(failed)? == 0 {
                        return Err(ChannelError::Stuck { octets: octets.len() });
                    }
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

impl<F: AsFd> AsFd for Channel<F> {
    /// Readable when something is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends one octet with a handful of descriptors.
fn give(socket: BorrowedFd<'_>, octet: &[u8], handful: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [const { MaybeUninit::uninit() }; CONTROL_OCTETS];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(handful)) {
        return Err(Errno::NOBUFS);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(octet)], &mut control, flags)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Ipv4Addr;

    use super::message::{Ending, ToSupervisor, ToWorker};
    use super::*;

    fn ends() -> (Channel<OwnedFd>, Channel<OwnedFd>) {
        let (supervisor, worker) = pair().unwrap();
        (supervisor, Channel::of_worker(worker))
    }

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let (mut supervisor, worker) = ends();
        let sent = ToSupervisor::Ended(Ending::Failed { text: "x".repeat(60_000) });
        worker.send(&ToSupervisor::Started).unwrap();
        worker.send(&sent).unwrap();
        assert_eq!(supervisor.receive().unwrap(), Arrival::Octets);
        assert_eq!(supervisor.take().unwrap(), Some(ToSupervisor::Started));
        assert_eq!(supervisor.receive().unwrap(), Arrival::Nothing);
        assert_eq!(supervisor.take().unwrap(), Some(sent));
        assert_eq!(supervisor.take::<ToSupervisor>().unwrap(), None);
        drop(worker);
        assert_eq!(supervisor.receive().unwrap(), Arrival::End);
    }

    #[test]
    fn descriptors_arrive_in_order_however_many() {
        let (supervisor, mut worker) = ends();
        let socket = || std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let sockets: Vec<_> = (0..150).map(|_| socket()).collect();
        let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        supervisor.send_with(&ToWorker::Report, &borrowed).unwrap();
        while worker.receive_descriptors().unwrap() == Arrival::Octets {}
        assert_eq!(worker.take().unwrap(), Some(ToWorker::Report));
        assert!(worker.take_descriptors(151).is_none());
        let arrived = worker.take_descriptors(150).unwrap();
        for (sent, arrived) in sockets.iter().zip(arrived) {
            let arrived = std::net::UdpSocket::from(arrived);
            assert_eq!(arrived.local_addr().unwrap(), sent.local_addr().unwrap());
        }
    }

    #[test]
    fn the_supervisor_takes_no_descriptors() {
        let (mut supervisor, worker) = ends();
        let (mut reader, writer) = std::io::pipe().unwrap();
        worker.send_with(&ToSupervisor::Started, &[writer.as_fd()]).unwrap();
        drop(writer);
        while supervisor.receive().unwrap() == Arrival::Octets {}
        assert_eq!(supervisor.take().unwrap(), Some(ToSupervisor::Started));
        assert!(supervisor.descriptors.is_empty());
        // The end of the pipe tells that nobody holds the other one.
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_worker_cannot_send_more_than_it_may() {
        let (mut supervisor, worker) = ends();
        let long = ToSupervisor::Ended(Ending::Failed { text: "x".repeat(FROM_WORKER) });
        assert!(matches!(worker.send(&long), Err(ChannelError::Frame(_))));
        let octets = u32::try_from(FROM_WORKER + 1).unwrap().to_le_bytes();
        send(&worker.socket, &octets, SendFlags::empty()).unwrap();
        assert_eq!(supervisor.receive().unwrap(), Arrival::Octets);
        assert!(matches!(supervisor.take::<ToSupervisor>(), Err(ChannelError::Frame(_))));
    }

    #[test]
    fn garbage_is_an_error_and_stays_one() {
        let (mut supervisor, worker) = ends();
        let mut stream = std::os::unix::net::UnixStream::from(worker.socket);
        stream.write_all(&[4, 0, 0, 0, 0xff, 0xfe, 0, b'{']).unwrap();
        assert_eq!(supervisor.receive().unwrap(), Arrival::Octets);
        let malformed = supervisor.take::<ToSupervisor>();
        assert!(matches!(malformed, Err(ChannelError::Malformed(_))), "{malformed:?}");
    }
}
