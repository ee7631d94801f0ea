//! Packets that travel without the checksum of their TCP or UDP: which can, and where it stands.
//!
//! What an unchecked packet looks like is described in [`frame`](crate::frame). Who makes one and who takes one
//! ask the same question here, so that what the one leaves undone the other can hand to its device.

use super::length_u16;
use super::network::Network;
use crate::virtio::VirtioNetHdr;
use crate::{tcp, udp};

/// Why a packet was not taken as one whose checksum is undone: it is no whole packet with a TCP or UDP
/// header directly behind an IPv4 header that is no fragment's or the fixed IPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet whose checksum cannot be left undone")]
pub struct NotOffloadable;

/// Where a checksum that is left undone stands, as a virtio header says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChecksumPlace {
    /// Where the transport header starts.
    pub(super) start: u16,
    /// Where the checksum stands in it.
    pub(super) offset: u16,
}

impl ChecksumPlace {
    /// The place in a packet that can be unchecked.
    pub(super) fn of(ip: &[u8]) -> Option<Self> {
        let network = Network::parse(ip).ok()?;
        if !network.is_followed_by_transport() || network.total_len != ip.len() {
            return None;
        }
        let offset = checksum_at(network.protocol, ip.get(network.header_len..)?)?;
        Some(Self { start: length_u16(network.header_len), offset: length_u16(offset) })
    }

    /// The place in a frame, whose IP packet starts after `network_at` octets.
    pub(super) fn behind(self, network_at: usize) -> Self {
        Self { start: self.start.saturating_add(length_u16(network_at)), ..self }
    }

    /// The virtio header of one such packet.
    pub(super) fn virtio_header(self) -> VirtioNetHdr {
        VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            csum_start: self.start,
            csum_offset: self.offset,
            ..VirtioNetHdr::default()
        }
    }
}

/// Where the checksum stands in a transport header that is whole and says no other length than there is.
fn checksum_at(protocol: u8, transport: &[u8]) -> Option<usize> {
    match protocol {
        tcp::PROTOCOL => tcp::Packet::parse(transport).ok().map(|_| tcp::CHECKSUM_AT),
        udp::PROTOCOL => {
            let payload = udp::Packet::parse(transport).ok()?.payload();
            (udp::HEADER_LEN + payload.len() == transport.len()).then_some(udp::CHECKSUM_AT)
        }
        _ => None,
    }
}
