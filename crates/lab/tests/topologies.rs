//! The topologies, without a tunnel.
//!
//! ```text
//!   two-hosts                          three-hosts
//!   host A ---------- host B           host A    host B    host C
//!   10.1.0.1          10.1.0.2         10.1.0.1  10.1.0.2  10.1.0.3
//!   fd01::1           fd01::2            |         |         |
//!                                      --+---------+---------+-- lan
//!
//!   gateway
//!   host A                      host B                           host C
//!   10.1.0.1, fd01::1 --------- 10.1.0.2, fd01::2
//!   10.2.0.1, fd02::1 - nobody  198.51.100.2, 2001:db8:100::2 -- 198.51.100.3, 2001:db8:100::3
//!
//!   shared-folder
//!   host A                      host B                           host C
//!   a folder ------------------ the folder
//!                               198.51.100.2, 2001:db8:100::2 -- 198.51.100.3, 2001:db8:100::3
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use common::{assert_gone, namespace, privileged};
use lab::capture::CaptureError;
use lab::{
    Capture, Deadline, Filter, Gateway, Host, SharedFolder, ThreeHosts, TwoHosts, Witness,
    throughput,
};
use netlink::nftables::{self, Hook, Policy};
use netlink::{Route, Socket, sysctl};

fn soon() -> Deadline<'static> {
    Deadline::after(Duration::from_secs(10))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Sends `payload` from `from` to `address`, which `to` has; returns what arrived and from whom.
fn send(from: &Host, to: &Host, address: IpAddr, payload: &'static [u8]) -> (Vec<u8>, SocketAddr) {
    let receiver = to.run(move || UdpSocket::bind((address, 0)).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let target = receiver.local_addr().unwrap();
    from.run(move || {
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(any).unwrap().send_to(payload, target).unwrap()
    });
    let mut buffer = [0; 2000];
    let (count, sender) = receiver.recv_from(&mut buffer).unwrap();
    (buffer[..count].to_vec(), sender)
}

fn assert_reaches(from: &Host, to: &Host, target: &str, source: &str) {
    let (payload, sender) = send(from, to, address(target), b"hello");
    assert_eq!((payload.as_slice(), sender.ip()), (b"hello".as_slice(), address(source)));
}

#[test]
fn two_hosts_reach_each_other_over_ipv4_and_ipv6_from_the_first_packet() {
    if !privileged() {
        return;
    }
    let TwoHosts { a, b } = TwoHosts::build().unwrap();
    assert_reaches(&a, &b, "10.1.0.2", "10.1.0.1");
    assert_reaches(&b, &a, "10.1.0.1", "10.1.0.2");
    assert_reaches(&a, &b, "fd01::2", "fd01::1");
    assert_reaches(&b, &a, "fd01::1", "fd01::2");
}

#[test]
fn three_hosts_reach_each_other_over_ipv4_and_ipv6_from_the_first_packet() {
    if !privileged() {
        return;
    }
    let ThreeHosts { a, b, c, lan: _lan } = ThreeHosts::build().unwrap();
    let hosts = [(&a, 1), (&b, 2), (&c, 3)];
    for (from, source) in hosts {
        for (to, target) in hosts.into_iter().filter(|(_, target)| *target != source) {
            assert_reaches(from, to, &format!("10.1.0.{target}"), &format!("10.1.0.{source}"));
            assert_reaches(from, to, &format!("fd01::{target}"), &format!("fd01::{source}"));
        }
    }
}

#[test]
fn the_hosts_of_each_wire_of_the_gateway_reach_each_other_over_ipv4_and_ipv6() {
    if !privileged() {
        return;
    }
    let Gateway { a, b, c, dead_end: _dead_end } = Gateway::build().unwrap();
    assert_reaches(&a, &b, "10.1.0.2", "10.1.0.1");
    assert_reaches(&a, &b, "fd01::2", "fd01::1");
    assert_reaches(&b, &c, "198.51.100.3", "198.51.100.2");
    assert_reaches(&b, &c, "2001:db8:100::3", "2001:db8:100::2");
    assert_reaches(&c, &b, "198.51.100.2", "198.51.100.3");
}

#[test]
fn of_the_shared_folder_only_b_and_c_reach_each_other_and_the_folder_goes_in_the_end() {
    if !privileged() {
        return;
    }
    let topology = SharedFolder::build().unwrap();
    let SharedFolder { a, b, c, .. } = &topology;
    assert_reaches(b, c, "198.51.100.3", "198.51.100.2");
    assert_reaches(c, b, "2001:db8:100::2", "2001:db8:100::3");
    let links = a.run(|| Socket::open().unwrap().links().unwrap());
    let names: Vec<_> = links.into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo"]);
    let folder = topology.folder().to_owned();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    drop(topology);
    assert!(!folder.exists());
}

/// Destination, router, link and metric of the default routes, IPv4 first and the lowest metric first.
fn default_routes(host: &Host) -> Vec<String> {
    host.run(|| {
        let mut socket = Socket::open().unwrap();
        let mut routes = socket.routes().unwrap();
        routes.retain(|route| route.destination.prefix_len() == 0);
        routes.sort_by_key(|route| (route.destination, route.metric));
        let name = |route: &Route, socket: &mut Socket| {
            socket.link_at(route.link.unwrap()).unwrap().unwrap().name
        };
        let line = |route: &Route| {
            let (via, name) = (route.via.unwrap(), name(route, &mut socket));
            format!("{} via {via} dev {name} metric {:?}", route.destination, route.metric)
        };
        routes.iter().map(line).collect()
    })
}

#[test]
fn the_gateways_client_has_two_default_routes_of_each_family() {
    if !privileged() {
        return;
    }
    let topology = Gateway::build().unwrap();
    assert_eq!(
        default_routes(&topology.a),
        [
            "0.0.0.0/0 via 10.1.0.2 dev eth0 metric Some(100)",
            "0.0.0.0/0 via 10.2.0.254 dev eth1 metric Some(200)",
            "::/0 via fd01::2 dev eth0 metric Some(100)",
            "::/0 via fd02::254 dev eth1 metric Some(200)",
        ]
    );
    assert_eq!(
        default_routes(&topology.b),
        [
            "0.0.0.0/0 via 198.51.100.3 dev eth1 metric None",
            "::/0 via 2001:db8:100::3 dev eth1 metric Some(1024)",
        ]
    );
    assert!(default_routes(&topology.c).is_empty());
}

#[test]
fn the_gateways_forward_chains_have_the_names_of_iptables_and_drop() {
    if !privileged() {
        return;
    }
    let topology = Gateway::build().unwrap();
    let chains = topology.b.run(|| nftables::Socket::open().unwrap().base_chains().unwrap());
    let names: Vec<_> = chains.iter().map(|chain| chain.id().to_string()).collect();
    assert_eq!(names, ["ip filter FORWARD", "ip6 filter FORWARD"]);
    for chain in chains {
        assert_eq!((chain.hook, chain.policy, chain.priority), (Hook::Forward, Policy::Drop, 0));
    }
}

#[test]
fn the_gateway_drops_what_it_is_to_forward_even_if_it_forwards() {
    if !privileged() {
        return;
    }
    let topology = Gateway::build().unwrap();
    let Gateway { a, b, c, dead_end: _ } = &topology;
    b.run(|| sysctl::write("net.ipv4.ip_forward", "1").unwrap());
    c.run(|| {
        let via = Some(Gateway::UPLINK.into());
        let lan = "10.1.0.0/24".parse().unwrap();
        Socket::open().unwrap().add_route(&Route { via, ..Route::new(lan) }).unwrap();
    });
    let receiver = c.run(|| UdpSocket::bind((Gateway::C, 0)).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let target = receiver.local_addr().unwrap();
    a.run(move || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"from A", target).unwrap());
    // What B passes on is at C before what B sends later, once B has seen all that A sent.
    assert_reaches(a, b, "10.1.0.2", "10.1.0.1");
    b.run(move || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"from B", target).unwrap());
    let mut buffer = [0; 16];
    let count = receiver.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"from B");
}

#[test]
fn hosts_filter_reverse_paths_strictly_and_do_not_forward() {
    if !privileged() {
        return;
    }
    let (three_hosts, gateway) = (ThreeHosts::build().unwrap(), Gateway::build().unwrap());
    for host in three_hosts.hosts().into_iter().chain(gateway.hosts()) {
        for link in ["all", "default", "lo", "eth0"] {
            let key = sysctl::key_for_interface("net.ipv4.conf", link, "rp_filter");
            assert_eq!(
                host.run(move || sysctl::read(&key).unwrap()),
                "1",
                "{link} of {}",
                host.name()
            );
        }
        assert_eq!(host.run(|| sysctl::read("net.ipv4.ip_forward").unwrap()), "0");
        assert_eq!(host.run(|| sysctl::read("net.ipv6.conf.all.forwarding").unwrap()), "0");
    }
}

#[test]
fn hardware_addresses_and_mtu_are_the_same_in_every_run() {
    if !privileged() {
        return;
    }
    let ethernet = |host: &Host| {
        let link = host.run(|| Socket::open().unwrap().link("eth0").unwrap().unwrap());
        (link.mac, link.mtu)
    };
    let topology = ThreeHosts::build().unwrap();
    assert_eq!(ethernet(&topology.a), (Some([0x02, 0xad, 0x17, 0, 0, 1]), 1500));
    assert_eq!(ethernet(&topology.c), (Some([0x02, 0xad, 0x17, 0, 0, 3]), 1500));
    let topology = Gateway::build().unwrap();
    assert_eq!(ethernet(&topology.c), (Some([0x02, 0xad, 0x17, 0, 2, 3]), 1500));
    let topology = TwoHosts::build().unwrap();
    assert_eq!(ethernet(&topology.b), (Some([0x02, 0xad, 0x17, 0, 0, 2]), 1500));
}

#[test]
fn dropping_a_topology_leaves_no_namespace() {
    if !privileged() {
        return;
    }
    let topology = ThreeHosts::build().unwrap();
    let mut namespaces: Vec<_> = topology.hosts().into_iter().map(namespace).collect();
    namespaces.push(namespace(&topology.lan));
    assert!(!common::holders(&namespaces).is_empty());
    drop(topology);
    assert_gone(&namespaces);
}

#[test]
fn a_capture_sees_direction_time_and_the_whole_frame() {
    if !privileged() {
        return;
    }
    let TwoHosts { a, b } = TwoHosts::build().unwrap();
    let between = Filter::between(TwoHosts::A, TwoHosts::B);
    let mut at_a = Capture::start(&a, "eth0", &between).unwrap();
    let mut at_b = Capture::start(&b, "eth0", &between).unwrap();
    send(&a, &b, address("10.1.0.2"), b"seen twice");
    let has_payload =
        |packet: lab::Packet| packet.octets.ends_with(b"seen twice").then_some(packet);
    let left = at_a.find(soon(), has_payload).unwrap();
    let arrived = at_b.find(soon(), has_payload).unwrap();
    assert!(left.outgoing && !arrived.outgoing);
    assert_eq!(left.octets, arrived.octets);
    // Ethernet: to B, from A, IPv4; 14 octets, then 20 of IPv4, 8 of UDP and the payload.
    assert_eq!(left.octets[..14], [2, 0xad, 0x17, 0, 0, 2, 2, 0xad, 0x17, 0, 0, 1, 8, 0]);
    assert_eq!(left.octets.len(), 14 + 20 + 8 + 10);
    assert!(left.at <= arrived.at, "{:?} {:?}", left.at, arrived.at);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    assert!(now - left.at < Duration::from_secs(10));
    assert!(at_b.take().unwrap().is_none());
    assert_eq!(at_b.tally().unwrap(), lab::capture::Tally { seen: 1, lost: 0 });
}

#[test]
fn a_filter_for_a_udp_port_sees_both_directions_and_no_other_port() {
    if !privileged() {
        return;
    }
    let TwoHosts { a, b } = TwoHosts::build().unwrap();
    let mut capture = Capture::start(&a, "eth0", &Filter::udp_port(4740)).unwrap();
    let socket =
        |host: &Host, local: &'static str| host.run(move || UdpSocket::bind(local).unwrap());
    let (client, server) = (socket(&a, "10.1.0.1:9"), socket(&b, "10.1.0.2:4740"));
    client.send_to(b"other", "10.1.0.2:4741").unwrap();
    client.send_to(b"there", "10.1.0.2:4740").unwrap();
    server.send_to(b"back", "10.1.0.1:9").unwrap();
    let there = capture.next(soon()).unwrap();
    let back = capture.next(soon()).unwrap();
    assert!(there.outgoing && there.octets.ends_with(b"there"));
    assert!(!back.outgoing && back.octets.ends_with(b"back"));
}

#[test]
fn a_witness_counts_every_packet_to_the_addresses_and_no_other() {
    if !privileged() {
        return;
    }
    let ThreeHosts { a, b, c, lan: _lan } = ThreeHosts::build().unwrap();
    let to_c = [address("10.1.0.3"), address("fd01::3")];
    let witness = Witness::start(&a, "eth0", &Filter::leaving_for(&to_c)).unwrap();
    let idle = Witness::start(&a, "eth0", &Filter::leaving_for(&to_c)).unwrap();
    send(&a, &b, address("10.1.0.2"), b"for B");
    send(&c, &a, address("10.1.0.1"), b"from C");
    let testimony = idle.testify().unwrap();
    assert_eq!(testimony.seen, 0, "{:02x?}", testimony.first);
    send(&a, &c, address("10.1.0.3"), b"for C");
    let testimony = witness.testify().unwrap();
    assert_eq!(testimony.seen, 1, "{:02x?}", testimony.first);
    assert!(testimony.first.unwrap().octets.ends_with(b"for C"));
    let witness = Witness::start(&a, "eth0", &Filter::leaving_for(&to_c)).unwrap();
    send(&a, &c, address("fd01::3"), b"over IPv6");
    let testimony = witness.testify().unwrap();
    assert_eq!(testimony.seen, 1, "{:02x?}", testimony.first);
    assert!(testimony.first.unwrap().octets.ends_with(b"over IPv6"));
}

#[test]
fn a_witness_counts_packets_for_which_its_queue_had_no_room() {
    if !privileged() {
        return;
    }
    let TwoHosts { a, b: _b } = TwoHosts::build().unwrap();
    let witness = Witness::start(&a, "eth0", &Filter::leaving_for(&[address("10.1.0.2")])).unwrap();
    let mut capture =
        Capture::start(&a, "eth0", &Filter::leaving_for(&[address("10.1.0.2")])).unwrap();
    a.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..40_000 {
            socket.send_to(&[0; 1000], "10.1.0.2:9").unwrap();
        }
    });
    let tally = capture.tally().unwrap();
    assert_eq!(tally.seen, 40_000);
    assert!(tally.lost > 0, "the queue was larger than 40 MB");
    assert_eq!(witness.testify().unwrap().seen, 40_000);
}

#[test]
fn watching_a_device_that_is_not_there_is_an_error_that_names_it() {
    if !privileged() {
        return;
    }
    let host = Host::new("A").unwrap();
    let error: CaptureError = Capture::start(&host, "eth7", &Filter::everything()).unwrap_err();
    assert_eq!(error.to_string(), "find the device on eth7 of host A");
}

#[test]
fn throughput_is_measured_at_the_receiver_and_ends_in_time() {
    if !privileged() {
        return;
    }
    let TwoHosts { a, b } = TwoHosts::build().unwrap();
    for target in ["10.1.0.2", "fd01::2"] {
        let duration = Duration::from_millis(300);
        let start = std::time::Instant::now();
        let rate = throughput::measure(&a, &b, address(target), duration, None).unwrap();
        assert!(start.elapsed() < Duration::from_secs(3));
        assert!(rate.bits_per_second > 1e8, "{rate:?}");
        assert!(rate.seconds >= 0.29 && rate.seconds < 1.0, "{rate:?}");
    }
}

#[test]
fn throughput_to_nobody_is_an_error() {
    if !privileged() {
        return;
    }
    let (a, b) = (Host::new("A").unwrap(), Host::new("B").unwrap());
    let duration = Duration::from_millis(100);
    let error = throughput::measure(&a, &b, address("10.1.0.2"), duration, None).unwrap_err();
    assert!(error.to_string().starts_with("connect from host A to 10.1.0.2:"), "{error}");
}
