//! Packets go through every kind of device unchanged, in both directions.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what fails here fails the test")]

mod support;

use std::fs::File;
use std::io::{ErrorKind, IoSlice};
use std::num::NonZeroU16;

use device::{Builder, DEFAULT_NODE, Device, MAX_PACKET, MAX_SLICES, Mode, Offload, Queue};
use netlink::Socket;
use support::{
    BROADCAST, HELLO, LOCAL, configure, in_namespace, index, link_header, name, recv_datagram,
    socket, tun,
};
use wire::virtio::{Gso, VirtioNetHdr};

/// Every combination of mode, virtio-net header and packet information, one after the other.
fn on_every_kind(test: fn(&mut Socket, &Device)) {
    for mode in [Mode::Tun, Mode::Tap] {
        for (vnet_hdr, packet_info) in [(false, false), (false, true), (true, false), (true, true)]
        {
            in_namespace(move |netlink| {
                println!("{mode}, vnet_hdr {vnet_hdr}, packet_info {packet_info}");
                let device = Builder::new(name("dev0"), mode)
                    .vnet_hdr(vnet_hdr)
                    .packet_info(packet_info)
                    .open()
                    .unwrap();
                configure(netlink, device.name());
                test(netlink, &device);
            });
        }
    }
}

fn queue(device: &Device) -> &Queue {
    &device.queues()[0]
}

/// The octets of an IPv4 packet with UDP from the socket of the test to everyone, port 5000.
fn assert_is_datagram(packet: &[u8], payload: &[u8]) {
    let total = u16::try_from(28 + payload.len()).unwrap().to_be_bytes();
    let udp = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    assert_eq!(packet[..4], [0x45, 0x00, total[0], total[1]]);
    assert_eq!(packet[9], 17);
    assert_eq!(packet[12..20], [10, 9, 0, 1, 10, 9, 0, 255]);
    assert_eq!(packet[20..26], [0x0f, 0xa0, 0x13, 0x88, udp[0], udp[1]]);
    assert_eq!(&packet[28..], payload);
}

#[test]
fn what_the_kernel_sends_is_read() {
    on_every_kind(|_, device| {
        socket().send_to(b"octets", (BROADCAST, 5000)).unwrap();
        let (received, packet) = recv_datagram(queue(device), device.mode());
        assert_eq!(received.header, VirtioNetHdr::default());
        let link = link_header(device.mode()).len();
        if device.mode() == Mode::Tap {
            assert_eq!(packet[..6], [0xff; 6]);
            assert_eq!(packet[12..14], [0x08, 0x00]);
        }
        assert_is_datagram(&packet[link..], b"octets");
    });
}

#[test]
fn what_is_written_arrives_in_the_kernel() {
    on_every_kind(|_, device| {
        let socket = socket();
        let (ip, rest) = HELLO.split_at(20);
        let (udp, payload) = rest.split_at(8);
        let slices = [link_header(device.mode()), ip, udp, payload].map(IoSlice::new);
        queue(device).send(&VirtioNetHdr::default(), &slices).unwrap();
        let mut buffer = [0; 100];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"hello");
        assert_eq!(from, "10.9.0.2:5000".parse().unwrap());
    });
}

#[test]
fn a_packet_as_long_as_the_mtu_is_read_whole() {
    on_every_kind(|_, device| {
        let payload: Vec<u8> = (0..1472_u32).map(|i| i.to_le_bytes()[0]).collect();
        socket().send_to(&payload, (BROADCAST, 5000)).unwrap();
        let (_, packet) = recv_datagram(queue(device), device.mode());
        let link = link_header(device.mode()).len();
        assert_eq!(packet.len(), link + 1500);
        assert_is_datagram(&packet[link..], &payload);
    });
}

#[test]
fn a_packet_longer_than_the_buffer_is_an_error_and_not_cut_in_silence() {
    on_every_kind(|_, device| {
        let socket = socket();
        let link = link_header(device.mode()).len();
        let mut buffer = [0; 128];
        let exact = link + 28 + 60;
        // What the kernel sends of its own when a device comes up is out of the way.
        socket.send_to(b"first", (BROADCAST, 5000)).unwrap();
        recv_datagram(queue(device), device.mode());
        socket.send_to(&[7; 61], (BROADCAST, 5000)).unwrap();
        socket.send_to(&[8; 60], (BROADCAST, 5000)).unwrap();
        let error = recv_skipping_others(queue(device), &mut buffer[..exact]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        let len = recv_skipping_others(queue(device), &mut buffer[..exact]).unwrap();
        assert_eq!(len, exact);
        assert_is_datagram(&buffer[link..exact], &[8; 60]);
    });
}

/// Reads until something is from 10.9.0.1, which IPv6 and ARP of the kernel are not.
fn recv_skipping_others(queue: &Queue, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        let result = queue.recv(buffer).map(|received| received.len);
        let is_ours = buffer.windows(8).any(|w| w == [10, 9, 0, 1, 10, 9, 0, 255]);
        if is_ours || matches!(&result, Err(e) if e.kind() == ErrorKind::WouldBlock) {
            return result;
        }
    }
}

#[test]
fn the_longest_packet_fits_the_largest_buffer() {
    in_namespace(|netlink| {
        let device = tun("dev0").open().unwrap();
        let link = index(netlink, device.name());
        netlink.set_mtu(link, 65_535).unwrap();
        configure(netlink, device.name());
        socket().send_to(&vec![9; 65_507], (BROADCAST, 5000)).unwrap();
        let (_, packet) = recv_datagram(queue(&device), Mode::Tun);
        assert_eq!(packet.len(), 65_535);
        assert!(packet.len() < MAX_PACKET);
    });
}

#[test]
fn udp_super_packets_come_whole_when_asked_for_and_cut_when_not() {
    for mode in [Mode::Tun, Mode::Tap] {
        in_namespace(move |netlink| {
            let device = Builder::new(name("dev0"), mode)
                .vnet_hdr(true)
                .offload(Offload::ALL)
                .open()
                .unwrap();
            if !device.offload().uso4 {
                println!("skipped: this kernel is older than 6.2 and has no USO");
                return;
            }
            assert_eq!(device.offload(), Offload::ALL);
            configure(netlink, device.name());
            let socket = socket();
            support::sys::set_udp_segment(&socket, 1000).unwrap();
            socket.send_to(&[5; 9500], (BROADCAST, 5000)).unwrap();
            let (received, packet) = recv_datagram(queue(&device), mode);
            let link = link_header(mode).len();
            assert_eq!(received.len, link + 28 + 9500);
            assert_eq!(received.header.gso, Gso::UdpL4);
            assert_eq!(received.header.gso_size, 1000);
            assert!(received.header.needs_checksum());
            assert_eq!(usize::from(received.header.csum_start), link + 20);
            assert_eq!(received.header.csum_offset, 6);
            assert_eq!(packet[link + 28..], [5; 9500]);
        });
        in_namespace(move |netlink| {
            let device = Builder::new(name("dev0"), mode).vnet_hdr(true).open().unwrap();
            configure(netlink, device.name());
            let socket = socket();
            support::sys::set_udp_segment(&socket, 1000).unwrap();
            socket.send_to(&[5; 2500], (BROADCAST, 5000)).unwrap();
            for payload in [1000, 1000, 500] {
                let (received, packet) = recv_datagram(queue(&device), mode);
                assert_eq!(received.header, VirtioNetHdr::default());
                assert_eq!(packet.len(), link_header(mode).len() + 28 + payload);
            }
        });
    }
}

#[test]
fn a_written_super_packet_arrives_as_its_datagrams() {
    in_namespace(|netlink| {
        let device = tun("dev0").vnet_hdr(true).open().unwrap();
        configure(netlink, device.name());
        let socket = socket();
        // UDP of 8 + 12 octets; the sum over 10.9.0.2, 10.9.0.1, protocol 17 and that length is
        // left in the checksum field, as NEEDS_CSUM wants it.
        let mut packet = HELLO[..28].to_vec();
        packet.extend_from_slice(b"onetwosixten");
        packet[2..4].copy_from_slice(&40_u16.to_be_bytes());
        packet[10..12].copy_from_slice(&[0x26, 0xb1]);
        packet[24..28].copy_from_slice(&[0x00, 0x14, 0x14, 0x3a]);
        let header = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            gso: Gso::UdpL4,
            hdr_len: 28,
            gso_size: 6,
            csum_start: 20,
            csum_offset: 6,
            ..VirtioNetHdr::default()
        };
        queue(&device).send(&header, &[IoSlice::new(&packet)]).unwrap();
        let mut buffer = [0; 100];
        for expected in [b"onetwo", b"sixten"] {
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], expected);
        }
    });
}

#[test]
fn a_packet_may_be_in_as_many_slices_as_the_kernel_takes_and_no_more() {
    on_every_kind(|_, device| {
        let socket = socket();
        let whole = [link_header(device.mode()), HELLO.as_slice()].concat();
        let mut slices: Vec<IoSlice<'_>> = whole.chunks(1).map(IoSlice::new).collect();
        slices.resize(MAX_SLICES, IoSlice::new(&[]));
        queue(device).send(&VirtioNetHdr::default(), &slices).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
        slices.push(IoSlice::new(&[]));
        let error = queue(device).send(&VirtioNetHdr::default(), &slices).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    });
}

#[test]
fn what_is_no_packet_is_refused() {
    on_every_kind(|_, device| {
        let header = VirtioNetHdr::default();
        let send = |octets: &[u8]| queue(device).send(&header, &[IoSlice::new(octets)]);
        let no_packets: &[&[u8]] = match device.mode() {
            Mode::Tun => &[&[], &[0x00; 40], &[0xf5; 40]],
            Mode::Tap => &[&[], &[0x45; 13]],
        };
        for octets in no_packets {
            let error = send(octets).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{octets:?}");
        }
    });
}

#[test]
fn an_empty_queue_says_would_block_and_a_device_that_is_down_says_eio() {
    on_every_kind(|netlink, device| {
        let link = index(netlink, device.name());
        netlink.set_up(link, false).unwrap();
        let mut buffer = [0; 2000];
        while queue(device).recv(&mut buffer).is_ok() {}
        let error = queue(device).recv(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let slices = [IoSlice::new(link_header(device.mode())), IoSlice::new(&HELLO)];
        let error = queue(device).send(&VirtioNetHdr::default(), &slices).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    });
}

#[test]
fn a_deleted_device_says_ebadfd() {
    on_every_kind(|netlink, device| {
        let link = index(netlink, device.name());
        netlink.delete_link(link).unwrap();
        let mut buffer = [0; 2000];
        let error = queue(device).recv(&mut buffer).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
        let slices = [IoSlice::new(&HELLO)];
        let error = queue(device).send(&VirtioNetHdr::default(), &slices).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
    });
}

#[test]
fn a_descriptor_that_was_handed_on_reads_the_same_packets() {
    for (mode, packet_info, vnet_hdr) in
        [(Mode::Tun, false, true), (Mode::Tap, false, true), (Mode::Tun, true, false)]
    {
        in_namespace(move |netlink| {
            let builder = Builder::new(name("dev0"), mode);
            let device = builder.vnet_hdr(vnet_hdr).packet_info(packet_info).open().unwrap();
            configure(netlink, device.name());
            let descriptor = rustix::io::fcntl_dupfd_cloexec(queue(&device), 0).unwrap();
            let queue = Queue::from_descriptor(descriptor, packet_info).unwrap();
            socket().send_to(b"octets", (BROADCAST, 5000)).unwrap();
            let (_, packet) = recv_datagram(&queue, mode);
            assert_is_datagram(&packet[link_header(mode).len()..], b"octets");
        });
    }
}

#[test]
fn a_descriptor_that_is_attached_to_nothing_is_no_queue() {
    let open = |path| File::options().read(true).write(true).open(path);
    let errno = |file: File| Queue::from_descriptor(file.into(), false).unwrap_err().raw_os_error();
    assert_eq!(errno(open("/dev/null").unwrap()), Some(libc::ENOTTY));
    if let Ok(node) = open(DEFAULT_NODE) {
        assert_eq!(errno(node), Some(libc::EBADFD));
    }
}

#[test]
fn every_queue_of_a_device_can_be_written_to() {
    in_namespace(|netlink| {
        let queues = NonZeroU16::new(3).unwrap();
        let device = tun("dev0").queues(queues).vnet_hdr(true).open().unwrap();
        configure(netlink, device.name());
        let socket = socket();
        let queues = device.into_queues();
        assert_eq!(queues.len(), 3);
        for queue in &queues {
            queue.send(&VirtioNetHdr::default(), &[IoSlice::new(&HELLO)]).unwrap();
            let mut buffer = [0; 100];
            assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
        }
        assert_eq!(socket.local_addr().unwrap().ip().to_string(), LOCAL);
    });
}
