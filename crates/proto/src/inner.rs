//! What an inner packet must look like to be carried or delivered.
//!
//! A plain datagram is exactly one inner packet, so the length in the packet's header must be the
//! datagram's. The rest of the packet is the kernel's to judge. Extension headers, fragments, options
//! and unknown protocols pass as they are.

use wire::ethernet;
use wire::ip;
use wire::{ipv4, ipv6};

use crate::drop_reason::DropReason;
use crate::mtu::Content;
use crate::peer::{Path, PeerIndex, PeerTable};

/// Where a packet from the device goes.
#[inline]
pub fn route<'a>(
    table: &'a PeerTable,
    content: Content,
    packet: &[u8],
) -> Result<&'a Path, DropReason> {
    let peer = match (table.sole(), content) {
        (Some(peer), _) => peer,
        (None, Content::Packet) => {
            let destination = ip::destination(packet).ok_or_else(|| malformation(packet))?;
            table.owner(destination).ok_or(DropReason::NoPeer)?
        }
        (None, Content::Frame) => return Err(DropReason::NoPeer),
    };
    table.path(peer).ok_or(DropReason::NoEndpoint)
}

/// Whether a packet that `peer` sent may be delivered to the device.
#[inline]
pub fn admit(
    table: &PeerTable,
    content: Content,
    peer: PeerIndex,
    packet: &[u8],
) -> Result<(), DropReason> {
    match content {
        Content::Frame if packet.is_empty() => Err(DropReason::Empty),
        Content::Frame if packet.len() < ethernet::HEADER_LEN => Err(DropReason::TooShort),
        Content::Frame => Ok(()),
        Content::Packet => {
            check_length(packet)?;
            if table.sole() == Some(peer) {
                return Ok(());
            }
            let source = ip::source(packet).ok_or_else(|| malformation(packet))?;
            if table.owner(source) == Some(peer) {
                Ok(())
            } else {
                Err(DropReason::SourceNotAllowed)
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
    use crate::peer::{Peer, SocketIndex};
    use proptest::prelude::*;

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

    fn path(port: u16) -> Path {
        Path { socket: SocketIndex(0), remote: ([10, 0, 0, 2], port).into(), local: None }
    }

    fn peer(path: Option<Path>, allowed: &[&str]) -> Peer {
        let allowed_ips = allowed.iter().map(|prefix| prefix.parse().unwrap()).collect();
        Peer { name: "b".into(), path, allowed_ips }
    }

    fn two_peers() -> PeerTable {
        PeerTable::new(vec![peer(Some(path(1)), &["10.9.1.0/24"]), peer(None, &["10.9.2.0/24"])])
    }

    fn sole_peer() -> PeerTable {
        PeerTable::new(vec![peer(Some(path(1)), &["0.0.0.0/0", "::/0"])])
    }

    #[test]
    fn packets_go_to_the_owner_of_their_destination() {
        let table = two_peers();
        let route =
            |destination| route(&table, Content::Packet, &v4([0; 4], destination, 0)).copied();
        assert_eq!(route([10, 9, 1, 7]), Ok(path(1)));
        assert_eq!(route([10, 9, 2, 7]), Err(DropReason::NoEndpoint));
        assert_eq!(route([10, 9, 3, 7]), Err(DropReason::NoPeer));
    }

    #[test]
    fn rubbish_from_the_device_is_not_routed() {
        let table = two_peers();
        let route = |packet: &[u8]| route(&table, Content::Packet, packet).copied();
        assert_eq!(route(&[]), Err(DropReason::Empty));
        assert_eq!(route(&[0x00]), Err(DropReason::UnknownVersion));
        assert_eq!(route(&[0x45; 19]), Err(DropReason::TooShort));
        assert_eq!(route(&[0x60; 39]), Err(DropReason::TooShort));
    }

    #[test]
    fn a_sole_peer_gets_everything() {
        assert_eq!(route(&sole_peer(), Content::Frame, &[0xff; 60]), Ok(&path(1)));
        assert_eq!(route(&sole_peer(), Content::Packet, &v6(0)), Ok(&path(1)));
    }

    #[test]
    fn sources_must_belong_to_the_sender() {
        let table = two_peers();
        let admit =
            |source| admit(&table, Content::Packet, PeerIndex(0), &v4(source, [10, 0, 0, 1], 8));
        assert_eq!(admit([10, 9, 1, 1]), Ok(()));
        assert_eq!(admit([10, 9, 2, 1]), Err(DropReason::SourceNotAllowed));
        assert_eq!(admit([192, 0, 2, 1]), Err(DropReason::SourceNotAllowed));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let table = sole_peer();
        let admit = |packet: &[u8]| admit(&table, Content::Packet, PeerIndex(0), packet);
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
        let table = sole_peer();
        let admit = |frame: &[u8]| admit(&table, Content::Frame, PeerIndex(0), frame);
        assert_eq!(admit(&[]), Err(DropReason::Empty));
        assert_eq!(admit(&[0; 13]), Err(DropReason::TooShort));
        assert_eq!(admit(&[0; 14]), Ok(()));
    }

    proptest! {
        #[test]
        fn arbitrary_octets_never_panic(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            for table in [sole_peer(), two_peers()] {
                for content in [Content::Packet, Content::Frame] {
                    let _ = route(&table, content, &packet);
                    let _ = admit(&table, content, PeerIndex(0), &packet);
                }
            }
        }
    }
}
