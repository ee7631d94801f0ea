//! Two hosts with a tunnel, and a third that is reached through the second.
//!
//! ```text
//!   host A                        host B (gateway)               host C
//!   adit0 192.0.2.1, fd00:7::1 .. adit0 192.0.2.2, fd00:7::2
//!   eth0  10.1.0.1, fd01::1 ----- eth0  10.1.0.2, fd01::2
//!                                 eth1  198.51.100.2 ----------- eth0  198.51.100.3 and .4
//!                                       2001:db8:100::2                2001:db8:100::3 and ::4
//! ```
//!
//! A's tunnel leads to the first addresses of C, and to the second ones the wire does. C knows the way
//! back to A's wire and not to the tunnel. B's packet filter is empty.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use lab::{Gateway, Host};

use super::pair::{End, Family};
use super::program;
use super::sh::{sh, wait_for_links};
use super::tunnel::{Files, Tunnel, runnable};
use super::udp;

/// A's end: the first addresses of C are reached through the tunnel.
pub(crate) const A: End = End::A.network("routes = [\"198.51.100.3/32\", \"2001:db8:100::3/128\"]");

/// The address of C that the tunnel leads to.
pub(crate) fn inside(family: Family) -> IpAddr {
    c(family, 3)
}

/// The address of C that is reached beside the tunnel.
pub(crate) fn beside(family: Family) -> IpAddr {
    c(family, 4)
}

/// The address of B on its uplink.
pub(crate) fn uplink(family: Family) -> IpAddr {
    c(family, 2)
}

fn c(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The hosts without a tunnel; none, with a word about why, if they cannot be built or looked at.
pub(crate) fn hosts() -> Option<Gateway> {
    let programs = ["ip", "nft", "iptables", "ip6tables"];
    if !runnable() || !programs.into_iter().all(program::available) {
        return None;
    }
    let hosts = Gateway::build().unwrap();
    sh(&hosts.b, "nft flush ruleset");
    let addresses = "ip address add 198.51.100.4/24 dev eth0; \
        ip address add 2001:db8:100::4/64 dev eth0 nodad; \
        ip route add 10.1.0.0/24 via 198.51.100.2; ip route add fd01::/64 via 2001:db8:100::2";
    sh(&hosts.c, addresses);
    hosts.hosts().into_iter().for_each(wait_for_links);
    Some(hosts)
}

/// Brings both ends up: A's is [`A`].
pub(crate) fn up(hosts: &Gateway, files: &Files, b: End) -> (Tunnel, Tunnel) {
    let a = Tunnel::up(&hosts.a, files, "a", &A.toml());
    (a, Tunnel::up(&hosts.b, files, "b", &b.toml()))
}

/// The address that C sees when `from` sends to it; the answer must come back, too.
pub(crate) fn source_seen(from: &Host, c: &Host, address: IpAddr) -> IpAddr {
    let server = udp::bind(c, SocketAddr::new(address, 0));
    let client = udp::connect(from, server.local_addr().unwrap());
    let seen = ask(&client, &server);
    let mut answer = [0; 16];
    let count = client.recv(&mut answer).unwrap_or_else(|error| panic!("{address}: {error}"));
    assert_eq!(&answer[..count], b"answer");
    seen
}

/// Sends a datagram and answers it; where it seems to come from.
fn ask(client: &UdpSocket, server: &UdpSocket) -> IpAddr {
    client.send(b"question").unwrap();
    let mut question = [0; 16];
    let (count, source) = server.recv_from(&mut question).unwrap();
    assert_eq!(&question[..count], b"question");
    server.send_to(b"answer", source).unwrap();
    source.ip()
}
