//! Ethernet frames of every kind pass between two TAP devices.
//!
//! ```text
//!   host A                              host B
//!   adit0 (TAP) 192.0.2.1/24 .......... adit0 (TAP) 192.0.2.2/24
//!   eth0  10.1.0.1 -------------------- eth0  10.1.0.2
//! ```

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

use lab::{Capture, Filter, Host};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use wire::ethernet::{self, Frame};

use crate::rig::pair::{End, Family, PORT, Pair};
use crate::rig::ping::assert_answers;
use crate::rig::state::assert_no_checksum_errors;
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::DEVICE;
use crate::rig::udp::{self, assert_sizes_echo};
use crate::rig::{Pattern, packet, soon, state, sys};

const BROADCAST: [u8; 6] = [0xff; 6];

/// An EtherType for local experiments (IEEE 802).
const EXPERIMENTAL: u16 = 0x88b5;

/// Less than 0x600 is the length of an 802.3 frame with an LLC header.
const LLC_LENGTH: u16 = 100;

fn tap_pair() -> Option<Pair> {
    Pair::with(End::A.device("mode = \"tap\""), End::B.device("mode = \"tap\""))
}

fn mac(host: &Host) -> [u8; 6] {
    state::link(host, DEVICE).unwrap().mac.unwrap()
}

/// Sends a frame out of the TAP device of `host`, as it is.
fn send_frame(host: &Host, frame: Vec<u8>) {
    let device = state::link(host, DEVICE).unwrap().index.0;
    host.run(move || {
        let (family, flags) = (AddressFamily::PACKET, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, None).unwrap();
        sys::send_frame(socket.as_fd(), device, &frame).unwrap();
    });
}

fn capture(host: &Host, device: &str) -> Capture {
    Capture::start(host, device, &Filter::everything()).unwrap()
}

/// Fails unless `frame` comes in at a device just so.
fn assert_arrives(capture: &mut Capture, frame: &[u8]) {
    let arrived =
        capture.find(soon(), |packet| (!packet.outgoing && packet.octets == frame).then_some(()));
    arrived.unwrap();
}

/// Fails unless `frame` is the whole datagram of a packet on the wire.
fn assert_travels(capture: &mut Capture, frame: &[u8]) {
    let is_datagram = |packet: lab::Packet| {
        let outer = wire::ipv4::Packet::parse(&packet.octets[14..]).unwrap();
        let datagram = wire::udp::Packet::parse(outer.payload()).unwrap();
        (datagram.payload() == frame).then_some(())
    };
    capture.find(soon(), is_datagram).unwrap();
}

#[test]
fn the_mtu_leaves_room_for_the_ethernet_header_and_a_vlan_tag() {
    let Some(pair) = tap_pair() else { return };
    assert_eq!(state::link(&pair.a.host, DEVICE).unwrap().mtu, 1500 - 20 - 8 - 14 - 4);
}

#[test]
fn addresses_are_resolved_through_the_tunnel() {
    let Some(pair) = tap_pair() else { return };
    let (a, b) = (&pair.a.host, &pair.b.host);
    let mut at_b = capture(b, DEVICE);
    assert_answers(a, Family::V4.inner(2));
    let arp = |packet: &lab::Packet| {
        let frame = Frame::parse(&packet.octets).unwrap();
        (frame.ethertype() == ethernet::ARP)
            .then(|| (frame.destination().0, frame.source().0, frame.payload()[7]))
    };
    let question = at_b.find(soon(), |packet| (!packet.outgoing).then(|| arp(&packet))?);
    assert_eq!(question.unwrap(), (BROADCAST, mac(a), 1));
    let answer = at_b.find(soon(), |packet| packet.outgoing.then(|| arp(&packet))?);
    assert_eq!(answer.unwrap(), (mac(a), mac(b), 2));
    assert_answers(b, Family::V6.inner(1));
}

#[test]
fn broadcasts_pass() {
    let Some(pair) = tap_pair() else { return };
    let receiver = udp::bind(&pair.b.host, (Ipv4Addr::UNSPECIFIED, 0).into());
    let port = receiver.local_addr().unwrap().port();
    pair.a.host.run(move || {
        let sender = UdpSocket::bind((Ipv4Addr::new(192, 0, 2, 1), 0)).unwrap();
        sender.set_broadcast(true).unwrap();
        sender.send_to(b"to all", (Ipv4Addr::new(192, 0, 2, 255), port)).unwrap();
    });
    let mut buffer = [0; 100];
    let (count, sender) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..count], sender.ip()), (&b"to all"[..], Family::V4.inner(1)));
}

#[test]
fn frames_that_carry_no_ip_pass_unchanged_in_every_size() {
    let Some(pair) = tap_pair() else { return };
    let (a, b) = (&pair.a.host, &pair.b.host);
    let mut at_b = capture(b, DEVICE);
    for destination in [mac(b), BROADCAST, [0x01, 0x80, 0xc2, 0, 0, 0]] {
        for (ethertype, payload) in
            [(EXPERIMENTAL, 1), (EXPERIMENTAL, 45), (LLC_LENGTH, 100), (EXPERIMENTAL, 1454)]
        {
            let payload = Pattern::new(9).octets(payload);
            let frame = packet::frame(destination, mac(a), ethertype, &payload);
            send_frame(a, frame.clone());
            assert_arrives(&mut at_b, &frame);
        }
    }
    // A device that is no port of a bridge drops what is for others, but not before it is seen.
    let stranger = packet::frame([2, 0, 0, 0, 0, 9], mac(a), EXPERIMENTAL, b"for somebody else");
    send_frame(a, stranger.clone());
    assert_arrives(&mut at_b, &stranger);
}

#[test]
fn frames_with_vlan_tags_pass_unchanged() {
    let Some(pair) = tap_pair() else { return };
    let (a, b) = (&pair.a.host, &pair.b.host);
    let mut on_wire = Capture::start(b, "eth0", &Filter::udp_port(PORT)).unwrap();
    let mut at_b = capture(b, DEVICE);
    let payload = Pattern::new(5).octets(200);
    let inner = [&EXPERIMENTAL.to_be_bytes()[..], &payload].concat();
    let single = [&[0xa0, 0x07], &inner[..]].concat();
    let double = [&[0x00, 0x09, 0x81, 0x00], &single[..]].concat();
    for (ethertype, tagged) in [(ethernet::CUSTOMER_TAG, single), (ethernet::SERVICE_TAG, double)] {
        let frame = packet::frame(mac(b), mac(a), ethertype, &tagged);
        send_frame(a, frame.clone());
        assert_travels(&mut on_wire, &frame);
        // The kernel takes the outermost tag off and remembers it beside the frame.
        let untagged = [&frame[..12], &frame[16..]].concat();
        assert_arrives(&mut at_b, &untagged);
    }
}

#[test]
fn tcp_and_udp_arrive_whole_with_right_checksums() {
    let devices = ["mode = \"tap\"", "mode = \"tap\"\noffload = false"];
    for device in devices {
        let Some(pair) = Pair::with(End::A.device(devices[0]), End::B.device(device)) else {
            return;
        };
        let (a, b) = (&pair.a.host, &pair.b.host);
        for inner in Family::BOTH {
            assert_transfers(a, b, inner.inner(2), 4 << 20);
            assert_sizes_echo(a, b, inner.inner(2), [0, 1, 1430, 1431, 65_507], || {});
        }
        assert_no_checksum_errors(a);
        assert_no_checksum_errors(b);
    }
}
