//! UDP sockets as `/proc/net/udp` and `/proc/net/udp6` list them (proc_net(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The place of the inode in a line, from 0.
const INODE: usize = 9;

/// A line: where the socket is bound, and the inode that its descriptors show.
pub(super) fn parse_line(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    let local = SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
    let inode = fields.nth(INODE - 2)?.parse().ok()?;
    Some((local, inode))
}

/// Words of 32 bits, each printed as a number of this machine.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = text.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0; 16];
            for (index, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(index)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_tells_address_and_inode() {
        let v4 = "  339: 0100007F:1284 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 38412 2 0000000000000000 0";
        assert_eq!(parse_line(v4), Some(("127.0.0.1:4740".parse().unwrap(), 38412)));
        let v6 = "  12: 00000000000000000000000001000000:1285 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 7 2 0 0";
        assert_eq!(parse_line(v6), Some(("[::1]:4741".parse().unwrap(), 7)));
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "  sl  local_address rem_address   st",
            "0: 0:0",
            "0: ä0000007F:1 0:0 a b c d e f 1",
        ] {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }
}
