//! Checksums word by word, and where they stand, to hold the fast ones against.

use wire::ip::{self, IpAddrs};
use wire::{ipv4, ipv6, tcp, udp};

/// The ones' complement sum of 16-bit words (RFC 1071), not complemented.
pub(crate) fn sum(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    octets.chunks(2).map(word).fold(0, add)
}

/// The ones' complement sum of two words.
pub(crate) fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The sum of the pseudo-header of `len` octets of `protocol` in the packet that `packet` starts.
pub(crate) fn pseudo_header_sum(packet: &[u8], protocol: u8, len: usize) -> Option<u16> {
    let addresses = match ip::addresses(packet)? {
        IpAddrs::V4 { src, dst } => add(sum(&src.octets()), sum(&dst.octets())),
        IpAddrs::V6 { src, dst } => add(sum(&src.octets()), sum(&dst.octets())),
    };
    let len = u16::try_from(len).ok()?;
    Some(add(addresses, add(u16::from(protocol), len)))
}

/// Whether two sums stand for the same: 0x0000 and 0xffff do.
pub(crate) fn is_same(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}

/// Where the checksum of TCP or UDP stands in a packet that may lack it.
pub(crate) struct ChecksumPlace {
    /// Where the octets start that it covers.
    pub(crate) covered_from: usize,
    /// Where it stands in the packet.
    pub(crate) at: usize,
}

impl ChecksumPlace {
    /// The place in a packet that is as long as it says, is no fragment, and has its transport header
    /// behind an IPv4 header or the fixed IPv6 header.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        let (covered_from, protocol, transport) = if packet.first()? >> 4 == 4 {
            let header = ipv4::Packet::parse(packet).ok().filter(|header| !header.is_fragment())?;
            (header.header_len(), header.protocol(), header.payload())
        } else {
            let header = ipv6::Packet::parse(packet).ok()?;
            (ipv6::HEADER_LEN, packet[6], header.payload())
        };
        if covered_from + transport.len() != packet.len() {
            return None;
        }
        let offset = match protocol {
            tcp::PROTOCOL => tcp::Packet::parse(transport).ok().map(|_| tcp::CHECKSUM_AT)?,
            udp::PROTOCOL => {
                let payload = udp::Packet::parse(transport).ok()?.payload();
                let is_whole = transport.len() == udp::HEADER_LEN + payload.len();
                is_whole.then_some(udp::CHECKSUM_AT)?
            }
            _ => return None,
        };
        Some(Self { covered_from, at: covered_from + offset })
    }
}

/// The packet with a checksum over what it covers, the octets in its own place among it.
pub(crate) fn completed(packet: &[u8]) -> Option<Vec<u8>> {
    let ChecksumPlace { covered_from, at } = ChecksumPlace::of(packet)?;
    let checksum = match !sum(&packet[covered_from..]) {
        0 => 0xffff,
        checksum => checksum,
    };
    let mut packet = packet.to_vec();
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    Some(packet)
}

/// The packet from `ip_at` on with 0xffff for a TCP checksum of 0x0000, which says the same.
pub(crate) fn with_one_zero(ip_at: usize, mut packet: Vec<u8>) -> Vec<u8> {
    let place = ChecksumPlace::of(&packet[ip_at..])
        .filter(|place| place.at == place.covered_from + tcp::CHECKSUM_AT);
    if let Some(place) = place {
        let checksum = &mut packet[ip_at + place.at..][..2];
        if checksum == [0, 0] {
            checksum.fill(0xff);
        }
    }
    packet
}
