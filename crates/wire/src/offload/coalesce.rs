//! Merges packets of one flow into super-packets that a device with `IFF_VNET_HDR` takes, in place.
//!
//! This is what Linux calls generic receive offload. Packets lie anywhere in one *arena*, the receive
//! buffer of many datagrams. [`Coalescer::push`] looks at each, in the order of arrival, and sorts it
//! into a *group*: the packets that leave as one. [`Coalescer::drain`] rewrites the headers of each
//! group's first packet and hands out that packet and the payloads of the others as slices for
//! `writev`. No payload moves.
//!
//! # Groups
//!
//! A group is *open* while packets may still join. At most [`MAX_OPEN_GROUPS`] are, each of another
//! flow; when one more opens, they make room in turn. A packet
//!
//! - that continues its flow's open group joins it;
//! - that belongs to the flow but cannot join (a pure ACK, other options, a gap) closes the group and
//!   starts one of its own;
//! - whose flow cannot be told (a fragment, IP options, extension headers) closes all groups;
//! - of another protocol starts a group of its own that never opens.
//!
//! Groups leave in the order of their first packets, and nothing joins a closed group, so the order
//! within a flow never changes.
//!
//! # What may join
//!
//! The device's kernel, or whoever reads the super-packet, cuts it again by the rules of
//! [`segment`](super::segment()), so a packet joins only if the cut restores it: the same link
//! header, addresses, ports, traffic class with ECN, TTL, DF, flow label, TCP acknowledgment, window,
//! flags and options; the next sequence number; the next IPv4 identification, unless DF makes it
//! meaningless (RFC 6864, section 4.1); as much payload as the first, or less, which closes the group, as do FIN
//! and PSH. SYN, RST, URG and CWR never join.
//!
//! The checksums of every packet that is merged are verified, because the merged packet gets new ones: what
//! was damaged on the way must not leave with a correct checksum. That is done when a second packet
//! wants to join, so a packet that travels alone costs no checksum. A damaged packet goes
//! out alone, as it came.
//!
//! # Unchecked packets
//!
//! A packet whose checksum is undone ([`Coalescer::push_unchecked`]) is handed out for the device's kernel to
//! complete. What it holds is the sum of the pseudo-header, and only that and the IPv4 header are
//! verified before a merge; nobody looks at the payload. Alone it leaves with `NEEDS_CSUM` and whatever sum
//! it came with. It never joins packets that are complete, and none of those joins it; within their
//! flow they keep their order.
//!
//! # Super-packets that come whole
//!
//! They leave as they came ([`Coalescer::push_whole`]); all groups close before them, so that order is kept.

use std::io::IoSlice;
use std::ops::Range;

use super::candidate::{Candidate, Class, Common, Flow, Kind, Located, Mergeable};
use super::unchecked::{ChecksumPlace, NotOffloadable};
use super::{LinkLayer, length_u16, put_u16, whole};
use crate::tcp::Flags;
use crate::virtio::{Gso, VirtioNetHdr};
use crate::{ipv4, ipv6, tcp, udp};

/// How many flows are merged at the same time.
pub const MAX_OPEN_GROUPS: usize = 8;

/// How many packets one super-packet holds: with the virtio header they fill the 1,024 elements that
/// one `writev` takes (`UIO_MAXIOV` in `include/uapi/linux/uio.h`).
pub const MAX_PACKETS_PER_GROUP: usize = 1023;

/// How many datagrams one UDP super-packet holds: `UDP_MAX_SEGMENTS` (Linux `include/linux/udp.h`), 64 before
/// 6.9 and 128 since; a device answers EINVAL to more.
pub const MAX_DATAGRAMS_PER_GROUP: usize = 64;

/// Groups up to this size, which holds 64 KiB in packets of an Ethernet MTU, need little stack.
const FEW_PACKETS: usize = 64;

/// Which super-packets a device takes; by default none, and everything passes singly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    /// TCP in IPv4 (`TUN_F_TSO4`).
    pub tso4: bool,
    /// TCP in IPv6 (`TUN_F_TSO6`).
    pub tso6: bool,
    /// UDP in IPv4 and IPv6 (`TUN_F_USO4` and `TUN_F_USO6`).
    pub uso: bool,
}

/// Sorts packets into groups that leave as one; see the module's description.
///
/// It holds ranges only. Its memory grows to the largest number of packets between two calls of
/// [`drain`](Self::drain), which the caller's arena limits, and stays.
#[derive(Debug)]
pub struct Coalescer {
    link: LinkLayer,
    accepts: Accepts,
    packets: Vec<Queued>,
    groups: Vec<Group>,
    open: OpenGroups,
}

/// One packet and the next of its group.
#[derive(Clone, Copy, Debug)]
struct Queued {
    start: usize,
    end: usize,
    /// Index of the next packet of the group; 0, which follows nothing, for none.
    next: usize,
}

/// Packets that leave as one.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// Indices of the first and the last packet.
    first: usize,
    last: usize,
    count: usize,
    /// The place of the checksum if it is undone, which is the same in all packets.
    undone: Option<ChecksumPlace>,
    /// Of a super-packet that came as one.
    whole: Option<VirtioNetHdr>,
    /// Nothing for a packet that cannot be merged.
    merge: Option<Merge>,
}

/// What a group of one flow knows of itself.
#[derive(Clone, Copy, Debug)]
struct Merge {
    flow: Flow,
    common: Common,
    /// Octets of payload of every packet but the last.
    gso_size: u16,
    /// Octets of the merged packet, with link header.
    len: u16,
    /// The TCP sequence number that comes next.
    next_sequence: u32,
    /// The IPv4 identification that comes next, where it has a meaning.
    next_id: Option<u16>,
    /// FIN and PSH of the last packet.
    last_flags: Flags,
    /// Whether the first packet's checksums were found right.
    is_verified: bool,
}

impl Coalescer {
    /// A coalescer for a device that carries `link` and takes what `accepts` says.
    #[must_use]
    pub fn new(link: LinkLayer, accepts: Accepts) -> Self {
        let (packets, groups) = (Vec::new(), Vec::new());
        Self { link, accepts, packets, groups, open: OpenGroups::default() }
    }

    /// Takes the packet that lies at `packet` in `arena`, which must be the same until
    /// [`drain`](Self::drain). Packets must not overlap. A range beyond the arena is ignored.
    pub fn push(&mut self, arena: &[u8], packet: Range<usize>) {
        let Some(octets) = arena.get(packet.clone()) else { return };
        let class = Class::of(self.link, self.accepts, octets);
        self.sort(arena, packet, &class, None);
    }

    /// Takes likewise an IP packet whose checksum is undone, as
    /// [`segment_unchecked`](super::segment_unchecked) makes it but for the flag in its first octet, which
    /// the caller has cleared.
    ///
    /// # Errors
    ///
    /// [`NotOffloadable`] if it cannot be such a packet or lies beyond the arena, and always for a device of
    /// Ethernet frames; then it is not taken.
    pub fn push_unchecked(
        &mut self,
        arena: &[u8],
        packet: Range<usize>,
    ) -> Result<(), NotOffloadable> {
        let octets = arena.get(packet.clone()).ok_or(NotOffloadable)?;
        if self.link != LinkLayer::Ip {
            return Err(NotOffloadable);
        }
        let class = Class::of(self.link, self.accepts, octets);
        let place = class.checksum_place().or_else(|| ChecksumPlace::of(octets));
        self.sort(arena, packet, &class, Some(place.ok_or(NotOffloadable)?));
        Ok(())
    }

    /// Takes likewise a packet of which a peer's device has said `header`, maybe a super-packet; it leaves as it
    /// came, and in order.
    ///
    /// # Errors
    ///
    /// [`NotOffloadable`] if header and packet do not fit together, the device does not take the like, or the packet lies
    /// beyond the arena; then it is not taken.
    pub fn push_whole(
        &mut self,
        arena: &[u8],
        packet: Range<usize>,
        header: VirtioNetHdr,
    ) -> Result<(), NotOffloadable> {
        let octets = arena.get(packet.clone()).ok_or(NotOffloadable)?;
        let header = whole(self.link, header, octets).map_err(|_| NotOffloadable)?;
        if !self.accepts.takes(&header) {
            return Err(NotOffloadable);
        }
        let index = self.packets.len();
        self.packets.push(Queued { start: packet.start, end: packet.end, next: 0 });
        self.open.clear();
        self.start_group(index, None, None);
        if let Some(group) = self.groups.last_mut() {
            group.whole = Some(header);
        }
        Ok(())
    }

    /// Hands out every super-packet or single packet in order and forgets them all.
    ///
    /// A super-packet comes as the virtio header and at most [`MAX_PACKETS_PER_GROUP`] slices, a
    /// single packet as one slice and an empty virtio header, or one that says where the checksum is undone.
    pub fn drain(
        &mut self,
        arena: &mut [u8],
        mut deliver: impl FnMut(&VirtioNetHdr, &[IoSlice<'_>]),
    ) {
        for group in &self.groups {
            if let (Some(merge), true) = (&group.merge, group.count > 1) {
                let packet = self.packets[group.first];
                if let Some(octets) = arena.get_mut(packet.start..packet.end) {
                    merge.write(octets);
                }
            }
        }
        for group in &self.groups {
            match group.count {
                1 => self.deliver_group::<1>(arena, group, &mut deliver),
                2..=FEW_PACKETS => {
                    self.deliver_group::<FEW_PACKETS>(arena, group, &mut deliver);
                }
                _ => self.deliver_group::<MAX_PACKETS_PER_GROUP>(arena, group, &mut deliver),
            }
        }
        self.packets.clear();
        self.groups.clear();
        self.open.clear();
    }

    /// Finds the group of a packet.
    #[inline(always)]
    fn sort(
        &mut self,
        arena: &[u8],
        packet: Range<usize>,
        class: &Class<'_>,
        undone: Option<ChecksumPlace>,
    ) {
        let index = self.packets.len();
        self.packets.push(Queued { start: packet.start, end: packet.end, next: 0 });
        match class {
            Class::Alone => self.start_group(index, undone, None),
            Class::UnknownFlow => {
                self.open.clear();
                self.start_group(index, undone, None);
            }
            Class::Flow(candidate) => self.sort_flow(arena, index, undone, candidate),
        }
    }

    fn start_group(&mut self, index: usize, undone: Option<ChecksumPlace>, merge: Option<Merge>) {
        let whole = None;
        self.groups.push(Group { first: index, last: index, count: 1, undone, whole, merge });
    }

    #[inline(always)]
    fn sort_flow(
        &mut self,
        arena: &[u8],
        index: usize,
        undone: Option<ChecksumPlace>,
        candidate: &Candidate<'_>,
    ) {
        let slot = self.open.find(candidate.hash, |group| {
            self.merge(group).is_some_and(|merge| merge.flow == candidate.flow)
        });
        if let Some(slot) = slot {
            match self.join(arena, self.open.group(slot), index, undone, candidate) {
                Join::Joined { is_last: false } => return,
                Join::Joined { is_last: true } => return self.open.close(slot),
                Join::Refused => self.open.close(slot),
            }
        }
        let merge = Merge::start(candidate);
        if merge.is_some() {
            self.open.open(candidate.hash, self.groups.len());
        }
        self.start_group(index, undone, merge);
    }

    #[inline]
    fn join(
        &mut self,
        arena: &[u8],
        group: usize,
        index: usize,
        undone: Option<ChecksumPlace>,
        candidate: &Candidate<'_>,
    ) -> Join {
        let Some(first) = self.first_packet(arena, group) else { return Join::Refused };
        let group = &mut self.groups[group];
        let Some(merge) = &mut group.merge else { return Join::Refused };
        if undone != group.undone {
            return Join::Refused;
        }
        let join = merge.join(first, candidate, undone.is_some());
        let Join::Joined { is_last } = join else { return join };
        self.packets[group.last].next = index;
        group.last = index;
        group.count += 1;
        let most = match merge.common.headers.kind.is_tcp() {
            true => MAX_PACKETS_PER_GROUP,
            false => MAX_DATAGRAMS_PER_GROUP,
        };
        Join::Joined { is_last: is_last || group.count == most }
    }

    #[inline]
    fn merge(&self, group: usize) -> Option<&Merge> {
        self.groups.get(group)?.merge.as_ref()
    }

    /// The first packet of a group that can be merged.
    #[inline]
    fn first_packet<'a>(&self, arena: &'a [u8], group: usize) -> Option<Located<'a>> {
        let group = self.groups.get(group)?;
        let headers = group.merge.as_ref()?.common.headers;
        let packet = self.packets.get(group.first)?;
        Some(Located { octets: arena.get(packet.start..packet.end)?, headers })
    }

    fn deliver_group<const N: usize>(
        &self,
        arena: &[u8],
        group: &Group,
        deliver: &mut impl FnMut(&VirtioNetHdr, &[IoSlice<'_>]),
    ) {
        let mut slices = [IoSlice::new(&[]); N];
        let mut skip = 0;
        let mut index = group.first;
        for slice in slices.iter_mut().take(group.count) {
            let packet = self.packets[index];
            let Some(octets) = arena.get(packet.start + skip..packet.end) else { return };
            *slice = IoSlice::new(octets);
            skip = group.merge.as_ref().map_or(0, |merge| merge.common.headers.payload_at);
            index = packet.next;
        }
        let header = match (&group.merge, group.undone, group.whole) {
            (Some(merge), ..) if group.count > 1 => merge.virtio_header(),
            (_, Some(place), _) => place.virtio_header(),
            (_, None, Some(header)) => header,
            (_, None, None) => VirtioNetHdr::default(),
        };
        deliver(&header, &slices[..group.count.min(N)]);
    }
}

/// What became of a packet that a group of its flow was open for.
enum Join {
    Joined {
        /// Whether the packet closes the group.
        is_last: bool,
    },
    /// It does not continue the group, or one of the two is damaged.
    Refused,
}

impl Merge {
    /// What to remember of the first packet of an open group; nothing if no packet may follow it.
    #[inline]
    fn start(candidate: &Candidate<'_>) -> Option<Self> {
        let Mergeable { common, payload_len, sequence, id, last_flags } = candidate.mergeable?;
        (last_flags == Flags::default()).then_some(Self {
            flow: candidate.flow,
            common,
            gso_size: payload_len,
            len: length_u16(common.headers.payload_at) + payload_len,
            next_sequence: sequence.wrapping_add(payload_len.into()),
            next_id: id.map(|id| id.wrapping_add(1)),
            last_flags,
            is_verified: false,
        })
    }

    /// Adds a packet of the same flow as the group's `first` if it continues the group.
    #[inline]
    fn join(&mut self, first: Located<'_>, candidate: &Candidate<'_>, is_undone: bool) -> Join {
        let Some(next) = candidate.mergeable else { return Join::Refused };
        let Some(len) = self.len.checked_add(next.payload_len) else { return Join::Refused };
        let packet = Located { headers: next.common.headers, ..candidate.packet };
        let continues = next.common == self.common
            && next.id == self.next_id
            && (next.sequence == self.next_sequence || !next.common.headers.kind.is_tcp())
            && next.payload_len <= self.gso_size
            && packet.has_link_and_options_like(first);
        let are_intact = || match is_undone {
            true => (self.is_verified || first.is_intact_undone()) && packet.is_intact_undone(),
            false => (self.is_verified || first.is_intact()) && packet.is_intact(),
        };
        if !continues || !are_intact() {
            return Join::Refused;
        }
        self.is_verified = true;
        self.len = len;
        self.next_sequence = self.next_sequence.wrapping_add(next.payload_len.into());
        self.next_id = self.next_id.map(|id| id.wrapping_add(1));
        self.last_flags = next.last_flags;
        let is_last = next.payload_len < self.gso_size || next.last_flags != Flags::default();
        Join::Joined { is_last }
    }

    /// Turns the headers of the first packet into those of the merged packet.
    fn write(&self, first: &mut [u8]) {
        let headers = self.common.headers;
        let transport_len = self.len - length_u16(headers.transport_at);
        let sum = Located { octets: first, headers }.pseudo_header_sum(transport_len.into()).fold();
        let Some((network, transport)) = first.split_at_mut_checked(headers.transport_at) else {
            return;
        };
        let network = network.get_mut(headers.network_at..).unwrap_or_default();
        if !headers.kind.is_v4() {
            put_u16(network, ipv6::PAYLOAD_LEN_AT, transport_len);
        } else if let Some(fixed) = network.first_chunk_mut() {
            ipv4::set_total_len(fixed, &[], self.len - length_u16(headers.network_at));
        }
        if !headers.kind.is_tcp() {
            put_u16(transport, udp::LEN_AT, transport_len);
        } else if let Some(flags) = transport.get_mut(tcp::FLAGS_AT) {
            *flags |= self.last_flags.0;
        }
        put_u16(transport, headers.kind.checksum_at().into(), sum);
    }

    /// What the device must know to take the merged packet.
    fn virtio_header(&self) -> VirtioNetHdr {
        let headers = self.common.headers;
        VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            gso: match headers.kind {
                Kind::TcpV4 => Gso::TcpV4,
                Kind::TcpV6 => Gso::TcpV6,
                Kind::UdpV4 | Kind::UdpV6 => Gso::UdpL4,
            },
            ecn: false,
            hdr_len: length_u16(headers.payload_at),
            gso_size: self.gso_size,
            csum_start: length_u16(headers.transport_at),
            csum_offset: headers.kind.checksum_at(),
        }
    }
}

/// The groups that packets may still join, found by the hash of their flow.
#[derive(Debug, Default)]
struct OpenGroups {
    /// One bit for each slot that is taken.
    taken: u8,
    hashes: [u32; MAX_OPEN_GROUPS],
    groups: [usize; MAX_OPEN_GROUPS],
    /// The slot that makes room next.
    victim: usize,
}

const _: () = assert!(MAX_OPEN_GROUPS == 8, "one bit of `taken` for each slot");

impl OpenGroups {
    /// The slot of the group with this hash for which `is_right` holds.
    #[inline]
    fn find(&self, hash: u32, is_right: impl Fn(usize) -> bool) -> Option<usize> {
        let mut matching = 0;
        for (slot, other) in self.hashes.iter().enumerate() {
            matching |= u8::from(*other == hash) << slot;
        }
        matching &= self.taken;
        while matching != 0 {
            let slot = matching.trailing_zeros() as usize;
            if is_right(self.group(slot)) {
                return Some(slot);
            }
            matching &= matching - 1;
        }
        None
    }

    #[inline]
    fn group(&self, slot: usize) -> usize {
        self.groups[slot % MAX_OPEN_GROUPS]
    }

    /// Takes a free slot, or that of a group which is closed by it, each slot in turn.
    #[inline]
    fn open(&mut self, hash: u32, group: usize) {
        let mut slot = self.taken.trailing_ones() as usize;
        if slot == MAX_OPEN_GROUPS {
            slot = self.victim;
            self.victim = (self.victim + 1) % MAX_OPEN_GROUPS;
        }
        self.hashes[slot] = hash;
        self.groups[slot] = group;
        self.taken |= 1 << slot;
    }

    #[inline]
    fn close(&mut self, slot: usize) {
        self.taken &= !(1 << slot);
    }

    fn clear(&mut self) {
        self.taken = 0;
    }
}
