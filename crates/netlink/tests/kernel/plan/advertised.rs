//! Routes that the kernel learned from router advertisements, on a host that begins to forward.
//!
//! ```text
//!  adit0 (tun)    host    uplink (fe80::2) ───── router (fe80::1), advertises 2001:db8:1::/64
//! ```

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsFd as _;

use netlink::Netns;
use rustix::net::{AddressFamily, SendFlags, SocketType, bind, ipproto, sendto, socket, sockopt};

use super::*;
use crate::namespace::{index, inside};

const ACCEPT: &str = "net.ipv6.conf.uplink.accept_ra";
const FORWARDING: &str = "net.ipv6.conf.all.forwarding";

/// The router, in a namespace of its own.
struct Router(Netns);

impl Router {
    /// Makes a host that listens to a router which has not said anything.
    fn connect(host: &mut Host) -> Self {
        let router = Self(Netns::create().unwrap());
        host.socket().add_veth("uplink", "router", Some(router.0.as_fd())).unwrap();
        configure("uplink", "fe80::2/64");
        inside(&router.0, || configure("router", "fe80::1/64"));
        sysctl::write(FORWARDING, "0").unwrap();
        sysctl::write(ACCEPT, "1").unwrap();
        ip("tuntap add adit0 mode tun");
        ip("link set adit0 addrgenmode none");
        router
    }

    /// Advertises itself as a default router for so many seconds, and a prefix (RFC 4861 section 4.2).
    fn advertise(&self, lifetime: u16, prefix: &str) {
        let mut message = vec![134, 0, 0, 0, 64, 0];
        message.extend(lifetime.to_be_bytes());
        message.extend([0; 8]);
        // A prefix that is on the link and makes an address, for an hour (section 4.6.2).
        message.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
        message.extend(prefix.parse::<Ipv6Addr>().unwrap().octets());
        inside(&self.0, || {
            let link = index(&mut Socket::open().unwrap(), "router").0;
            let icmp = Some(ipproto::ICMPV6);
            let socket = socket(AddressFamily::INET6, SocketType::RAW, icmp).unwrap();
            // A receiver takes no advertisement that could have passed a router.
            sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
            let address = |text: &str| SocketAddrV6::new(text.parse().unwrap(), 0, 0, link);
            bind(&socket, &address("fe80::1")).unwrap();
            let all_nodes = address("ff02::1");
            sendto(&socket, &message, SendFlags::empty(), &all_nodes).unwrap();
        });
    }
}

fn configure(link: &str, address: &str) {
    ip(&format!("link set {link} addrgenmode none"));
    ip(&format!("address add {address} dev {link} nodad"));
    ip(&format!("link set {link} up"));
}

/// The routers of the default routes that were learned.
fn learned() -> Vec<String> {
    let routes = ip_list("-6 route show default proto ra");
    routes.iter().map(|route| route["gateway"].as_str().unwrap().to_owned()).collect()
}

/// Whether the kernel has heard of that prefix.
fn knows(prefix: &str) -> bool {
    !ip_list(&format!("-6 route show {prefix} dev uplink")).is_empty()
}

fn learn(router: &Router) {
    // The first may come before the links see each other.
    wait_until("route from an advertisement", || {
        router.advertise(1800, "2001:db8:1::");
        learned() == ["fe80::1"]
    });
}

fn forwarding() -> Desired {
    Desired {
        device: "adit0".to_owned(),
        mtu: 1420,
        addresses: vec![(net("fd00:7::1/64"), None)],
        up: true,
        default_route: Families { v4: false, v6: true },
        pinned: vec!["2001:db8:9::9".parse().unwrap()],
        forward: Families { v4: false, v6: true },
        table: "adit-home".to_owned(),
        ..Desired::default()
    }
}

#[test]
fn a_host_that_only_begins_to_forward_forgets_its_router() {
    on_host(|host| {
        let router = Router::connect(host);
        learn(&router);
        sysctl::write(FORWARDING, "1").unwrap();
        assert_eq!(learned(), [""; 0], "why accept_ra has to be 2 before");
    });
}

#[test]
fn a_plan_keeps_what_was_learned_and_goes_on_listening_until_it_is_undone() {
    on_host(|host| {
        let router = Router::connect(host);
        learn(&router);
        let operations = plan_for(host, &forwarding(), &[]);
        for operation in &operations {
            host.apply(operation).unwrap();
            assert_eq!(learned(), ["fe80::1"], "after {operation:?}");
        }
        assert_eq!([ACCEPT, FORWARDING].map(|key| sysctl::read(key).unwrap()), ["2", "1"]);
        assert_eq!(ip_show("-6 route show 2001:db8:9::9")["gateway"], "fe80::1");
        assert_eq!(plan_for(host, &forwarding(), &[]), []);
        // Still listening: to a new prefix, to the end of the router, and to its return.
        router.advertise(1800, "2001:db8:2::");
        wait_until("second prefix", || knows("2001:db8:2::/64"));
        router.advertise(0, "2001:db8:2::");
        wait_until("end of the router", || learned().is_empty());
        learn(&router);

        for operation in operations.iter().rev() {
            let Some(undo) = operation.undo() else { continue };
            assert_eq!(host.revert(&undo).unwrap(), Reverted::Done, "{undo:?}");
            assert_eq!(learned(), ["fe80::1"], "after undoing {operation:?}");
        }
        assert_eq!([ACCEPT, FORWARDING].map(|key| sysctl::read(key).unwrap()), ["1", "0"]);
        router.advertise(1800, "2001:db8:3::");
        wait_until("third prefix", || knows("2001:db8:3::/64"));
    });
}
