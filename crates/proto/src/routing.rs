//! Whose an inner packet is: cryptokey routing.
//!
//! # Theory of operation
//!
//! The same table answers both ways. A packet from the device goes to the peer that owns its
//! destination; a packet from a peer is delivered only if that peer owns its source (whitepaper,
//! section 2). So nobody can speak in the name of another peer's addresses, whatever it encrypts.
//!
//! In a tunnel of two, where every address of both families belongs to one peer, there is nothing to
//! look up: that *sole* owner gets everything, which is also how Ethernet frames find their way.
//!
//! A packet is judged only as far as its fixed header, and must be as long as that says. Extension
//! headers, fragments, options and unknown protocols pass as they are; the rest is the kernel's to judge.

use std::net::IpAddr;

use ipnet::IpNet;
use wire::{ethernet, ip, ipv4, ipv6};

use crate::allowed_ips::AllowedIps;
use crate::drop_reason::DropReason;
use crate::mtu::Content;
use crate::peer::PeerIndex;

/// Which peer owns which inner addresses, immutable.
#[derive(Clone, Debug)]
pub struct Routing {
    allowed_ips: AllowedIps<PeerIndex>,
    /// Spares the lookup in tunnels of two.
    sole: Option<PeerIndex>,
}

impl Routing {
    /// Builds the table; of two equal prefixes the last one counts.
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, PeerIndex)>) -> Self {
        let allowed_ips = AllowedIps::new(prefixes);
        Self { sole: allowed_ips.sole_owner(), allowed_ips }
    }

    /// The peer that every inner packet goes to and comes from, if there is only one to choose.
    #[inline]
    pub fn sole(&self) -> Option<PeerIndex> {
        self.sole
    }

    /// The peer that owns an inner address.
    #[inline]
    pub fn owner(&self, address: IpAddr) -> Option<PeerIndex> {
        self.allowed_ips.owner(address)
    }

    /// The peer that a packet from the device goes to.
    ///
    /// # Errors
    ///
    /// [`DropReason::NoPeer`] if nobody owns the destination, or a reason why it cannot be known.
    #[inline]
    pub fn route(&self, content: Content, packet: &[u8]) -> Result<PeerIndex, DropReason> {
        match (self.sole, content) {
            (Some(peer), _) => Ok(peer),
            (None, Content::Packet) => {
                let destination = ip::destination(packet).ok_or_else(|| malformation(packet))?;
                self.owner(destination).ok_or(DropReason::NoPeer)
            }
            (None, Content::Frame) => Err(DropReason::NoPeer),
        }
    }

    /// Whether a packet that `peer` sent may be delivered to the device.
    ///
    /// # Errors
    ///
    /// [`DropReason::SourceNotAllowed`] if the source is not the peer's, or a reason why the packet is none.
    #[inline]
    pub fn admit(
        &self,
        content: Content,
        peer: PeerIndex,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        match content {
            Content::Frame if packet.is_empty() => Err(DropReason::Empty),
            Content::Frame if packet.len() < ethernet::HEADER_LEN => Err(DropReason::TooShort),
            Content::Frame if self.sole != Some(peer) => Err(DropReason::SourceNotAllowed),
            Content::Frame => Ok(()),
            Content::Packet => {
                check_length(packet)?;
                if self.sole == Some(peer) {
                    return Ok(());
                }
                let source = ip::source(packet).ok_or_else(|| malformation(packet))?;
                let is_owner = self.owner(source) == Some(peer);
                if is_owner { Ok(()) } else { Err(DropReason::SourceNotAllowed) }
            }
        }
    }
}

/// Compares the length that the IP header says with the packet's.
#[inline]
fn check_length(packet: &[u8]) -> Result<(), DropReason> {
    let said = match (packet.first().map(|first| first >> 4), packet) {
        (Some(4), &[_, _, high, low, ..]) if packet.len() >= ipv4::HEADER_LEN => {
            usize::from(u16::from_be_bytes([high, low]))
        }
        (Some(6), &[_, _, _, _, high, low, ..]) if packet.len() >= ipv6::HEADER_LEN => {
            ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([high, low]))
        }
        _ => return Err(malformation(packet)),
    };
    if said == packet.len() { Ok(()) } else { Err(DropReason::LengthMismatch) }
}

/// What is wrong with a packet that has no IP header.
#[cold]
fn malformation(packet: &[u8]) -> DropReason {
    match packet.first().map(|first| first >> 4) {
        None => DropReason::Empty,
        Some(4 | 6) => DropReason::TooShort,
        Some(_) => DropReason::UnknownVersion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST: PeerIndex = PeerIndex(0);
    const SECOND: PeerIndex = PeerIndex(1);

    fn v4(source: [u8; 4], destination: [u8; 4], payload: usize) -> Vec<u8> {
        let mut packet = vec![0; ipv4::HEADER_LEN + payload];
        packet[0] = 0x45;
        let length = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        packet
    }

    fn v6(payload: u16) -> Vec<u8> {
        let mut packet = vec![0; ipv6::HEADER_LEN + usize::from(payload)];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&payload.to_be_bytes());
        packet
    }

    fn routing(prefixes: &[(&str, PeerIndex)]) -> Routing {
        Routing::new(prefixes.iter().map(|&(prefix, peer)| (prefix.parse().unwrap(), peer)))
    }

    fn two_peers() -> Routing {
        routing(&[("10.9.1.0/24", FIRST), ("10.9.2.0/24", SECOND)])
    }

    fn sole_peer() -> Routing {
        routing(&[("0.0.0.0/0", FIRST), ("::/0", FIRST)])
    }

    #[test]
    fn packets_go_to_the_owner_of_their_destination() {
        let table = two_peers();
        let route = |destination| table.route(Content::Packet, &v4([0; 4], destination, 0));
        assert_eq!(route([10, 9, 1, 7]), Ok(FIRST));
        assert_eq!(route([10, 9, 2, 7]), Ok(SECOND));
        assert_eq!(route([10, 9, 3, 7]), Err(DropReason::NoPeer));
    }

    #[test]
    fn rubbish_from_the_device_is_not_routed() {
        let table = two_peers();
        let route = |packet: &[u8]| table.route(Content::Packet, packet);
        assert_eq!(route(&[]), Err(DropReason::Empty));
        assert_eq!(route(&[0x00]), Err(DropReason::UnknownVersion));
        assert_eq!(route(&[0x45; 19]), Err(DropReason::TooShort));
        assert_eq!(route(&[0x60; 39]), Err(DropReason::TooShort));
    }

    #[test]
    fn a_sole_peer_gets_everything() {
        assert_eq!(sole_peer().route(Content::Frame, &[0xff; 60]), Ok(FIRST));
        assert_eq!(sole_peer().route(Content::Packet, &v6(0)), Ok(FIRST));
        assert_eq!(two_peers().route(Content::Frame, &[0xff; 60]), Err(DropReason::NoPeer));
    }

    #[test]
    fn sources_must_belong_to_the_sender() {
        let table = two_peers();
        let admit = |source| table.admit(Content::Packet, FIRST, &v4(source, [10, 0, 0, 1], 8));
        assert_eq!(admit([10, 9, 1, 1]), Ok(()));
        assert_eq!(admit([10, 9, 2, 1]), Err(DropReason::SourceNotAllowed));
        assert_eq!(admit([192, 0, 2, 1]), Err(DropReason::SourceNotAllowed));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let table = sole_peer();
        let admit = |packet: &[u8]| table.admit(Content::Packet, FIRST, packet);
        let good = v4([1; 4], [2; 4], 5);
        assert_eq!(admit(&good), Ok(()));
        assert_eq!(admit(&good[..24]), Err(DropReason::LengthMismatch));
        assert_eq!(admit(&[&good[..], &[0]].concat()), Err(DropReason::LengthMismatch));
        assert_eq!(admit(&good[..19]), Err(DropReason::TooShort));
        assert_eq!(admit(&v6(7)), Ok(()));
        assert_eq!(admit(&v6(7)[..46]), Err(DropReason::LengthMismatch));
        assert_eq!(admit(&v6(0)[..39]), Err(DropReason::TooShort));
        assert_eq!(admit(&[]), Err(DropReason::Empty));
        assert_eq!(admit(b"hello\n"), Err(DropReason::TooShort));
        assert_eq!(admit(b"\x50rubbish"), Err(DropReason::UnknownVersion));
    }

    #[test]
    fn frames_need_a_header() {
        let admit = |frame: &[u8]| sole_peer().admit(Content::Frame, FIRST, frame);
        assert_eq!(admit(&[]), Err(DropReason::Empty));
        assert_eq!(admit(&[0; 13]), Err(DropReason::TooShort));
        assert_eq!(admit(&[0; 14]), Ok(()));
    }

    #[test]
    fn frames_come_from_the_peer_that_gets_them() {
        let admit = |peer| sole_peer().admit(Content::Frame, peer, &[0; 14]);
        assert_eq!((admit(FIRST), admit(SECOND)), (Ok(()), Err(DropReason::SourceNotAllowed)));
    }

    proptest! {
        #[test]
        fn arbitrary_octets_never_panic(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            for table in [sole_peer(), two_peers()] {
                for content in [Content::Packet, Content::Frame] {
                    let _ = table.route(content, &packet);
                    let _ = table.admit(content, FIRST, &packet);
                }
            }
        }
    }
}
