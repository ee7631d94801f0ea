//! Addresses move from one peer to another.
//!
//! ```text
//!   host B: 203.0.113.5 first     host A                 host C: 203.0.113.5 later
//!   wg0   192.0.2.2 ............. wg0   192.0.2.1 ...... wg0   192.0.2.3
//!   eth0  10.1.0.2                eth0  10.1.0.1         eth0  10.1.0.3
//!    |                             |                      |
//!  --+-----------------------------+----------------------+-- lan
//! ```

use std::net::UdpSocket;

use lab::ThreeHosts;

use crate::hub::Hub;
use crate::pair::for_each_meeting;
use crate::party::DEVICE;
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::{sh::sh, udp};

const MOVING: &str = "203.0.113.5";

/// Both own the address as far as their kernels know, and listen there.
fn listeners(hosts: &ThreeHosts) -> [UdpSocket; 2] {
    [&hosts.b, &hosts.c].map(|host| {
        sh(host, &format!("ip address add {MOVING}/32 dev {DEVICE}"));
        udp::bind(host, (MOVING.parse::<std::net::IpAddr>().unwrap(), 7000).into())
    })
}

/// Fails unless a word of A arrives there.
fn assert_arrives(hosts: &ThreeHosts, at: &UdpSocket, word: &str) {
    let client = udp::connect(&hosts.a, at.local_addr().unwrap());
    client.send(word.as_bytes()).unwrap();
    let mut buffer = [0; 100];
    let count = at.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], word.as_bytes());
}

fn assert_silent(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 100]).is_err(), "the other peer owns the address");
}

#[test]
fn an_address_belongs_to_the_peer_that_got_it_last() {
    for_each_meeting(|kinds| {
        let mut hub = Hub::with(kinds, |specs| {
            specs[0].peers[0].allowed_ips.push(format!("{MOVING}/32"));
        });
        let [at_b, at_c] = listeners(&hub.hosts);
        assert_arrives(&hub.hosts, &at_b, "to B");
        let [b, c] = &mut hub.specs[0].peers[..] else { panic!("two peers") };
        c.allowed_ips.extend(b.allowed_ips.pop());
        let [a, others @ ..] = hub.parties;
        let a = a.reconfigure(&hub.hosts.a, &hub.files, &hub.specs[0]);
        assert_arrives(&hub.hosts, &at_c, "to C");
        assert_silent(&at_b);
        // What B had besides is B's.
        Pinger::new(&hub.hosts.a, Family::V4.inner(2)).assert_answers(56);
        drop((a, others));
    });
}

#[test]
fn the_longest_prefix_decides() {
    for_each_meeting(|kinds| {
        let hub = Hub::with(kinds, |specs| {
            specs[0].peers[0].allowed_ips.push("203.0.113.0/24".to_owned());
            specs[0].peers[1].allowed_ips.push("203.0.113.4/30".to_owned());
        });
        let [at_b, at_c] = listeners(&hub.hosts);
        assert_arrives(&hub.hosts, &at_c, "to C");
        assert_silent(&at_b);
    });
}
