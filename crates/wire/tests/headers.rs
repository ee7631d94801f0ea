//! The header views read what an independent library wrote.

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};
use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, UdpHeader};
use proptest::prelude::*;
use wire::checksum::Sum;
use wire::ethernet::{Frame, MacAddr};
use wire::flow::FiveTuple;
use wire::{icmp, ip, ipv4, ipv6, tcp, udp};

proptest! {
    #[test]
    fn ipv4_with_options_reads_as_it_was_written(
        payload in prop::collection::vec(any::<u8>(), 0..50),
        (ttl, protocol, id, dont_fragment) in any::<(u8, u8, u16, bool)>(),
        (src, dst) in any::<([u8; 4], [u8; 4])>(),
        options in prop::sample::select(vec![0usize, 4, 16, 40]),
    ) {
        let len = u16::try_from(payload.len()).unwrap();
        let mut header = Ipv4Header::new(len, ttl, IpNumber(protocol), src, dst).unwrap();
        header.identification = id;
        header.dont_fragment = dont_fragment;
        header.options = vec![1; options].as_slice().try_into().unwrap();
        header.set_payload_len(payload.len()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let octets = [&header.to_bytes()[..], &payload].concat();

        let packet = ipv4::Packet::parse(&octets).unwrap();
        prop_assert!(packet.checksum_is_valid());
        prop_assert_eq!(packet.header_len(), header.header_len());
        prop_assert_eq!(packet.payload(), &payload);
        prop_assert_eq!((packet.ttl(), packet.protocol(), packet.id()), (ttl, protocol, id));
        prop_assert_eq!(packet.dont_fragment(), dont_fragment);
        prop_assert_eq!(packet.source().octets(), src);
        prop_assert_eq!(ip::destination(&octets), Some(dst.into()));
    }

    #[test]
    fn ipv6_reads_as_it_was_written(
        payload in prop::collection::vec(any::<u8>(), 0..50),
        (traffic_class, flow_label, hop_limit) in any::<(u8, u32, u8)>(),
        (source, destination) in any::<([u8; 16], [u8; 16])>(),
    ) {
        let flow_label = flow_label & 0xfffff;
        let header = Ipv6Header {
            traffic_class,
            flow_label: Ipv6FlowLabel::try_new(flow_label).unwrap(),
            payload_length: u16::try_from(payload.len()).unwrap(),
            next_header: IpNumber::UDP,
            hop_limit,
            source,
            destination,
        };
        let octets = [&header.to_bytes()[..], &payload].concat();
        let packet = ipv6::Packet::parse(&octets).unwrap();
        prop_assert_eq!(packet.traffic_class(), traffic_class);
        prop_assert_eq!(packet.flow_label(), flow_label);
        prop_assert_eq!((packet.hop_limit(), packet.protocol()), (hop_limit, 17));
        prop_assert_eq!(packet.payload(), &payload);
        prop_assert_eq!(ip::source(&octets), Some(source.into()));
        prop_assert_eq!(packet.destination().octets(), destination);
    }

    #[test]
    fn tcp_in_a_frame_reads_as_it_was_written(
        payload in prop::collection::vec(any::<u8>(), 0..50),
        (src_port, dst_port, sequence, ack, window) in any::<(u16, u16, u32, u32, u16)>(),
        (src, dst) in any::<([u8; 4], [u8; 4])>(),
        (mac_src, mac_dst, vlan) in any::<([u8; 6], [u8; 6], u16)>(),
    ) {
        let vlan = vlan & 0x0fff;
        let builder = PacketBuilder::ethernet2(mac_src, mac_dst)
            .single_vlan(vlan.try_into().unwrap())
            .ipv4(src, dst, 64)
            .tcp(src_port, dst_port, sequence, window)
            .psh()
            .ack(ack)
            .options_raw(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8])
            .unwrap();
        let mut octets = Vec::new();
        builder.write(&mut octets, &payload).unwrap();

        let frame = Frame::parse(&octets).unwrap();
        prop_assert_eq!((frame.source(), frame.destination()), (MacAddr(mac_src), MacAddr(mac_dst)));
        prop_assert_eq!(frame.vlans().collect::<Vec<_>>(), [vlan]);
        let packet = ipv4::Packet::parse(frame.payload()).unwrap();
        let segment = tcp::Packet::parse(packet.payload()).unwrap();
        prop_assert_eq!((segment.source_port(), segment.destination_port()), (src_port, dst_port));
        prop_assert_eq!((segment.sequence(), segment.acknowledgment()), (sequence, ack));
        prop_assert_eq!(segment.flags(), tcp::Flags::PSH | tcp::Flags::ACK);
        prop_assert_eq!((segment.window(), segment.options().len()), (window, 12));
        prop_assert_eq!(segment.payload(), &payload);

        let mut sum = Sum::new();
        let len = u16::try_from(packet.payload().len()).unwrap();
        sum.add_pseudo_header_v4(packet.source(), packet.destination(), 6, len);
        sum.add(packet.payload());
        prop_assert_eq!(sum.fold(), 0xffff);
        let flow = FiveTuple::of(frame.payload()).unwrap();
        prop_assert_eq!((flow.protocol, flow.source_port, flow.destination_port), (6, src_port, dst_port));
    }

    #[test]
    fn checksums_over_ipv6_agree(
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        (src, dst) in any::<([u8; 16], [u8; 16])>(),
        (src_port, dst_port) in any::<(u16, u16)>(),
    ) {
        let mut octets = Vec::new();
        PacketBuilder::ipv6(src, dst, 64).udp(src_port, dst_port).write(&mut octets, &payload).unwrap();
        let packet = ipv6::Packet::parse(&octets).unwrap();
        let datagram = udp::Packet::parse(packet.payload()).unwrap();
        prop_assert_eq!((datagram.source_port(), datagram.destination_port()), (src_port, dst_port));
        prop_assert_eq!(datagram.payload(), &payload);

        let mut sum = Sum::new();
        let len = u32::try_from(packet.payload().len()).unwrap();
        sum.add_pseudo_header_v6(src.into(), dst.into(), 17, len);
        sum.add(&packet.payload()[..6]);
        sum.add(&packet.payload()[8..]);
        prop_assert_eq!(sum.finish_udp(), datagram.checksum());

        let mut octets = Vec::new();
        PacketBuilder::ipv6(src, dst, 64).icmpv6_echo_request(7, 9).write(&mut octets, &payload).unwrap();
        let packet = ipv6::Packet::parse(&octets).unwrap();
        let message = icmp::Packet::parse(icmp::Version::V6, packet.payload()).unwrap();
        prop_assert_eq!((message.echo_id(), message.echo_sequence()), (7, 9));
        prop_assert!(message.checksum_is_valid(ip::addresses(&octets).unwrap()));
    }

    #[test]
    fn what_one_parser_takes_the_other_takes_too(
        mut octets in prop::collection::vec(any::<u8>(), 0..120),
        first in prop::option::of(0x44u8..0x48),
        total_len in prop::option::of(0u8..130),
    ) {
        if let (Some(first), [octet, _, high, low, ..]) = (first, &mut octets[..]) {
            *octet = first;
            (*high, *low) = (0, total_len.unwrap_or(*low));
        }
        let theirs = Ipv4Header::from_slice(&octets).ok().filter(|(header, rest)| {
            let total_len = usize::from(header.total_len);
            (header.header_len()..=header.header_len() + rest.len()).contains(&total_len)
        });
        prop_assert_eq!(ipv4::Packet::parse(&octets).is_ok(), theirs.is_some());
        prop_assert_eq!(tcp::Packet::parse(&octets).is_ok(), TcpHeader::from_slice(&octets).is_ok());
        if let Ok(datagram) = udp::Packet::parse(&octets) {
            let (header, _) = UdpHeader::from_slice(&octets).unwrap();
            prop_assert_eq!(header.source_port, datagram.source_port());
        }
        if let (Ok(frame), Ok((header, _))) =
            (Frame::parse(&octets), Ethernet2Header::from_slice(&octets))
        {
            prop_assert_eq!(frame.source().0, header.source);
            if header.ether_type == EtherType::IPV4 {
                prop_assert_eq!(frame.header_len(), 14);
            }
        }
    }

    #[test]
    fn no_parser_panics_and_no_accessor_after_it(
        mut octets in prop::collection::vec(any::<u8>(), 0..200),
        version in prop::sample::select(vec![0x40u8, 0x60]),
        next_header in prop::sample::select(vec![0u8, 6, 17, 43, 44, 51, 58, 60]),
    ) {
        if let [first, _, _, _, high, _, next, ..] = &mut octets[..] {
            *first = version | *first & 0x0f;
            *high = 0;
            *next = next_header;
        }
        let _ = SlicedPacket::from_ip(&octets);
        if let Ok(packet) = ipv6::Packet::parse(&octets) {
            let parts = packet.header_len() + packet.payload().len();
            prop_assert_eq!(parts, packet.total_len());
            prop_assert!(packet.total_len() <= octets.len());
        }
        if let Ok(packet) = ipv4::Packet::parse(&octets) {
            prop_assert!(packet.total_len() <= octets.len());
            prop_assert!(packet.fragment_offset() < 65_536);
        }
        if let Ok(message) = icmp::Packet::parse(icmp::Version::V4, &octets) {
            prop_assert_eq!(message.payload().len() + icmp::HEADER_LEN, octets.len());
            let _ = (message.kind(), message.next_hop_mtu(), message.code());
        }
        if let Some(flow) = FiveTuple::of(&octets) {
            prop_assert_eq!(flow.hash(), flow.hash());
        }
        prop_assert_eq!(ip::source(&octets).is_some(), ip::destination(&octets).is_some());
    }
}
