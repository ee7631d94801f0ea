//! Where an inner packet goes and whether it may be delivered, in a plain tunnel.
//!
//! A plain datagram is exactly one inner packet, so the length in the packet's header must be the
//! datagram's. Whose it is, [`Routing`](crate::routing::Routing) says.

use crate::drop_reason::DropReason;
use crate::mtu::Content;
use crate::path::Path;
use crate::peer::{PeerIndex, PeerTable};

/// Where a packet from the device goes.
///
/// # Errors
///
/// [`DropReason::NoEndpoint`] if its peer is nowhere yet, or why it has no peer.
#[inline]
pub fn route<'a>(
    table: &'a PeerTable,
    content: Content,
    packet: &[u8],
) -> Result<&'a Path, DropReason> {
    let peer = table.routing().route(content, packet)?;
    table.path(peer).ok_or(DropReason::NoEndpoint)
}

/// Whether a packet that `peer` sent may be delivered to the device.
///
/// # Errors
///
/// Why it may not.
#[inline]
pub fn admit(
    table: &PeerTable,
    content: Content,
    peer: PeerIndex,
    packet: &[u8],
) -> Result<(), DropReason> {
    table.routing().admit(content, peer, packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::TransportIndex;
    use crate::peer::Peer;

    fn table() -> PeerTable {
        let path =
            Path { transport: TransportIndex(0), remote: ([10, 0, 0, 2], 1).into(), local: None };
        let peer = |path, allowed: &str| Peer {
            name: "b".into(),
            path,
            allowed_ips: vec![allowed.parse().unwrap()],
        };
        PeerTable::new(vec![peer(Some(path), "10.9.1.0/24"), peer(None, "10.9.2.0/24")])
    }

    fn packet(source: [u8; 4], destination: [u8; 4]) -> [u8; 20] {
        let mut packet = [0; 20];
        packet[..4].copy_from_slice(&[0x45, 0, 0, 20]);
        packet[12..16].copy_from_slice(&source);
        packet[16..].copy_from_slice(&destination);
        packet
    }

    #[test]
    fn packets_need_a_peer_with_an_endpoint() {
        let table = table();
        let route = |destination| {
            route(&table, Content::Packet, &packet([0; 4], destination))
                .map(|path| path.remote.socket_addr().unwrap().port())
        };
        assert_eq!(route([10, 9, 1, 7]), Ok(1));
        assert_eq!(route([10, 9, 2, 7]), Err(DropReason::NoEndpoint));
        assert_eq!(route([10, 9, 3, 7]), Err(DropReason::NoPeer));
    }

    #[test]
    fn sources_must_belong_to_the_sender() {
        let admit = |peer| {
            admit(&table(), Content::Packet, PeerIndex(peer), &packet([10, 9, 2, 1], [0; 4]))
        };
        assert_eq!(admit(1), Ok(()));
        assert_eq!(admit(0), Err(DropReason::SourceNotAllowed));
    }
}
