//! Inner packets, their addresses and whose those are.

/// In every packet, and in no ciphertext but by chance of 2^-64.
pub(crate) const PLAINTEXT: &[u8; 8] = b"not seen";

/// The least octets of a packet: sealed, it is longer than a hello or an acknowledgment.
pub(crate) const LEN_MIN: usize = 36;

const HEADER_LEN: usize = 20;

/// An IPv4 prefix.
pub(crate) type Prefix = ([u8; 4], u32);

/// The address of a host that nobody else ever has.
pub(crate) fn address(host: usize) -> [u8; 4] {
    [10, 0, octet(host), 1]
}

/// An address of somebody who sends or receives, by a number: the host's own, another in its network, or nobody's.
pub(crate) fn any_address(host: usize, choice: usize) -> [u8; 4] {
    match choice % 4 {
        0 | 1 => address(host),
        2 => [10, 0, octet(host), 77],
        _ => [172, 16, 9, 9],
    }
}

/// What may belong to a host, by a number.
pub(crate) fn prefixes(host: usize, choice: u8) -> Vec<Prefix> {
    let network = [10, 0, octet(host), 0];
    match choice % 6 {
        0 | 1 => vec![(address(host), 32)],
        2 => vec![(network, 24)],
        3 => vec![([0; 4], 0)],
        // The second is another host's, unless that claims it too and comes later.
        4 => vec![(network, 24), (address((host + 1) % 3), 32)],
        _ => Vec::new(),
    }
}

/// Whether a prefix contains an address.
pub(crate) fn contains((network, len): Prefix, address: [u8; 4]) -> bool {
    let differing = u32::from_be_bytes(network) ^ u32::from_be_bytes(address);
    differing.leading_zeros() >= len
}

/// A packet of `len` octets that says it has `said`.
pub(crate) fn make(ends: [[u8; 4]; 2], len: usize, said: usize, number: u64) -> Vec<u8> {
    let mut packet = vec![0; len.max(LEN_MIN)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(said).unwrap_or(u16::MAX).to_be_bytes());
    packet[12..HEADER_LEN].copy_from_slice(ends.as_flattened());
    packet[HEADER_LEN..][..8].copy_from_slice(PLAINTEXT);
    packet[HEADER_LEN + 8..][..8].copy_from_slice(&number.to_le_bytes());
    packet
}

/// The source and the destination of a packet that has a whole header.
pub(crate) fn ends(packet: &[u8]) -> Option<[[u8; 4]; 2]> {
    let header: &[u8; HEADER_LEN] = packet.first_chunk()?;
    let address = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
    (header[0] >> 4 == 4).then(|| [address(12), address(16)])
}

/// What a receiver makes of `sealed`, a packet and the padding behind it: as much as the packet says.
pub(crate) fn whole(sealed: &[u8]) -> Option<&[u8]> {
    let said = usize::from(u16::from_be_bytes([*sealed.get(2)?, *sealed.get(3)?]));
    sealed.get(..said).filter(|packet| packet.len() >= HEADER_LEN)
}

fn octet(host: usize) -> u8 {
    u8::try_from(host + 1).expect("few hosts")
}
