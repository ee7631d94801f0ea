//! `wire`: every parser of headers, the flow, the addresses and the summary.
//!
//! Input: the octets as they stand. Each parser gets all of them, and those of upper layers also get
//! the payloads of lower ones.

use wire::ethernet::{self, Frame};
use wire::flow::FiveTuple;
use wire::icmp::{self, Version};
use wire::ip::{self, IpAddrs};
use wire::offload::LinkLayer;
use wire::summary::Summary;
use wire::{ipv4, ipv6, tcp, udp};

use crate::naive;

/// More octets than one line about a packet can have.
const LONGEST_SUMMARY: usize = 1000;

/// Headers that are read fill their packet exactly, accessors agree with each other, and nothing
/// panics.
pub fn check(data: &[u8]) {
    check_frame(data);
    check_ip(data);
    check_upper(data, None);
    for link in [LinkLayer::Ip, LinkLayer::Ethernet] {
        check_summary(&Summary::new(link, data).to_string());
    }
}

fn check_summary(summary: &str) {
    assert!(!summary.is_empty(), "nothing is said");
    assert!(summary.len() < LONGEST_SUMMARY, "{} octets are said", summary.len());
    assert!(!summary.contains(char::is_control), "terminals would obey {summary:?}");
}

fn check_frame(data: &[u8]) {
    let Ok(frame) = Frame::parse(data) else { return };
    assert_eq!(frame.header_len() + frame.payload().len(), data.len());
    let tags = frame.vlans().count();
    assert_eq!(frame.header_len(), ethernet::HEADER_LEN + tags * ethernet::TAG_LEN);
    assert!(frame.vlans().all(|vlan| vlan < 4096), "a VLAN has twelve bits");
    assert_eq!(frame.destination().0[..], data[..6]);
    assert_eq!(frame.source().0[..], data[6..12]);
    check_ip(frame.payload());
}

fn check_ip(data: &[u8]) {
    let flow = FiveTuple::of(data);
    let v4 = ipv4::Packet::parse(data);
    let v6 = ipv6::Packet::parse(data);
    assert!(v4.is_err() || v6.is_err(), "a packet has one version");
    assert_eq!(flow.is_some(), v4.is_ok() || v6.is_ok());
    if let Ok(packet) = v4 {
        check_ipv4(data, packet);
    }
    if let Ok(packet) = v6 {
        check_ipv6(data, packet);
    }
    if let Some(flow) = flow {
        check_flow(data, &flow);
    }
    assert_eq!(ip::addresses(data).is_some(), ip::source(data).is_some());
    assert_eq!(ip::addresses(data).is_some(), ip::destination(data).is_some());
}

fn check_ipv4(data: &[u8], packet: ipv4::Packet<'_>) {
    let header_len = packet.header_len();
    assert!((ipv4::HEADER_LEN..=ipv4::MAX_HEADER_LEN).contains(&header_len));
    assert_eq!(packet.options().len(), header_len - ipv4::HEADER_LEN);
    assert_eq!(packet.total_len(), header_len + packet.payload().len());
    assert!(packet.total_len() <= data.len());
    assert_eq!(packet.payload(), &data[header_len..packet.total_len()]);
    assert!(packet.is_fragment() || packet.fragment_offset() == 0);
    let is_valid = naive::sum(&data[..header_len]) == 0xffff;
    assert_eq!(packet.checksum_is_valid(), is_valid);
    let addrs = IpAddrs::V4 { src: packet.source(), dst: packet.destination() };
    assert_eq!(ip::addresses(data), Some(addrs));
    check_length_rewrite(data, packet);
    check_upper(packet.payload(), Some(addrs));
}

/// A rewritten total length comes with a checksum that fits.
fn check_length_rewrite(data: &[u8], packet: ipv4::Packet<'_>) {
    let Some(mut fixed) = data.first_chunk().copied() else { return };
    ipv4::set_total_len(&mut fixed, packet.options(), 1234);
    let header = [&fixed[..], packet.options()].concat();
    assert_eq!(header[2..4], 1234_u16.to_be_bytes());
    assert!(naive::is_same(naive::sum(&header), 0));
}

fn check_ipv6(data: &[u8], packet: ipv6::Packet<'_>) {
    assert_eq!(packet.header_len(), ipv6::HEADER_LEN + packet.extensions().len());
    assert_eq!(packet.total_len(), packet.header_len() + packet.payload().len());
    assert!(packet.total_len() <= data.len());
    assert_eq!(packet.payload(), &data[packet.header_len()..packet.total_len()]);
    assert!(packet.flow_label() < 1 << 20, "a flow label has twenty bits");
    let addrs = IpAddrs::V6 { src: packet.source(), dst: packet.destination() };
    assert_eq!(ip::addresses(data), Some(addrs));
    check_upper(packet.payload(), Some(addrs));
}

fn check_flow(data: &[u8], flow: &FiveTuple) {
    assert_eq!(Some(flow.addrs), ip::addresses(data));
    assert_eq!(FiveTuple::of(data).map(|again| again.hash()), Some(flow.hash()));
}

/// What follows an IP header, whatever the header said it is.
fn check_upper(data: &[u8], addrs: Option<IpAddrs>) {
    if let Ok(packet) = tcp::Packet::parse(data) {
        assert!((tcp::HEADER_LEN..=tcp::MAX_HEADER_LEN).contains(&packet.header_len()));
        assert_eq!(packet.options().len(), packet.header_len() - tcp::HEADER_LEN);
        assert_eq!(packet.header_len() + packet.payload().len(), data.len());
        assert!(packet.flags().to_string().len() < 64);
    }
    if let Ok(packet) = udp::Packet::parse(data) {
        assert!(udp::HEADER_LEN + packet.payload().len() <= data.len());
        assert_eq!(packet.source_port().to_be_bytes(), data[..2]);
    }
    for version in [Version::V4, Version::V6] {
        check_icmp(version, data, addrs);
    }
}

fn check_icmp(version: Version, data: &[u8], addrs: Option<IpAddrs>) {
    let Ok(packet) = icmp::Packet::parse(version, data) else { return };
    assert_eq!(packet.kind_number(), data[0]);
    assert!(packet.payload().len() < data.len());
    if let (Version::V4, Some(addrs)) = (version, addrs) {
        // Zeros alone sum to 0x0000, and their checksum would be 0xffff.
        let is_valid = naive::sum(data) == 0xffff;
        assert_eq!(packet.checksum_is_valid(addrs), is_valid);
    }
}
