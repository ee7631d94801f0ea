//! `proto::inner`: whose a packet is and whether it may be delivered.
//!
//! Input: one octet of choices, then the packet.
//!
//! ```text
//!  bit 0     a frame, or a packet
//!  bit 1     one peer that owns everything, or two with one prefix of each version
//!  bit 2     which of the peers sent it
//! ```

use std::net::IpAddr;

use proto::mtu::Content;
use proto::path::{Path, TransportIndex};
use proto::peer::{Peer, PeerIndex, PeerTable};
use proto::{DropReason, inner};
use wire::ip;

/// A packet that is admitted is as long as it says and comes from its sender's addresses; a packet
/// that is routed goes to the owner of its destination.
pub fn check(data: &[u8]) {
    let Some((choices, packet)) = data.split_first() else { return };
    let content = if choices & 1 == 0 { Content::Packet } else { Content::Frame };
    let is_sole = choices & 2 == 0;
    let peer = PeerIndex(u16::from(!is_sole && choices & 4 != 0));
    let table = if is_sole { one_peer() } else { two_peers() };
    let admitted = inner::admit(&table, content, peer, packet);
    let routed = inner::route(&table, content, packet)
        .map(|path| path.remote.socket_addr().expect("it is one of UDP").port());
    match content {
        Content::Frame => {
            assert_eq!(admitted.is_ok(), packet.len() >= 14);
            let expected = if is_sole { Ok(0) } else { Err(DropReason::NoPeer) };
            assert_eq!(routed, expected);
        }
        Content::Packet => {
            let comes_from = ip::source(packet).and_then(|source| owner(is_sole, source));
            let is_admissible = says_its_length(packet) && comes_from == Some(peer.0);
            assert_eq!(admitted.is_ok(), is_admissible, "{admitted:?}");
            let goes_to = ip::destination(packet).and_then(|address| owner(is_sole, address));
            if !is_sole {
                assert_eq!(routed.ok(), goes_to);
            }
        }
    }
}

/// Whether an IP header is whole and says the packet's length.
fn says_its_length(packet: &[u8]) -> bool {
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => word(2) == packet.len(),
        Some(6) if packet.len() >= 40 => word(4) + 40 == packet.len(),
        _ => false,
    }
}

/// The index of the peer that owns an address, by comparing octets.
fn owner(is_sole: bool, address: IpAddr) -> Option<u16> {
    let third = match address {
        _ if is_sole => return Some(0),
        IpAddr::V4(address) => match address.octets() {
            [10, 9, third, _] => third,
            _ => return None,
        },
        IpAddr::V6(address) => match address.octets() {
            [0xfd, 0, 0, third, ..] => third,
            _ => return None,
        },
    };
    matches!(third, 1 | 2).then(|| u16::from(third - 1))
}

fn one_peer() -> PeerTable {
    PeerTable::new(vec![peer(0, ["0.0.0.0/0", "::/0"])])
}

fn two_peers() -> PeerTable {
    PeerTable::new(vec![
        peer(0, ["10.9.1.0/24", "fd00:1::/32"]),
        peer(1, ["10.9.2.0/24", "fd00:2::/32"]),
    ])
}

/// The peer with `index`, which its port repeats.
fn peer(index: u16, allowed: [&str; 2]) -> Peer {
    let remote = ([192, 0, 2, 1], index).into();
    let allowed_ips = allowed.iter().filter_map(|prefix| prefix.parse().ok()).collect();
    let path = Some(Path { transport: TransportIndex(0), remote, local: None });
    Peer { name: format!("peer {index}"), path, allowed_ips }
}
