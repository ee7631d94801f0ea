//! One line about a packet, much like tcpdump's.

use std::fmt;

use crate::ethernet::{self, Frame};
use crate::ip::IpAddrs;
use crate::offload::LinkLayer;
use crate::parse_error::{Header, ParseError};
use crate::{icmp, ipv4, ipv6, tcp, udp};

/// Displays a packet of any content as one line, such as
/// `IPv4 10.9.0.1 > 10.1.0.3: UDP 40000 > 8080, 41 octets`.
///
/// The octets at the end of a line are those of the innermost payload that was understood.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    link: LinkLayer,
    packet: &'a [u8],
}

impl<'a> Summary<'a> {
    /// A summary of what a device that carries `link` handed out.
    #[must_use]
    pub fn new(link: LinkLayer, packet: &'a [u8]) -> Self {
        Self { link, packet }
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = match self.link {
            LinkLayer::Ip => ip(f, self.packet),
            LinkLayer::Ethernet => frame(f, self.packet),
        };
        written.or_else(|stop| match stop {
            Stop::Parse(error) => error.fmt(f),
            Stop::Fmt(error) => Err(error),
        })
    }
}

/// Why a line ends early: the packet, which then closes the line itself, or the one who writes.
enum Stop {
    Parse(ParseError),
    Fmt(fmt::Error),
}

impl From<ParseError> for Stop {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
}

impl From<fmt::Error> for Stop {
    fn from(error: fmt::Error) -> Self {
        Self::Fmt(error)
    }
}

fn frame(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> Result<(), Stop> {
    let frame = Frame::parse(octets)?;
    write!(f, "{} > {}, ", frame.source(), frame.destination())?;
    for vlan in frame.vlans() {
        write!(f, "VLAN {vlan}, ")?;
    }
    let len = frame.payload().len();
    match frame.ethertype() {
        ethernet::IPV4 | ethernet::IPV6 => ip(f, frame.payload())?,
        ethernet::ARP => arp(f, frame.payload())?,
        ethertype => write!(f, "EtherType {ethertype:#06x}, {len} octets")?,
    }
    Ok(())
}

/// Requests and replies of ARP for IPv4 over Ethernet (RFC 826).
fn arp(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    let len = octets.len();
    let Some(message) = octets.first_chunk::<28>() else {
        return write!(f, "ARP, truncated: {len} of 28 octets");
    };
    let [0, 1, 8, 0, 6, 4, 0, operation, m0, m1, m2, m3, m4, m5, rest @ ..] = message else {
        return write!(f, "ARP, {len} octets");
    };
    let mac = ethernet::MacAddr([*m0, *m1, *m2, *m3, *m4, *m5]);
    let [s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] = *rest;
    let sender = std::net::Ipv4Addr::new(s0, s1, s2, s3);
    let target = std::net::Ipv4Addr::new(t0, t1, t2, t3);
    match operation {
        1 => write!(f, "ARP, who has {target}, tell {sender}"),
        2 => write!(f, "ARP, {sender} is at {mac}"),
        _ => write!(f, "ARP, operation {operation}"),
    }
}

fn ip(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> Result<(), Stop> {
    match octets.first().map(|first| first >> 4) {
        Some(4) => ip_v4(f, octets),
        Some(6) => ip_v6(f, octets),
        Some(version) => Ok(write!(f, "IP version {version}, {} octets", octets.len())?),
        None => Ok(f.write_str("empty packet")?),
    }
}

fn ip_v4(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> Result<(), Stop> {
    let packet = ipv4::Packet::parse(octets)?;
    let (src, dst) = (packet.source(), packet.destination());
    write!(f, "IPv4 {src} > {dst}: ")?;
    if packet.is_fragment() {
        let (id, offset) = (u32::from(packet.id()), packet.fragment_offset());
        return fragment(f, id, offset, packet.protocol(), packet.payload());
    }
    upper_layer(f, IpAddrs::V4 { src, dst }, packet.protocol(), packet.payload())
}

fn ip_v6(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> Result<(), Stop> {
    let packet = ipv6::Packet::parse(octets)?;
    let (src, dst) = (packet.source(), packet.destination());
    write!(f, "IPv6 {src} > {dst}: ")?;
    if let Some(ipv6::Fragment { id, offset, .. }) = packet.fragment() {
        return fragment(f, id, offset, packet.protocol(), packet.payload());
    }
    upper_layer(f, IpAddrs::V6 { src, dst }, packet.protocol(), packet.payload())
}

fn fragment(
    f: &mut fmt::Formatter<'_>,
    id: u32,
    offset: usize,
    protocol: u8,
    payload: &[u8],
) -> Result<(), Stop> {
    let len = payload.len();
    write!(f, "fragment of {id} at {offset}, protocol {protocol}, {len} octets")?;
    Ok(())
}

fn upper_layer(
    f: &mut fmt::Formatter<'_>,
    addrs: IpAddrs,
    protocol: u8,
    payload: &[u8],
) -> Result<(), Stop> {
    match (protocol, addrs) {
        (tcp::PROTOCOL, _) => tcp_segment(f, payload),
        (udp::PROTOCOL, _) => udp_datagram(f, payload),
        (icmp::PROTOCOL_V4, IpAddrs::V4 { .. }) => icmp_message(f, icmp::Version::V4, payload),
        (icmp::PROTOCOL_V6, IpAddrs::V6 { .. }) => icmp_message(f, icmp::Version::V6, payload),
        _ => Ok(write!(f, "protocol {protocol}, {} octets", payload.len())?),
    }
}

fn tcp_segment(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> Result<(), Stop> {
    let segment = tcp::Packet::parse(octets)?;
    let (src, dst) = (segment.source_port(), segment.destination_port());
    write!(f, "TCP {src} > {dst} [{}], seq {}", segment.flags(), segment.sequence())?;
    if segment.flags().intersects(tcp::Flags::ACK) {
        write!(f, ", ack {}", segment.acknowledgment())?;
    }
    write!(f, ", window {}, {} octets", segment.window(), segment.payload().len())?;
    Ok(())
}

fn udp_datagram(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> Result<(), Stop> {
    let datagram = udp::Packet::parse(octets)?;
    let (src, dst) = (datagram.source_port(), datagram.destination_port());
    write!(f, "UDP {src} > {dst}, {} octets", datagram.payload().len())?;
    Ok(())
}

fn icmp_message(
    f: &mut fmt::Formatter<'_>,
    version: icmp::Version,
    octets: &[u8],
) -> Result<(), Stop> {
    let message = icmp::Packet::parse(version, octets)?;
    let name = match version {
        icmp::Version::V4 => Header::Icmp,
        icmp::Version::V6 => Header::IcmpV6,
    };
    let len = message.payload().len();
    match (message.kind(), message.next_hop_mtu()) {
        (icmp::Kind::EchoRequest | icmp::Kind::EchoReply, _) => {
            let (id, sequence) = (message.echo_id(), message.echo_sequence());
            write!(f, "{name} {}, id {id}, seq {sequence}, {len} octets", message.kind())?;
        }
        (icmp::Kind::Other, _) => {
            let (kind, code) = (message.kind_number(), message.code());
            write!(f, "{name} type {kind}, code {code}, {len} octets")?;
        }
        (kind, Some(mtu)) => write!(f, "{name} {kind}, MTU {mtu}, {len} octets")?,
        (kind, None) => write!(f, "{name} {kind}, code {}, {len} octets", message.code())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(packet: &[u8]) -> String {
        Summary::new(LinkLayer::Ip, packet).to_string()
    }

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut octets =
            vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0, 10, 9, 0, 1, 10, 1, 0, 3];
        octets.extend(payload);
        octets[3] = u8::try_from(octets.len()).unwrap();
        octets
    }

    fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut octets = vec![0x60, 0, 0, 0, 0, 0, next_header, 64];
        octets[5] = u8::try_from(payload.len()).unwrap();
        octets.extend([0xfd, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        octets.extend([0xfd, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        octets.extend(payload);
        octets
    }

    #[test]
    fn udp_shows_ports_and_payload() {
        let mut payload = vec![0x9c, 0x40, 0x1f, 0x90, 0, 49, 0, 0];
        payload.extend([7; 41]);
        let expected = "IPv4 10.9.0.1 > 10.1.0.3: UDP 40000 > 8080, 41 octets";
        assert_eq!(line(&ipv4(17, &payload)), expected);
    }

    #[test]
    fn tcp_shows_flags_and_numbers() {
        let segment =
            [0x9c, 0x40, 0, 80, 0, 0, 1, 0, 0, 0, 2, 0, 0x50, 0x18, 0x02, 0, 0, 0, 0, 0, 1, 2, 3];
        let expected = "IPv6 fd00:7::1 > fd00:7::2: TCP 40000 > 80 [P.], seq 256, ack 512, window 512, 3 octets";
        assert_eq!(line(&ipv6(6, &segment)), expected);
    }

    #[test]
    fn icmp_shows_what_its_type_means() {
        assert_eq!(
            line(&ipv4(1, &[8, 0, 0, 0, 0, 7, 0, 1, 0xaa])),
            "IPv4 10.9.0.1 > 10.1.0.3: ICMP echo request, id 7, seq 1, 1 octets"
        );
        assert_eq!(
            line(&ipv4(1, &[3, 4, 0, 0, 0, 0, 5, 0x8c])),
            "IPv4 10.9.0.1 > 10.1.0.3: ICMP destination unreachable, MTU 1420, 0 octets"
        );
        assert_eq!(
            line(&ipv6(58, &[135, 0, 0, 0, 0, 0, 0, 0])),
            "IPv6 fd00:7::1 > fd00:7::2: ICMPv6 neighbour solicitation, code 0, 0 octets"
        );
        assert_eq!(
            line(&ipv4(1, &[250, 3, 0, 0, 0, 0, 0, 0])),
            "IPv4 10.9.0.1 > 10.1.0.3: ICMP type 250, code 3, 0 octets"
        );
    }

    #[test]
    fn a_tagged_arp_request_shows_who_asks() {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 0x0a, 0x81, 0, 0, 5, 0x08, 0x06]);
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x0a, 10, 0, 0, 1]);
        frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
        let request = Summary::new(LinkLayer::Ethernet, &frame).to_string();
        let expected =
            "02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff, VLAN 5, ARP, who has 10.0.0.2, tell 10.0.0.1";
        assert_eq!(request, expected);
        frame[25] = 2;
        let reply = Summary::new(LinkLayer::Ethernet, &frame).to_string();
        assert!(reply.ends_with("ARP, 10.0.0.1 is at 02:00:00:00:00:0a"), "{reply}");
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        assert_eq!(line(&[]), "empty packet");
        assert_eq!(line(&[0x45, 0]), "IPv4, truncated: 2 of 20 octets");
        assert_eq!(line(&[0x95, 0]), "IP version 9, 2 octets");
        assert_eq!(
            line(&ipv4(6, &[0; 10])),
            "IPv4 10.9.0.1 > 10.1.0.3: TCP, truncated: 10 of 20 octets"
        );
        assert_eq!(line(&ipv4(47, &[0; 10])), "IPv4 10.9.0.1 > 10.1.0.3: protocol 47, 10 octets");
        let mut fragment = ipv4(17, &[1, 2, 3]);
        fragment[7] = 2;
        let expected = "IPv4 10.9.0.1 > 10.1.0.3: fragment of 7 at 16, protocol 17, 3 octets";
        assert_eq!(line(&fragment), expected);
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(mut octets: Vec<u8>, first in 0u8..16, ethernet: bool) {
            if let Some(octet) = octets.first_mut() {
                *octet = 0x40 | (*octet & 0x2f) | first;
            }
            let link = if ethernet { LinkLayer::Ethernet } else { LinkLayer::Ip };
            prop_assert!(!Summary::new(link, &octets).to_string().is_empty());
        }
    }
}
