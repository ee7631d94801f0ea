//! Inner packets that say where they come from, and which an eavesdropper would know if they were not sealed.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// In every packet, and in no ciphertext but by chance of 2^-64.
pub(crate) const PLAINTEXT: &[u8; 8] = b"not seen";

const HEADER_LEN: usize = 20;
const LEN: u8 = 61;

pub(crate) fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(host + 1).expect("few hosts"))
}

pub(crate) fn prefix(host: usize) -> IpNet {
    IpNet::from(IpAddr::from(address(host)))
}

pub(crate) fn make(from: usize, to: usize, number: u64) -> Vec<u8> {
    let mut packet = vec![0; usize::from(LEN)];
    packet[..4].copy_from_slice(&[0x45, 0, 0, LEN]);
    packet[12..16].copy_from_slice(&address(from).octets());
    packet[16..20].copy_from_slice(&address(to).octets());
    packet[HEADER_LEN..][..8].copy_from_slice(PLAINTEXT);
    packet[HEADER_LEN + 8..][..8].copy_from_slice(&number.to_le_bytes());
    packet
}

/// The number of a packet, if it is one of these, whole.
pub(crate) fn number(packet: &[u8]) -> Option<u64> {
    let body = packet.get(HEADER_LEN..)?;
    let number = body.get(8..16)?.try_into().ok()?;
    (packet.len() == usize::from(LEN) && body.starts_with(PLAINTEXT))
        .then(|| u64::from_le_bytes(number))
}
