//! The size of TCP segments that a gateway's tunnel can carry is what both ends hear of.
//!
//! ```text
//!   host A                             host B: forward             host C
//!   a socket that sends inner          adit0 192.0.2.2, MTU 1300
//!   packets made by hand
//!   eth0 10.1.0.1 -------------------- eth0  10.1.0.2
//!                                      eth1  198.51.100.2 -------- eth0 198.51.100.3, a TCP server
//!
//!   SYN, MSS 1460 -------------------> MTU - 40 or - 60 ---------> seen at C
//!   seen at A <----------------------- MTU - 40 or - 60 <--------- SYN and ACK, MSS 1460
//! ```

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use lab::{Capture, Filter, Gateway};
use rustix::process::Signal;
use wire::checksum::Sum;
use wire::ethernet::Frame;

use crate::rig::gateway::{hosts, inside};
use crate::rig::pair::{End, Family, PORT};
use crate::rig::sh::{assert_same, everything, sh};
use crate::rig::tunnel::{Files, Tunnel};
use crate::rig::wire::assert_complete;
use crate::rig::{packet, soon, udp};

const TCP: u8 = 6;

/// The header with one option, the maximum segment size (RFC 9293, 3.2): flags, and where it is.
const HEADER: usize = 24;
const SYN: u8 = 0x02;
const MSS: std::ops::Range<usize> = 22..24;

/// The port that the connections come from.
const SOURCE_PORT: u16 = 40_000;

/// What A, B's peer, sends and gets.
struct Peer(UdpSocket);

impl Peer {
    fn of(hosts: &Gateway) -> Self {
        let socket = udp::bind(&hosts.a, SocketAddr::new(Family::V4.outer(1), PORT));
        socket.connect(SocketAddr::new(Family::V4.outer(2), PORT)).unwrap();
        Self(socket)
    }

    fn send(&self, inner: &[u8]) {
        self.0.send(inner).unwrap();
    }

    /// The next TCP packet that comes out of the tunnel.
    fn receive(&self) -> Vec<u8> {
        let mut datagram = vec![0; 65_536];
        loop {
            let count = self.0.recv(&mut datagram).unwrap();
            if segment(&datagram[..count]).is_some() {
                return datagram[..count].to_vec();
            }
        }
    }
}

/// A connection's first packet.
fn syn(from: SocketAddr, to: SocketAddr, mss: u16) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    // Sequence number, acknowledgement; length of the header and flags; window, checksum, urgent.
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 6 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend([2, 4]);
    segment.extend(mss.to_be_bytes());
    let mut sum = Sum::new();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum.add_pseudo_header_v4(from, to, TCP, 24),
        (IpAddr::V6(from), IpAddr::V6(to)) => sum.add_pseudo_header_v6(from, to, TCP, 24),
        _ => panic!("both addresses are of one family"),
    }
    sum.add(&segment);
    let checksum = sum.finish();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet::ip(from.ip(), to.ip(), TCP, &segment)
}

/// The TCP segment in an IP packet without extensions.
fn segment(packet: &[u8]) -> Option<&[u8]> {
    match packet.first()? >> 4 {
        4 if packet[9] == TCP => Some(&packet[20..]),
        6 if packet[6] == TCP => Some(&packet[40..]),
        _ => None,
    }
}

/// The maximum segment size in a packet whose first option that is.
fn mss(packet: &[u8]) -> u16 {
    assert_complete(packet);
    let segment = segment(packet).unwrap();
    assert!(segment.len() >= HEADER && segment[20..22] == [2, 4], "no MSS: {segment:02x?}");
    u16::from_be_bytes(segment[MSS].try_into().unwrap())
}

/// The segment sizes that C sees, and that C's answer has at A.
fn seen(hosts: &Gateway, peer: &Peer, family: Family, port: u16, sent: u16) -> (u16, u16) {
    let address = inside(family);
    let listener = hosts.c.run(move || TcpListener::bind((address, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let mut capture = Capture::start(&hosts.c, "eth0", &Filter::everything()).unwrap();
    peer.send(&syn(SocketAddr::new(family.inner(1), port), target, sent));
    let arrived = capture.find(soon(), |found| {
        let frame = Frame::parse(&found.octets).unwrap();
        let packet = frame.payload().to_vec();
        (!found.outgoing && segment(&packet).is_some()).then_some(packet)
    });
    (mss(&arrived.unwrap()), mss(&peer.receive()))
}

/// What either side hears, of connections that come with `sent`, if B's end is `b`.
fn assert_clamps(b: End, cases: &[(Family, u16, (u16, u16))]) {
    let Some(hosts) = hosts() else { return };
    let back = "ip route add 192.0.2.0/24 via 198.51.100.2; \
        ip route add fd00:7::/64 via 2001:db8:100::2";
    sh(&hosts.c, back);
    let (files, before) = (Files::new(), everything(&hosts.b));
    let tunnel = Tunnel::up(&hosts.b, &files, "b", &b.toml());
    let peer = Peer::of(&hosts);
    for (port, &(family, sent, expected)) in (SOURCE_PORT..).zip(cases) {
        assert_eq!(seen(&hosts, &peer, family, port, sent), expected, "{family:?}, {sent} sent");
    }
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    assert_same(&before, &everything(&hosts.b));
}

#[test]
fn segments_fit_into_the_mtu_that_is_given() {
    let end = End::B.device("mtu = 1300").network("forward = true");
    assert_clamps(end, &[(Family::V4, 1460, (1260, 1260)), (Family::V6, 1440, (1240, 1240))]);
}

#[test]
fn segments_fit_into_the_mtu_that_is_derived() {
    let end = End::B.network("forward = true");
    assert_clamps(end, &[(Family::V4, 1460, (1432, 1432)), (Family::V6, 1440, (1412, 1412))]);
}

#[test]
fn a_segment_size_that_is_smaller_stays() {
    let end = End::B.device("mtu = 1300").network("forward = true");
    assert_clamps(end, &[(Family::V4, 700, (700, 1260)), (Family::V6, 700, (700, 1240))]);
}
