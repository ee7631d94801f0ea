//! A peer that is known by a name is followed to another address.
//!
//! ```text
//!   host A: /etc/hosts says           host B (router)              host C
//!     c.test is .3, then .4                                        adit0 192.0.2.2, fd00:7::2
//!   adit0 192.0.2.1, default route ............................... adit0
//!   eth0  10.1.0.1, fd01::1 --------- eth0  10.1.0.2, fd01::2
//!                                     eth1  198.51.100.2 --------- eth0  198.51.100.3, then .4
//!                                           2001:db8:100::2              2001:db8:100::3, then ::4
//! ```

use std::fs;

use lab::Host;
use rustix::process::Signal;

use crate::rig::gateway::{self, beside, inside, uplink};
use crate::rig::pair::{End, Family, endpoint};
use crate::rig::ping::Pinger;
use crate::rig::private::{self, bind};
use crate::rig::sh::{assert_same, everything, sh, wait_for_way, way};
use crate::rig::tunnel::{DEVICE, Files, Tunnel};

/// Takes the first address of C away; the second one, and the way back to A, may go with it.
fn move_to_second(c: &Host, family: Family) {
    let (network, length) = match family {
        Family::V4 => ("10.1.0.0/24", 24),
        Family::V6 => ("fd01::/64", 64),
    };
    let (first, second, router) = (inside(family), beside(family), uplink(family));
    sh(c, &format!("ip address del {first}/{length} dev eth0"));
    sh(c, &format!("ip address replace {second}/{length} dev eth0"));
    sh(c, &format!("ip route replace {network} via {router}"));
}

fn assert_follows(family: Family) {
    if !private::available() {
        return;
    }
    let Some(hosts) = gateway::hosts() else { return };
    sh(&hosts.b, "sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    let (files, before) = (Files::new(), everything(&hosts.a));
    let (first, second) = (inside(family), beside(family));
    let router = family.outer(2).to_string();

    let (a, c) = (End::A.over(family), End::B.over(family));
    let there = endpoint(family.outer(2));
    let a = a.network("default-route = true").toml().replace(&there, "c.test:4740");
    let anywhere = if family == Family::V4 { "0.0.0.0:4740" } else { "[::]:4740" };
    let c = c
        .toml()
        .replace(&format!("listen = [\"udp://{there}"), &format!("listen = [\"udp://{anywhere}"));
    let _c = Tunnel::up(&hosts.c, &files, "c", &c);

    let etc = private::etc(&files);
    let names = etc.join("hosts");
    fs::write(&names, format!("{first} c.test\n")).unwrap();
    fs::write(etc.join("nsswitch.conf"), "hosts: files\n").unwrap();
    let file = files.write("a", &a);
    let arguments = ["up", file.to_str().unwrap()];
    let mut tunnel = private::start(&hosts.a, &files, &bind(&etc, "/etc"), &arguments);
    tunnel.wait_for("is up");
    for inner in Family::BOTH {
        Pinger::new(&hosts.a, inner.inner(2)).wait_for_answer();
    }
    wait_for_way(&hosts.a, &first.to_string(), "eth0", Some(&router));
    assert_eq!(way(&hosts.a, &second.to_string()), Ok((DEVICE.to_owned(), None)));

    // C moves, the name follows, and an address of A has its names looked up.
    move_to_second(&hosts.c, family);
    fs::write(&names, format!("{second} c.test\n")).unwrap();
    sh(&hosts.a, "ip address add 10.1.0.99/24 dev eth0");
    tunnel.wait_for(&format!("is at {} now", endpoint(second)));
    wait_for_way(&hosts.a, &second.to_string(), "eth0", Some(&router));
    wait_for_way(&hosts.a, &first.to_string(), DEVICE, None);
    for inner in Family::BOTH {
        Pinger::new(&hosts.a, inner.inner(2)).wait_for_answer();
    }

    sh(&hosts.a, "ip address del 10.1.0.99/24 dev eth0");
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn over_ipv4() {
    assert_follows(Family::V4);
}

#[test]
fn over_ipv6() {
    assert_follows(Family::V6);
}
