//! Datagrams that are messages of sessions.
//!
//! Data is opened where it lies. Everything else goes the slow path. What a message says of its session is told once
//! a run, which is all messages of one session that came together from one place: that it was heard from, and where it is.
//!
//! | check | fails as |
//! |---|---|
//! | the type, reserved octets and length of a message | `NotAMessage` |
//! | the receiver index names a session | `UnknownReceiver` |
//! | the session's keys are not too old | `KeypairExpired` |
//! | the counter was not seen before, and is not too old | `Replayed` |
//! | the tag | `Undecryptable` |
//! | the frame is known, and agreed on | `UnknownFrame`, `FrameNotAgreed` |
//! | the inner packet's length | `LengthMismatch`, … |
//! | the inner source belongs to the peer | `SourceNotAllowed` |

use std::ops::Range;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use proto::directory::Directory;
use proto::keypairs::Found;
use proto::mtu::Content;
use proto::session::Received;
use proto::time::Instant;
use proto::{DropReason, Path, TransportIndex};
use transport::udp::RecvBatch;
use wire::frame;
use wire::message::{self, DataHeader, Kind};
use wire::offload::Coalescer;

use super::{is_truncated, path};
use crate::worker::clock;
use crate::worker::lane::{Shared, content};

/// The sessions.
pub(super) struct Sealed {
    directory: Cache<Arc<ArcSwap<Directory>>, Arc<Directory>>,
    /// Whether peers may send what WireGuard does not know.
    extensions: bool,
}

impl Sealed {
    pub(super) fn new(directory: &Arc<ArcSwap<Directory>>, extensions: bool) -> Self {
        Self { directory: Cache::new(Arc::clone(directory)), extensions }
    }

    /// Hands what is in the batch and may be delivered to the coalescer.
    pub(super) fn carry(
        &mut self,
        shared: &Shared,
        socket: TransportIndex,
        batch: &mut RecvBatch,
        coalescer: &mut Coalescer,
    ) {
        let mut opening = self.opening(shared, coalescer);
        let (messages, arena) = batch.split();
        for message in messages {
            if is_truncated(shared, &message) {
                continue;
            }
            let path = path(socket, &message.origin);
            for datagram in message.datagrams() {
                if let Err(reason) = opening.take(arena, datagram, &path) {
                    shared.counters.dropped(reason, 1);
                }
            }
            opening.end_run();
        }
    }

    /// The same with the records of a file, all from one side of a folder.
    pub(super) fn carry_records(
        &mut self,
        shared: &Shared,
        path: &Path,
        records: impl Iterator<Item = Range<usize>>,
        arena: &mut [u8],
        coalescer: &mut Coalescer,
    ) {
        let mut opening = self.opening(shared, coalescer);
        for record in records {
            if let Err(reason) = opening.take(arena, record, path) {
                shared.counters.dropped(reason, 1);
            }
        }
        opening.end_run();
    }

    fn opening<'a>(&'a mut self, shared: &'a Shared, coalescer: &'a mut Coalescer) -> Opening<'a> {
        let (extensions, now) = (self.extensions, clock::now());
        let directory = &**self.directory.load();
        Opening { shared, directory, extensions, now, coalescer, run: None }
    }
}

/// What the messages of one session that came together say of it.
struct Run {
    receiver: u32,
    found: Found,
    path: Path,
    messages: usize,
    octets: usize,
    kind: Received,
}

/// The opening of one batch.
struct Opening<'a> {
    shared: &'a Shared,
    directory: &'a Directory,
    extensions: bool,
    now: Instant,
    coalescer: &'a mut Coalescer,
    run: Option<Run>,
}

impl Opening<'_> {
    /// Opens a datagram if it is data, and passes on what is in it.
    #[inline]
    fn take(
        &mut self,
        arena: &mut [u8],
        datagram: Range<usize>,
        path: &Path,
    ) -> Result<(), DropReason> {
        let octets = arena.get_mut(datagram.clone()).ok_or(DropReason::NotAMessage)?;
        match message::kind(octets) {
            Some(Kind::Data) => {}
            Some(_) => {
                let taken = self.shared.slow_path.handshake(*path, octets);
                return taken.map_err(|_| DropReason::HandshakeFull);
            }
            None => return Err(DropReason::NotAMessage),
        }
        let header = DataHeader::parse(octets).map_err(|_| DropReason::NotAMessage)?;
        let run = self.run(&header, path)?;
        let plaintext = run.found.keypair().open(&header, octets)?;
        run.messages += 1;
        run.octets += octets.len();
        if plaintext.is_empty() {
            return Ok(());
        }
        if frame::kind(&octets[plaintext.clone()]) != frame::Kind::Control {
            run.kind = Received::Data;
        }
        let start = datagram.start;
        self.pass(arena, start + plaintext.start..start + plaintext.end)
    }

    /// The run that a message belongs to.
    #[inline]
    fn run(&mut self, header: &DataHeader, path: &Path) -> Result<&mut Run, DropReason> {
        if self.run.as_ref().is_some_and(|run| run.receiver != header.receiver) {
            self.end_run();
        }
        if self.run.is_none() {
            let found = self.directory.keypairs.get(header.receiver);
            let found = found.ok_or(DropReason::UnknownReceiver)?;
            if !found.keypair().is_alive(self.now) {
                return Err(DropReason::KeypairExpired);
            }
            let (receiver, path, kind) = (header.receiver, *path, Received::Keepalive);
            self.run = Some(Run { receiver, found, path, messages: 0, octets: 0, kind });
        }
        self.run.as_mut().ok_or(DropReason::UnknownReceiver)
    }

    /// Tells the session of a run.
    #[inline]
    fn end_run(&mut self) {
        let Some(run) = self.run.take().filter(|run| run.messages > 0) else { return };
        let Some(session) = self.directory.session(run.found.peer()) else { return };
        let Run { found, path, messages, octets, kind, .. } = run;
        if session.received(self.now, found.keypair(), &path, messages, octets, kind) {
            self.shared.slow_path.look(found.peer());
        }
    }

    /// Passes on what was in a message.
    #[inline]
    fn pass(&mut self, arena: &mut [u8], plaintext: Range<usize>) -> Result<(), DropReason> {
        let Some(run) = &self.run else { return Ok(()) };
        let (peer, receiver) = (run.found.peer(), run.receiver);
        let content = content(self.shared.mode);
        let octets = arena.get_mut(plaintext.clone()).ok_or(DropReason::Malformed)?;
        let kind = frame::kind(octets);
        if kind.is_extension() && !self.extensions {
            return Err(DropReason::FrameNotAgreed);
        }
        let (content, unchecked, packet) = match (kind, content) {
            (frame::Kind::Control, _) => {
                let taken = self.shared.slow_path.control(receiver, octets);
                return taken.map_err(|_| DropReason::ControlFull);
            }
            (frame::Kind::Packet, Content::Packet) => (content, false, trim(octets, plaintext)?),
            (frame::Kind::Unchecked, Content::Packet) => {
                let packet = trim(octets, plaintext)?;
                if let Some(first) = octets.first_mut() {
                    *first &= !frame::UNCHECKED;
                }
                (content, true, packet)
            }
            (frame::Kind::Ethernet, Content::Frame) => {
                (content, false, plaintext.start + 1..plaintext.end)
            }
            (frame::Kind::Offload, _) => return self.pass_whole(arena, plaintext),
            (frame::Kind::Unknown | frame::Kind::Keepalive, _) => {
                return Err(DropReason::UnknownFrame);
            }
            _ => return Err(DropReason::FrameNotAgreed),
        };
        self.directory.routing.admit(content, peer, &arena[packet.clone()])?;
        if unchecked {
            let pushed = self.coalescer.push_unchecked(arena, packet);
            return pushed.map_err(|_| DropReason::FrameMalformed);
        }
        self.coalescer.push(arena, packet);
        Ok(())
    }

    /// Passes on a packet that a device has said something of.
    fn pass_whole(&mut self, arena: &[u8], frame: Range<usize>) -> Result<(), DropReason> {
        let Some(run) = &self.run else { return Ok(()) };
        let octets = arena.get(frame.clone()).ok_or(DropReason::Malformed)?;
        let header = frame::parse_offload(octets).ok_or(DropReason::FrameMalformed)?;
        let packet = frame.start + frame::OFFLOAD_HEADER_LEN..frame.end;
        let octets = arena.get(packet.clone()).ok_or(DropReason::FrameMalformed)?;
        self.directory.routing.admit(content(self.shared.mode), run.found.peer(), octets)?;
        let pushed = self.coalescer.push_whole(arena, packet, header);
        pushed.map_err(|_| DropReason::FrameMalformed)
    }
}

/// An IP packet without its padding.
#[inline]
fn trim(octets: &[u8], plaintext: Range<usize>) -> Result<Range<usize>, DropReason> {
    let len = frame::ip_len(octets).ok_or(DropReason::LengthMismatch)?;
    Ok(plaintext.start..plaintext.start + len)
}
