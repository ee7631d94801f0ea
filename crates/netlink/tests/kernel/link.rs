//! Links: made, changed, listed, removed.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use netlink::{Cause, LinkIndex, Netns, Socket, TunLink, TunMode, Vxlan};

use crate::namespace::{in_namespace, index, inside, ip, ip_list, ip_show, pair};

#[test]
fn a_new_namespace_holds_a_loopback_link_that_is_down() {
    in_namespace(|socket| {
        let links = socket.links().unwrap();
        let loopback = links.iter().find(|link| link.loopback).unwrap();
        assert_eq!((loopback.name.as_str(), loopback.index), ("lo", LinkIndex(1)));
        assert!(!loopback.up && !loopback.carrier);
        assert_eq!(loopback.kind, None);
        assert_eq!(u64::from(loopback.mtu), ip_show("link show lo")["mtu"].as_u64().unwrap());
    });
}

/// ```text
///  here: near ───── far :there
/// ```
#[test]
fn a_veth_pair_spans_two_namespaces() {
    in_namespace(|socket| {
        let there = Netns::create().unwrap();
        socket.add_veth("near", "far", Some(there.as_fd())).unwrap();

        let near = socket.link("near").unwrap().unwrap();
        assert_eq!(near.kind.as_deref(), Some("veth"));
        assert!(!near.up && !near.carrier);
        assert_eq!(socket.link("far").unwrap(), None);
        inside(&there, || {
            assert_eq!(ip_show("link show far")["linkinfo"]["info_kind"], "veth");
            let mut socket = Socket::open().unwrap();
            let far = index(&mut socket, "far");
            socket.set_up(far, true).unwrap();
        });
        socket.set_up(near.index, true).unwrap();
        let near = socket.link_at(near.index).unwrap().unwrap();
        assert!(near.up && near.carrier);
    });
}

#[test]
fn a_link_moves_to_another_namespace() {
    in_namespace(|socket| {
        let there = Netns::create().unwrap();
        let (left, _) = pair(socket);
        socket.move_to_netns(left, there.as_fd()).unwrap();
        assert_eq!(socket.link("left").unwrap(), None);
        inside(&there, || assert_eq!(ip_list("link show left").len(), 1));
    });
}

/// ```text
///  left ─── right
///   └ bridge
/// ```
#[test]
fn a_bridge_takes_a_port_and_lets_it_go() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        socket.add_bridge("bridge").unwrap();
        let bridge = index(socket, "bridge");
        assert_eq!(ip_show("link show bridge")["linkinfo"]["info_kind"], "bridge");

        socket.set_master(left, Some(bridge)).unwrap();
        assert_eq!(ip_show("link show left")["master"], "bridge");
        assert_eq!(socket.link("left").unwrap().unwrap().master, Some(bridge));

        socket.set_master(left, None).unwrap();
        assert_eq!(ip_show("link show left")["master"], serde_json::Value::Null);
        assert_eq!(socket.link("left").unwrap().unwrap().master, None);
    });
}

#[test]
fn a_vxlan_tunnel_is_made_as_described() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        for (name, local, remote) in
            [("vx4", "10.0.0.1", "10.0.0.2"), ("vx6", "fd00::1", "fd00::2")]
        {
            let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
            let vxlan = Vxlan { name, id: 0x12_3456, local, remote, port: 4789, device: left };
            socket.add_vxlan(&vxlan).unwrap();
            let shown = ip_show(&format!("link show {name}"));
            let data = &shown["linkinfo"]["info_data"];
            assert_eq!(shown["linkinfo"]["info_kind"], "vxlan");
            assert_eq!((data["id"].as_u64(), data["port"].as_u64()), (Some(0x12_3456), Some(4789)));
            assert_eq!(data["link"], "left");
            let suffix = if remote.is_ipv6() { "6" } else { "" };
            assert_eq!(data[format!("local{suffix}")], local.to_string());
            let shown_remote = [&data[format!("remote{suffix}")], &data["remote"]]
                .into_iter()
                .find(|v| !v.is_null());
            assert_eq!(shown_remote.unwrap(), &remote.to_string());
        }
    });
}

#[test]
fn the_settings_of_a_link_are_changed() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        socket.set_up(left, false).unwrap();
        socket.set_mtu(left, 1380).unwrap();
        socket.set_mac(left, [0x02, 0, 0, 0, 0xab, 0xcd]).unwrap();
        socket.set_tx_queue_len(left, 77).unwrap();
        socket.set_gso_max_segments(left, 33).unwrap();
        socket.set_gso_max_size(left, 40_000).unwrap();
        socket.set_addr_gen_mode_none(left).unwrap();

        let shown = ip_show("link show left");
        assert_eq!(shown["mtu"], 1380);
        assert_eq!(shown["address"], "02:00:00:00:ab:cd");
        assert_eq!(shown["txqlen"], 77);
        assert_eq!(shown["gso_max_segs"], 33);
        assert_eq!(shown["gso_max_size"], 40_000);
        assert_eq!(shown["inet6_addr_gen_mode"], "none");
        let link = socket.link("left").unwrap().unwrap();
        assert_eq!((link.mtu, link.mac), (1380, Some([0x02, 0, 0, 0, 0xab, 0xcd])));
        assert!(!link.up && !link.carrier);

        socket.set_up(left, true).unwrap();
        assert_eq!(ip_list("-6 address show dev left").len(), 0, "no link-local address");
        assert_eq!(ip_show("link show left")["mtu"], 1380, "nothing else changed");
    });
}

#[test]
fn a_removed_link_is_gone_with_its_peer() {
    in_namespace(|socket| {
        let (left, right) = pair(socket);
        socket.delete_link(left).unwrap();
        assert_eq!(socket.link_at(left).unwrap(), None);
        assert_eq!(socket.link_at(right).unwrap(), None);
        assert_eq!(ip_list("link show").len(), 1);
    });
}

#[test]
fn a_persistent_tap_device_tells_its_owner_and_modes() {
    in_namespace(|socket| {
        ip("tuntap add tap7 mode tap user 1000 group 1001 multi_queue vnet_hdr");
        ip("tuntap add tun7 mode tun pi");
        let tap = socket.link("tap7").unwrap().unwrap();
        assert_eq!(tap.kind.as_deref(), Some("tun"));
        let expected = TunLink {
            mode: TunMode::Tap,
            owner: Some(1000),
            group: Some(1001),
            packet_info: false,
            vnet_hdr: true,
            persistent: true,
            multi_queue: true,
            queues: 0,
            disabled_queues: 0,
        };
        assert_eq!(tap.tun, Some(expected));

        let tun = socket.link("tun7").unwrap().unwrap();
        assert_eq!(tun.mac, None, "a TUN device has no hardware address");
        let expected = TunLink {
            mode: TunMode::Tun,
            owner: None,
            group: None,
            packet_info: true,
            vnet_hdr: false,
            multi_queue: false,
            ..expected
        };
        assert_eq!(tun.tun, Some(expected));
    });
}

#[test]
fn an_unknown_link_is_none_and_changing_it_is_not_found() {
    in_namespace(|socket| {
        assert_eq!(socket.link("nowhere").unwrap(), None);
        assert_eq!(socket.link("a-name-too-long-for-any-link").unwrap(), None);
        assert_eq!(socket.link("").unwrap(), None);
        for missing in [LinkIndex(4711), LinkIndex(0)] {
            assert_eq!(socket.link_at(missing).unwrap(), None);
            assert!(socket.delete_link(missing).unwrap_err().is_not_found());
            let error = socket.set_mtu(missing, 1400).unwrap_err();
            assert!(error.is_not_found());
            assert_eq!(
                error.to_string(),
                format!("set link if{missing} mtu 1400: No such device (os error 19)")
            );
        }
    });
}

#[test]
fn refused_links_are_named_in_the_error() {
    in_namespace(|socket| {
        let (left, _) = pair(socket);
        let error = socket.add_bridge("left").unwrap_err();
        assert!(error.is_exists());
        assert_eq!(error.operation(), "add link left type bridge");

        let error = socket.set_mtu(left, 70_000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "set link left mtu 70000: Invalid argument (os error 22): \
             kernel says \"mtu greater than device maximum\""
        );
        let error = socket.add_bridge("a-name-too-long-for-any-link").unwrap_err();
        assert_eq!(error.cause(), &Cause::Name);
        // The socket is as good as before.
        assert_eq!(socket.links().unwrap().len(), 3);
    });
}

#[test]
fn a_thousand_links_are_listed_each_once() {
    in_namespace(|socket| {
        let mut expected = BTreeSet::from(["lo".to_owned()]);
        for number in 0..500 {
            let (left, right) = (format!("left{number}"), format!("right{number}"));
            socket.add_veth(&left, &right, None).unwrap();
            expected.extend([left, right]);
        }
        let links = socket.links().unwrap();
        assert_eq!(links.len(), 1001);
        let names: BTreeSet<_> = links.into_iter().map(|link| link.name).collect();
        assert_eq!(names, expected);
    });
}
