//! Inner packets and frames made by hand.

use std::net::{IpAddr, SocketAddr};

use wire::checksum::Sum;

const UDP: u8 = 17;

/// A whole IP packet with a UDP datagram, all checksums right.
pub(crate) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(source.port().to_be_bytes());
    datagram.extend(destination.port().to_be_bytes());
    let length = length(8 + payload.len());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let mut sum = Sum::new();
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum.add_pseudo_header_v4(from, to, UDP, length),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            sum.add_pseudo_header_v6(from, to, UDP, length.into());
        }
        _ => panic!("both addresses are of one family"),
    }
    sum.add(&datagram);
    let checksum = sum.finish_udp();
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    ip(source.ip(), destination.ip(), UDP, &datagram)
}

/// An IP packet with `payload` of `protocol`, the header checksum right.
pub(crate) fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0x45, 0];
            packet.extend(length(20 + payload.len()).to_be_bytes());
            packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(payload);
            fix_header_checksum(&mut packet);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend(length(payload.len()).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("both addresses are of one family"),
    }
}

/// Makes the checksum of an IPv4 header without options right after a change.
pub(crate) fn fix_header_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = wire::checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An Ethernet frame.
pub(crate) fn frame(
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = [destination, source].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn length(octets: usize) -> u16 {
    u16::try_from(octets).expect("it fits into an IP packet")
}
