//! Plans, applied to a host, interrupted, and undone.
//!
//! ```text
//!  adit0 (tun)    host    left (198.51.100.2/24, 2001:db8::2/64) ───── right
//!                              default routes via .1 and via fe80::1
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use netlink::journal::{Journal, Place};
use netlink::plan::{
    Actual, Desired, Families, Operation, PlanError, Reverted, Undo, apply, plan, revert,
};
use netlink::{Socket, sysctl};
use serde_json::Value;

use crate::namespace::{in_namespace, ip, ip_list, ip_show, pair};

const SETTINGS: [&str; 8] = [
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.default.forwarding",
    "net.ipv4.conf.right.forwarding",
    "net.ipv4.conf.adit0.rp_filter",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.right.forwarding",
    "net.ipv6.conf.left.accept_ra",
];

/// A directory that vanishes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-plan-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn host(socket: &mut Socket) {
    let (left, right) = pair(socket);
    for link in [left, right] {
        socket.set_addr_gen_mode_none(link).unwrap();
    }
    ip("address flush dev left");
    ip("address flush dev right");
    ip("link set lo up");
    ip("address add 198.51.100.2/24 dev left");
    ip("address add 2001:db8::2/64 dev left nodad");
    ip("route add default via 198.51.100.1 dev left metric 100");
    ip("route add default via fe80::1 dev left proto ra");
    ip("tuntap add adit0 mode tun");
    ip("link set adit0 addrgenmode none");
    ip("address add fd00:9::1/64 dev adit0 nodad");
    for (key, value) in [
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv6.conf.all.forwarding", "0"),
        ("net.ipv4.conf.all.accept_redirects", "0"),
        ("net.ipv4.conf.right.forwarding", "1"),
        ("net.ipv6.conf.right.forwarding", "1"),
        ("net.ipv4.conf.adit0.rp_filter", "1"),
        ("net.ipv6.conf.left.accept_ra", "1"),
    ] {
        sysctl::write(key, value).unwrap();
    }
}

fn desired() -> Desired {
    Desired {
        device: "adit0".to_owned(),
        device_made_by_us: false,
        mtu: 1420,
        addresses: vec![
            (net("192.0.2.1/24"), None),
            (net("10.1.1.1/32"), Some(net("10.1.1.2/32"))),
            (net("fd00:7::1/64"), None),
        ],
        up: true,
        routes: vec![net("203.0.113.0/24"), net("192.0.2.0/24"), net("fd09::/32")],
        default_route: Families { v4: true, v6: false },
        pinned: vec!["233.252.0.7".parse().unwrap(), "2001:db8:9::9".parse().unwrap()],
        exclude: vec![net("10.0.0.0/8"), net("fc00::/7")],
        sources: vec![net("198.51.100.0/24")],
        forward: Families { v4: true, v6: true },
        block_ipv6: true,
    }
}

/// What ip(8) and `/proc/sys` say of everything, without what only counts or ages.
#[derive(Debug, PartialEq)]
struct Snapshot {
    links: BTreeMap<String, Value>,
    routes: Vec<String>,
    settings: Vec<String>,
}

fn snapshot() -> Snapshot {
    let links = ip_list("address show").into_iter().map(|mut link| {
        for address in link["addr_info"].as_array_mut().unwrap() {
            let address = address.as_object_mut().unwrap();
            address.retain(|key, _| matches!(&**key, "local" | "prefixlen" | "address"));
        }
        let addresses = link["addr_info"].as_array().unwrap();
        let mut addresses: Vec<_> = addresses.iter().map(Value::to_string).collect();
        addresses.sort();
        let kept = serde_json::json!({
            "flags": link["flags"], "mtu": link["mtu"], "addresses": addresses,
        });
        (link["ifname"].to_string(), kept)
    });
    let routes = ["-4", "-6"].map(|family| ip(&format!("{family} route show table all")));
    let mut routes: Vec<_> =
        routes.iter().flat_map(|lines| lines.lines().map(str::to_owned)).collect();
    routes.sort();
    Snapshot {
        links: links.collect(),
        routes,
        settings: SETTINGS.iter().map(|key| sysctl::read(key).unwrap()).collect(),
    }
}

fn planned(socket: &mut Socket) -> Vec<Operation> {
    let actual = Actual::read(socket, &desired()).unwrap();
    plan(&desired(), &actual).unwrap()
}

fn place() -> Place {
    let netns = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    Place { netns, boot: boot.trim_end().to_owned() }
}

fn recover(socket: &mut Socket, directory: &Path) -> Vec<Reverted> {
    let recovered = Journal::load(directory, "home", &place()).unwrap().unwrap();
    let reverted = recovered.steps.iter().rev().map(|step| revert(socket, step).unwrap()).collect();
    recovered.journal.forget_all().unwrap();
    reverted
}

#[test]
fn an_applied_plan_is_what_ip_shows_and_leaves_nothing_to_do() {
    in_namespace(|socket| {
        host(socket);
        for operation in planned(socket) {
            apply(socket, &operation).unwrap();
        }
        assert_eq!(planned(socket), []);

        let device = ip_show("link show adit0");
        assert_eq!(device["mtu"], 1420);
        assert!(device["flags"].as_array().unwrap().contains(&Value::from("UP")));
        for (words, expected) in [
            ("-4 route show 0.0.0.0/1", ("dev", "adit0")),
            ("-4 route show 128.0.0.0/1", ("dev", "adit0")),
            ("-4 route show 203.0.113.0/24", ("dev", "adit0")),
            ("-4 route show 192.0.2.0/24", ("protocol", "kernel")),
            ("-4 route show 233.252.0.7", ("gateway", "198.51.100.1")),
            ("-4 route show 10.0.0.0/8", ("gateway", "198.51.100.1")),
            ("-4 route show default", ("gateway", "198.51.100.1")),
            ("-6 route show 2001:db8:9::9", ("gateway", "fe80::1")),
            ("-6 route show default", ("gateway", "fe80::1")),
            ("-6 route show fd09::/32", ("dev", "adit0")),
            ("-6 route show ::/1", ("type", "unreachable")),
            ("-6 route show 8000::/1", ("type", "unreachable")),
        ] {
            assert_eq!(ip_show(words)[expected.0], expected.1, "{words}");
        }
        let found: Vec<_> = SETTINGS.iter().map(|key| sysctl::read(key).unwrap()).collect();
        assert_eq!(found, ["1", "0", "1", "1", "2", "1", "1", "2"]);
        let inside: IpAddr = "8.8.8.8".parse().unwrap();
        let way = socket.route_to(inside).unwrap();
        assert_eq!(way.link, Some(socket.link("adit0").unwrap().unwrap().index));
        assert!(socket.route_to("2606::1".parse().unwrap()).is_err(), "IPv6 is blocked");
    });
}

#[test]
fn the_commands_of_a_plan_do_what_the_plan_does() {
    let run = |apply_one: fn(&mut Socket, &Operation)| {
        let mut result = None;
        in_namespace(|socket| {
            host(socket);
            for operation in planned(socket) {
                apply_one(socket, &operation);
            }
            result = Some(snapshot());
        });
        result
    };
    let applied = run(|socket, operation| apply(socket, operation).unwrap());
    let typed = run(|_, operation| match operation {
        // sysctl(8) is not installed everywhere.
        Operation::WriteSysctl { key, to, .. } => sysctl::write(key, to).unwrap(),
        operation => drop(ip(operation.command().strip_prefix("ip ").unwrap())),
    });
    assert_eq!(applied, typed);
}

#[test]
fn a_crash_after_any_operation_is_undone_from_the_journal() {
    let directory = Directory::new("crash");
    in_namespace(|socket| {
        host(socket);
        let before = snapshot();
        let operations = planned(socket);
        assert!(operations.len() > 15, "{operations:?}");
        // Once with the journal one step ahead of the operations, once without.
        for (crash, ahead) in
            (0..=operations.len()).flat_map(|crash| [(crash, false), (crash, true)])
        {
            let mut journal = Journal::create(&directory.0, "home", &place()).unwrap();
            for operation in &operations[..crash] {
                journal.record(&operation.undo()).unwrap();
                apply(socket, operation).unwrap();
            }
            if let Some(next) = operations.get(crash).filter(|_| ahead) {
                journal.record(&next.undo()).unwrap();
            }
            drop(journal);

            let reverted = recover(&mut Socket::open().unwrap(), &directory.0);
            let done = reverted.iter().filter(|reverted| **reverted == Reverted::Done).count();
            // IPv6 addresses and everything else that was there are back.
            assert_eq!(snapshot(), before, "after {crash} operations");
            assert_eq!(done, crash, "{reverted:?}");
        }
        assert_eq!(planned(socket), operations);
    });
}

#[test]
fn what_someone_changed_since_is_left_alone() {
    in_namespace(|socket| {
        host(socket);
        let operations = planned(socket);
        for operation in &operations {
            apply(socket, operation).unwrap();
        }
        ip("link set adit0 mtu 1300");
        ip("address add 192.0.2.99/24 dev adit0");
        ip("route replace 203.0.113.0/24 via 198.51.100.1 dev left");
        ip("-6 route del unreachable ::/1");
        ip("address del 10.1.1.1 peer 10.1.1.2/32 dev adit0");
        sysctl::write("net.ipv4.conf.adit0.rp_filter", "0").unwrap();

        let mut left_alone = Vec::new();
        for operation in operations.iter().rev() {
            let reverted = revert(socket, &operation.undo()).unwrap();
            if reverted != Reverted::Done {
                left_alone.push((operation.command(), reverted));
            }
        }
        let changed = |found: &str| Reverted::ChangedSince { found: found.to_owned() };
        let expected = [
            ("ip route add unreachable ::/1 proto static", Reverted::NotThere),
            (
                "ip route add 203.0.113.0/24 dev adit0 proto static",
                changed("203.0.113.0/24 dev left"),
            ),
            ("ip address add 10.1.1.1 peer 10.1.1.2/32 dev adit0", Reverted::NotThere),
            ("ip link set dev adit0 mtu 1420", changed("1300")),
            ("sysctl -w net.ipv4.conf.adit0.rp_filter=2", changed("0")),
        ];
        let expected = expected.map(|(command, reverted)| (command.to_owned(), reverted));
        assert_eq!(left_alone, expected);
        assert_eq!(ip_show("-4 route show 203.0.113.0/24")["dev"], "left");
        assert_eq!(ip_show("link show adit0")["mtu"], 1300);
        assert_eq!(ip_list("address show dev adit0 to 192.0.2.99").len(), 1);
    });
}

#[test]
fn nothing_is_left_to_undo_once_the_device_is_gone() {
    in_namespace(|socket| {
        host(socket);
        let operations = planned(socket);
        for operation in &operations {
            apply(socket, operation).unwrap();
        }
        ip("link del adit0");
        for operation in operations.iter().rev() {
            let undo = operation.undo();
            let of_device = match &undo {
                Undo::Mtu { device, .. } | Undo::Down { device } => device.name == "adit0",
                Undo::Address(_) => true,
                Undo::Route(route) => route.device.name == "adit0",
                Undo::Sysctl { key, .. } => key.contains("adit0"),
                Undo::Unreachable { .. } => false,
            };
            let expected = if of_device { Reverted::NotThere } else { Reverted::Done };
            assert_eq!(revert(socket, &undo).unwrap(), expected, "{undo:?}");
        }
    });
}

#[test]
fn a_link_of_another_kind_is_not_taken_for_a_device() {
    in_namespace(|socket| {
        host(socket);
        let desired = Desired { device: "left".to_owned(), ..desired() };
        let actual = Actual::read(socket, &desired).unwrap();
        let error = plan(&desired, &actual).unwrap_err();
        let expected =
            PlanError::NotTunnel { device: "left".to_owned(), kind: "of kind veth".to_owned() };
        assert_eq!(error, expected);
    });
}
