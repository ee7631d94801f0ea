//! Addresses: added, listed, removed.

use std::net::{Ipv6Addr, UdpSocket};
use std::sync::mpsc;
use std::thread;

use netlink::{Address, LinkIndex, Netns, Socket};

use crate::namespace::{in_namespace, index, ip, ip_show, pair};

fn address(link: LinkIndex, local: &str) -> Address {
    Address { link, local: local.parse().unwrap(), peer: None }
}

fn listed(socket: &mut Socket, link: LinkIndex) -> Vec<Address> {
    socket.addresses().unwrap().into_iter().filter(|address| address.link == link).collect()
}

#[test]
fn an_added_address_is_listed_as_given_and_removed_again() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        socket.set_addr_gen_mode_none(left).unwrap();
        let before = listed(socket, left);
        for local in ["192.0.2.1/24", "192.0.2.9/24", "10.0.0.1/32", "fd00:7::1/64"] {
            let address = address(left, local);
            socket.add_address(&address).unwrap();
            assert!(listed(socket, left).contains(&address), "{local}");
            let (ip_address, length) = local.split_once('/').unwrap();
            let shown = ip_show(&format!("address show dev left to {ip_address}"));
            assert_eq!(shown["addr_info"][0]["local"], ip_address);
            assert_eq!(shown["addr_info"][0]["prefixlen"].to_string(), length);

            socket.delete_address(&address).unwrap();
            assert_eq!(listed(socket, left), before);
            assert!(socket.delete_address(&address).unwrap_err().is_not_found(), "{local}");
        }
    });
}

#[test]
fn a_point_to_point_address_has_its_prefix_at_the_peer() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        for (local, peer) in [
            ("10.1.1.1/32", "10.1.1.2/32"),
            ("10.2.0.1/32", "10.3.0.1/24"),
            ("fd00::1/128", "fd01::2/64"),
        ] {
            let address = Address { peer: Some(peer.parse().unwrap()), ..address(left, local) };
            socket.add_address(&address).unwrap();
            assert!(listed(socket, left).contains(&address), "{local}");

            let ip_address = address.local.addr().to_string();
            let shown = ip_show(&format!("address show dev left to {ip_address}"));
            let shown = &shown["addr_info"][0];
            assert_eq!(shown["local"], ip_address);
            assert_eq!(shown["address"], address.peer.unwrap().addr().to_string());
            assert_eq!(shown["prefixlen"], address.peer.unwrap().prefix_len());

            socket.delete_address(&address).unwrap();
            assert!(!listed(socket, left).contains(&address), "{local}");
        }
    });
}

#[test]
fn an_ipv6_address_is_usable_at_once() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        socket.add_address(&address(left, "fd00:7::1/64")).unwrap();
        let ours: Ipv6Addr = "fd00:7::1".parse().unwrap();
        assert!(UdpSocket::bind((ours, 0)).is_ok());

        // The rule that this test stands on: others wait for duplicate address detection.
        ip("address add fd00:8::1/64 dev left");
        let theirs: Ipv6Addr = "fd00:8::1".parse().unwrap();
        assert!(UdpSocket::bind((theirs, 0)).is_err());
    });
}

#[test]
fn the_same_address_twice_exists_and_the_error_says_which() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        for local in ["192.0.2.1/24", "fd00:7::1/64"] {
            socket.add_address(&address(left, local)).unwrap();
            let error = socket.add_address(&address(left, local)).unwrap_err();
            assert!(error.is_exists(), "{error}");
            assert_eq!(error.operation(), format!("add address {local} dev left"));
        }
    });
}

#[test]
fn an_address_for_a_link_that_is_not_there_is_not_found() {
    in_namespace(|socket| {
        let error = socket.add_address(&address(LinkIndex(4711), "192.0.2.1/24")).unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert_eq!(error.operation(), "add address 192.0.2.1/24 dev if4711");
    });
}

/// A token moves between the links that are listed first and last, with two thousand addresses between
/// them, and is always on at least one of the two. A listing that mixes two moments may have neither.
#[test]
fn a_listing_while_an_address_moves_is_of_one_moment() {
    const LISTINGS: usize = 200;
    in_namespace(|socket| {
        let [first, middle, last] = ["first", "middle", "last"].map(|name| {
            socket.add_bridge(name).unwrap();
            index(socket, name)
        });
        for number in 0..2000 {
            let local = format!("10.{}.{}.1/24", number / 250, number % 250);
            socket.add_address(&address(middle, &local)).unwrap();
        }
        let token = |link| address(link, "192.0.2.1/32");
        socket.add_address(&token(first)).unwrap();

        let here = Netns::current().unwrap();
        thread::scope(|scope| {
            let (listing, listings) = mpsc::channel();
            let (here, token) = (&here, &token);
            scope.spawn(move || {
                here.enter().unwrap();
                let mut socket = Socket::open().unwrap();
                for turn in listings {
                    let (from, to) = if turn % 2 == 0 { (first, last) } else { (last, first) };
                    // Questions take a while, so that the move falls into all parts of a listing.
                    for _ in 0..turn % 40 {
                        socket.link_at(from).unwrap();
                    }
                    socket.add_address(&token(to)).unwrap();
                    socket.delete_address(&token(from)).unwrap();
                }
            });
            for turn in 0..LISTINGS {
                listing.send(turn).unwrap();
                let listed = socket.addresses().unwrap();
                let of_middle = listed.iter().filter(|address| address.link == middle).count();
                assert_eq!(of_middle, 2000);
                let tokens = [first, last].map(|link| listed.contains(&token(link)));
                assert!(tokens.contains(&true), "listing {turn} has lost the token");
            }
        });
    });
}
