//! Packets sealed by the session with their peer.
//!
//! A segment is sealed from where it stands in the read buffer into the send batch: one pass, no copy. A packet for a
//! peer that has no session goes the slow path, which makes one.
//!
//! A peer of the same kind takes packets whose checksum is not complete, since nobody can have changed
//! them; then none is taken here. Frames need such a peer, and a first octet that says so.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use device::Mode;
use proto::directory::Directory;
use proto::keypair::Keypair;
use proto::session::{Sent, padding};
use proto::time::Instant;
use proto::{DropReason, Path, PeerIndex};
use wire::frame::{self, Features, Kind};
use wire::message::DATA_OVERHEAD;
use wire::offload::{self, Segments};
use wire::virtio::VirtioNetHdr;

use super::{Gso, HEADROOM, Outlet, Way, framed};
use crate::worker::clock;
use crate::worker::lane::{Shared, content, link_layer};
use crate::worker::slow_path::Full;

/// Who the peers are, and the sessions with them.
pub(super) struct Sealed {
    directory: Cache<Arc<ArcSwap<Directory>>, Arc<Directory>>,
    now: Instant,
    /// Room for a frame with its first octet.
    frame: Vec<u8>,
}

impl Sealed {
    pub(super) fn new(directory: &Arc<ArcSwap<Directory>>) -> Self {
        Self { directory: Cache::new(Arc::clone(directory)), now: clock::now(), frame: Vec::new() }
    }

    /// Looks at the clock, once a turn.
    pub(super) fn tell_time(&mut self) {
        self.now = clock::now();
    }

    /// Seals the segments of a packet into a batch; the path that they take, unless they wait for one.
    pub(super) fn carry(
        &mut self,
        header: VirtioNetHdr,
        buffer: &mut [u8],
        outlet: &mut Outlet,
    ) -> Result<Option<Path>, DropReason> {
        let mode = outlet.shared.mode;
        let packet = buffer.get_mut(HEADROOM..).ok_or(DropReason::Malformed)?;
        let directory = self.directory.load();
        let peer = directory.routing.route(content(mode), packet)?;
        let session = directory.session(peer).ok_or(DropReason::NoPeer)?;
        let way = session.path().zip(session.sealing(self.now));
        let Some((path, keypair)) = way.filter(|(_, keypair)| is_agreed(mode, keypair)) else {
            return stage(peer, header, packet, &outlet.shared).map(|()| None);
        };
        outlet.refuse_loop(packet, &path)?;
        let way = Way::of(&path);
        if goes_whole(&way, &keypair, header)
            && let Some(frame) = framed(link_layer(mode), header, buffer)
        {
            let counter = keypair.reserve(1).ok_or(DropReason::NoSession)?;
            let mut sealing = Sealing { keypair: &keypair, way, counter, octets: 0 };
            sealing.seal(frame, 0, outlet);
            if session.sent(self.now, &keypair, 1, sealing.octets, Sent::Data) {
                outlet.shared.slow_path.look(peer);
            }
            return Ok(Some(path));
        }
        let packet = buffer.get_mut(HEADROOM..).ok_or(DropReason::Malformed)?;
        let unchecked = mode == Mode::Tun && keypair.features().contains(Features::UNCHECKED);
        let segments = match unchecked {
            true => offload::segment_unchecked(header, packet),
            false => offload::segment(link_layer(mode), header, packet),
        };
        let segments = segments.map_err(|_| DropReason::Malformed)?;
        let count = segments.count();
        let counter = keypair.reserve(count).ok_or(DropReason::NoSession)?;
        let mut sealing = Sealing { keypair: &keypair, way, counter, octets: 0 };
        match mode {
            Mode::Tun => sealing.packets(segments, outlet),
            Mode::Tap => sealing.frames(segments, &mut self.frame, outlet),
        }
        if session.sent(self.now, &keypair, count, sealing.octets, Sent::Data) {
            outlet.shared.slow_path.look(peer);
        }
        Ok(Some(path))
    }
}

/// Whether the peer takes what a device of `mode` hands out: frames only if it has said so, and only with a cipher that
/// is allowed.
#[inline]
fn is_agreed(mode: Mode, keypair: &Keypair) -> bool {
    keypair.may_carry_data()
        && (mode == Mode::Tun || keypair.features().contains(Features::ETHERNET))
}

/// Whether a super-packet goes as it is: into a folder, if the peer takes that.
#[inline]
fn goes_whole(way: &Way, keypair: &Keypair, header: VirtioNetHdr) -> bool {
    matches!(way, Way::Folder(..))
        && header.gso != Gso::None
        && keypair.features().contains(Features::OFFLOAD)
}

/// The sealing of one packet's segments.
struct Sealing<'a> {
    keypair: &'a Keypair,
    way: Way,
    counter: u64,
    octets: usize,
}

impl Sealing<'_> {
    fn packets(&mut self, mut segments: Segments<'_>, outlet: &mut Outlet) {
        let mtu = outlet.shared.mtu();
        while let Some(segment) = segments.next() {
            // A checksum that is to stand in the first octet would make a control frame of a packet.
            if !matches!(frame::kind(segment), Kind::Packet | Kind::Unchecked) {
                outlet.shared.counters.dropped(DropReason::Malformed, 1);
                self.counter += 1;
                continue;
            }
            self.seal(segment, padding(segment.len(), mtu), outlet);
        }
    }

    /// Frames are not padded: their length stands nowhere else.
    fn frames(&mut self, mut segments: Segments<'_>, room: &mut Vec<u8>, outlet: &mut Outlet) {
        while let Some(segment) = segments.next() {
            room.clear();
            room.push(frame::ETHERNET);
            room.extend_from_slice(segment);
            self.seal(room, 0, outlet);
        }
    }

    #[inline]
    fn seal(&mut self, plaintext: &[u8], padding: usize, outlet: &mut Outlet) {
        let len = DATA_OVERHEAD + plaintext.len() + padding;
        let (keypair, counter) = (self.keypair, self.counter);
        let written =
            outlet.message(&self.way, len, |room| keypair.seal(counter, plaintext, padding, room));
        if written {
            self.octets += len;
        } else {
            outlet.shared.counters.dropped(DropReason::TooLong, 1);
        }
        self.counter += 1;
    }
}

/// Has the segments of a packet wait for a session, complete.
#[cold]
fn stage(
    peer: PeerIndex,
    header: VirtioNetHdr,
    packet: &mut [u8],
    shared: &Shared,
) -> Result<(), DropReason> {
    let segments = offload::segment(link_layer(shared.mode), header, packet);
    let mut segments = segments.map_err(|_| DropReason::Malformed)?;
    while let Some(segment) = segments.next() {
        shared.slow_path.packet(peer, segment).map_err(|Full| DropReason::NoSession)?;
    }
    Ok(())
}
