//! Builds TCP and UDP packets field by field, with checksums summed word by word, so that tests have
//! something to compare with that shares no code with what they test.

#![allow(dead_code, reason = "every test uses another part of it")]
#![allow(clippy::unwrap_used, reason = "a value out of range is a fault of the test")]

use proptest::prelude::*;
use wire::offload::LinkLayer;
use wire::virtio::{Gso, VirtioNetHdr};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const CWR: u8 = 0x80;

/// The fields of a packet that do not change within a flow, and those of its first packet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    /// VLAN tags of an Ethernet frame, or no Ethernet header at all.
    pub(crate) tags: Option<u8>,
    pub(crate) is_v6: bool,
    pub(crate) is_udp: bool,
    /// Four octets of IPv4 options or eight of IPv6 destination options.
    pub(crate) has_extension: bool,
    /// TCP options in units of four octets.
    pub(crate) option_words: u8,
    pub(crate) traffic_class: u8,
    pub(crate) flow_label: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    pub(crate) source_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// The low half of the octet with the data offset.
    pub(crate) reserved: u8,
    pub(crate) urgent_pointer: u16,
}

pub(crate) const TCP: Shape = Shape {
    tags: None,
    is_v6: false,
    is_udp: false,
    has_extension: false,
    option_words: 3,
    traffic_class: 0x02,
    flow_label: 0,
    dont_fragment: false,
    ttl: 64,
    id: 0xfffe,
    source_port: 40_000,
    sequence: 0xffff_fc00,
    acknowledgment: 0x0102_0304,
    flags: ACK,
    window: 501,
    reserved: 0,
    urgent_pointer: 0,
};

pub(crate) const UDP: Shape = Shape { is_udp: true, option_words: 0, ..TCP };

impl Shape {
    pub(crate) fn link(&self) -> LinkLayer {
        if self.tags.is_some() { LinkLayer::Ethernet } else { LinkLayer::Ip }
    }

    pub(crate) fn gso(&self) -> Gso {
        match (self.is_udp, self.is_v6) {
            (true, _) => Gso::UdpL4,
            (false, true) => Gso::TcpV6,
            (false, false) => Gso::TcpV4,
        }
    }

    /// A complete packet.
    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let (mut octets, transport_at) = self.without_checksum(payload);
        let sum = !sum(&[&self.pseudo_header(&octets, transport_at), &octets[transport_at..]]);
        let checksum = if self.is_udp && sum == 0 { 0xffff } else { sum };
        self.put_checksum(&mut octets, transport_at, checksum);
        octets
    }

    /// A super-packet as a device hands it out.
    pub(crate) fn super_packet(&self, payload: &[u8], gso_size: u16) -> (VirtioNetHdr, Vec<u8>) {
        let (mut octets, transport_at) = self.without_checksum(payload);
        let pseudo_sum = sum(&[&self.pseudo_header(&octets, transport_at)]);
        self.put_checksum(&mut octets, transport_at, pseudo_sum);
        let header = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            gso: self.gso(),
            ecn: false,
            hdr_len: u16::try_from(octets.len() - payload.len()).unwrap(),
            gso_size,
            csum_start: u16::try_from(transport_at).unwrap(),
            csum_offset: if self.is_udp { 6 } else { 16 },
        };
        (header, octets)
    }

    /// The packets that the super-packet stands for.
    pub(crate) fn packets(&self, payload: &[u8], gso_size: u16) -> Vec<Vec<u8>> {
        let count = payload.len().div_ceil(gso_size.into());
        let mut shape = self.clone();
        let mut packets = Vec::new();
        for (index, payload) in payload.chunks(gso_size.into()).enumerate() {
            let first_only = if index == 0 { 0 } else { CWR };
            let last_only = if index + 1 == count { 0 } else { FIN | PSH };
            shape.flags = self.flags & !first_only & !last_only;
            packets.push(shape.packet(payload));
            shape.sequence = shape.sequence.wrapping_add(gso_size.into());
            shape.id = shape.id.wrapping_add(1);
        }
        packets
    }

    fn without_checksum(&self, payload: &[u8]) -> (Vec<u8>, usize) {
        let mut octets = self.link_header();
        let transport = self.transport_header(payload.len());
        octets.extend(self.network_header(transport.len() + payload.len()));
        let transport_at = octets.len();
        octets.extend(transport);
        octets.extend(payload);
        (octets, transport_at)
    }

    fn link_header(&self) -> Vec<u8> {
        let Some(tags) = self.tags else { return Vec::new() };
        let mut octets = vec![2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa];
        for tag in 0..tags {
            octets.extend(if tag + 1 < tags { [0x88, 0xa8] } else { [0x81, 0x00] });
            octets.extend([0x20, tag + 1]);
        }
        octets.extend(if self.is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        octets
    }

    fn network_header(&self, upper_len: usize) -> Vec<u8> {
        let protocol = if self.is_udp { 17 } else { 6 };
        let mut octets = Vec::new();
        if self.is_v6 {
            let extension_len = if self.has_extension { 8 } else { 0 };
            octets.extend([0x60 | self.traffic_class >> 4, self.traffic_class << 4]);
            octets.extend(self.flow_label.to_be_bytes());
            octets.extend(u16::try_from(extension_len + upper_len).unwrap().to_be_bytes());
            octets.extend([if self.has_extension { 60 } else { protocol }, self.ttl]);
            octets.extend([0xfd, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            octets.extend([0xfd, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            octets.extend(&[protocol, 0, 1, 4, 0, 0, 0, 0][..extension_len]);
            return octets;
        }
        let header_len = if self.has_extension { 24 } else { 20 };
        octets.extend([if self.has_extension { 0x46 } else { 0x45 }, self.traffic_class]);
        octets.extend(u16::try_from(header_len + upper_len).unwrap().to_be_bytes());
        octets.extend(self.id.to_be_bytes());
        octets.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, protocol, 0, 0]);
        octets.extend([10, 9, 0, 1, 10, 1, 0, 3]);
        octets.extend(&[0x94, 4, 0, 0][..header_len - 20]);
        let checksum = !sum(&[&octets]);
        octets[10..12].copy_from_slice(&checksum.to_be_bytes());
        octets
    }

    fn transport_header(&self, payload_len: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        octets.extend(self.source_port.to_be_bytes());
        octets.extend(8080u16.to_be_bytes());
        if self.is_udp {
            octets.extend(u16::try_from(8 + payload_len).unwrap().to_be_bytes());
            octets.extend([0, 0]);
            return octets;
        }
        octets.extend(self.sequence.to_be_bytes());
        octets.extend(self.acknowledgment.to_be_bytes());
        octets.extend([(5 + self.option_words) << 4 | self.reserved, self.flags]);
        octets.extend(self.window.to_be_bytes());
        octets.extend([0, 0]);
        octets.extend(self.urgent_pointer.to_be_bytes());
        octets.extend((0..self.option_words).flat_map(|word| [8, 10, word, 0x55]));
        octets
    }

    fn pseudo_header(&self, octets: &[u8], transport_at: usize) -> Vec<u8> {
        let network = &octets[self.link_header().len()..];
        let addresses = if self.is_v6 { &network[8..40] } else { &network[12..20] };
        let mut pseudo = addresses.to_vec();
        pseudo.extend(u32::try_from(octets.len() - transport_at).unwrap().to_be_bytes());
        pseudo.extend([0, if self.is_udp { 17 } else { 6 }]);
        pseudo
    }

    fn put_checksum(&self, octets: &mut [u8], transport_at: usize, checksum: u16) {
        let at = transport_at + if self.is_udp { 6 } else { 16 };
        octets[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// RFC 1071 word by word; only the last piece may have an odd length.
pub(crate) fn sum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in pieces.iter().flat_map(|piece| piece.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Any shape whose packets carry data of an established connection.
pub(crate) fn any_shape() -> impl Strategy<Value = Shape> {
    let flags = prop::sample::select(vec![ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN, ACK | 0x40]);
    let kind = (prop::option::of(0u8..3), any::<bool>(), any::<bool>(), 0u8..=10);
    let network = (any::<u8>(), any::<u16>(), any::<bool>(), any::<u8>(), any::<u16>());
    let transport = (any::<u16>(), any::<u32>(), any::<u32>(), flags, any::<u16>());
    (kind, network, transport).prop_map(
        |(
            (tags, is_v6, is_udp, option_words),
            (traffic_class, flow_label, dont_fragment, ttl, id),
            (source_port, sequence, acknowledgment, flags, window),
        )| Shape {
            tags,
            is_v6,
            is_udp,
            has_extension: false,
            option_words: if is_udp { 0 } else { option_words },
            traffic_class,
            flow_label,
            dont_fragment,
            ttl,
            id,
            source_port,
            sequence,
            acknowledgment,
            flags,
            window,
            reserved: 0,
            urgent_pointer: 0,
        },
    )
}

/// Octets without pattern that are cheap to make and never sum to zero.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 131 + (i >> 8) * 17 + 1).to_le_bytes()[0]).collect()
}
