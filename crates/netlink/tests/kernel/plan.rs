//! Plans, applied to a host, interrupted, and undone.
//!
//! ```text
//!  adit0 (tun)    host    left (198.51.100.2/24, 2001:db8::2/64) ───── right
//!                              default routes via .1 and via fe80::1
//! ```

mod advertised;
mod bridge;
mod filter;
mod uplink;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink::journal::{Header, Journal, Place};
use netlink::plan::{
    Desired, Families, Host, Operation, PlanError, Reverted, Translation, Undo, plan,
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

/// What the kernel may take for something that it does by itself.
const IN_TIME: Duration = Duration::from_secs(5);

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

/// Runs a test on a host in a new namespace, if nft(8) can be asked there.
fn on_host(test: impl FnOnce(&mut Host) + Send) {
    match Command::new("nft").arg("--version").output() {
        Ok(_) => in_namespace(|_| test(&mut Host::open().unwrap())),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => {
            panic!("needs nft(8): {error}")
        }
        Err(error) => println!("skipped, needs nft(8): {error}"),
    }
}

/// Runs a line as a person would type it in the calling thread's namespace.
fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + IN_TIME;
    while !condition() {
        assert!(Instant::now() < deadline, "no {what}");
        thread::yield_now();
    }
}

/// Waits until the tunnel's table is gone: for a moment a child that another test starts may hold a
/// copy of the descriptor that owns it.
fn wait_for_end_of_table() {
    wait_until("end of the table", || !shell("nft list tables").contains("adit-home"));
}

fn prepare(socket: &mut Socket) {
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
        tunnel: "home".to_owned(),
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
        wait_for_uplink: false,
        sources: vec![net("198.51.100.0/24"), net("fd00:7::/64")],
        forward: Families { v4: true, v6: true },
        translate: Some(Translation::Masquerade),
        clamp_mss: true,
        table: "adit-home".to_owned(),
        bridge: None,
        block_ipv6: true,
        names: None,
    }
}

/// The flags of a link, without its carrier, which the kernel notices in its own time.
fn flags(link: &Value) -> Vec<&str> {
    let flags = link["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap());
    flags.filter(|flag| !matches!(*flag, "NO-CARRIER" | "LOWER_UP")).collect()
}

/// What ip(8) and `/proc/sys` say of everything, without what counts or ages, and without what the
/// kernel makes of addresses and carriers in its own time.
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
            "flags": flags(&link), "mtu": link["mtu"], "addresses": addresses,
        });
        (link["ifname"].to_string(), kept)
    });
    let routes = ["-4", "-6"].map(|family| ip(&format!("{family} route show table all")));
    let lines = routes.iter().flat_map(|lines| lines.lines());
    let lines = lines.filter(|line| !line.contains(" table local "));
    let mut routes: Vec<_> = lines.map(|line| line.replace(" linkdown", "")).collect();
    routes.sort();
    Snapshot {
        links: links.collect(),
        routes,
        settings: SETTINGS.iter().map(|key| sysctl::read(key).unwrap()).collect(),
    }
}

fn planned(host: &mut Host) -> Vec<Operation> {
    plan_for(host, &desired(), &[])
}

fn plan_for(host: &mut Host, desired: &Desired, applied: &[Undo]) -> Vec<Operation> {
    let actual = host.read(desired, applied).unwrap();
    plan(desired, &actual).unwrap()
}

fn lines(operations: &[Operation]) -> Vec<String> {
    operations.iter().flat_map(Operation::commands).collect()
}

fn place() -> Place {
    let netns = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    Place { netns, boot: boot.trim_end().to_owned() }
}

fn header() -> Header {
    Header { place: place(), pid: std::process::id(), config: None }
}

fn recover(host: &mut Host, directory: &Path) -> Vec<Reverted> {
    let recovered = Journal::load(directory, "home", &place()).unwrap().unwrap();
    let steps = recovered.steps.iter().rev();
    let reverted = steps.map(|step| host.revert(step).unwrap()).collect();
    recovered.journal.forget_all().unwrap();
    reverted
}

#[test]
fn an_applied_plan_is_what_ip_shows_and_leaves_nothing_to_do() {
    on_host(|host| {
        prepare(host.socket());
        for operation in planned(host) {
            host.apply(&operation).unwrap();
        }
        assert_eq!(planned(host), []);

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
        let way = host.socket().route_to(inside).unwrap();
        assert_eq!(way.link, Some(host.socket().link("adit0").unwrap().unwrap().index));
        assert!(host.socket().route_to("2606::1".parse().unwrap()).is_err(), "IPv6 is blocked");
    });
}

#[test]
fn the_commands_of_a_plan_do_what_the_plan_does() {
    let run = |apply_one: fn(&mut Host, &Operation)| {
        let mut result = None;
        on_host(|host| {
            prepare(host.socket());
            for operation in planned(host) {
                apply_one(host, &operation);
            }
            result = Some(snapshot());
        });
        result
    };
    let applied = run(|host, operation| host.apply(operation).unwrap());
    let typed = run(|_, operation| match operation {
        // sysctl(8) is not installed everywhere.
        Operation::WriteSysctl { key, to, .. } => sysctl::write(key, to).unwrap(),
        operation => operation.commands().iter().for_each(|line| drop(shell(line))),
    });
    assert_eq!(applied, typed);
}

#[test]
fn a_crash_after_any_operation_is_undone_from_the_journal() {
    let directory = Directory::new("crash");
    on_host(|host| {
        prepare(host.socket());
        let before = snapshot();
        let operations = planned(host);
        assert!(operations.len() > 15, "{operations:?}");
        // Once with the journal one step ahead of the operations, once without.
        for (crash, ahead) in
            (0..=operations.len()).flat_map(|crash| [(crash, false), (crash, true)])
        {
            let mut journal = Journal::create(&directory.0, "home", &header()).unwrap();
            let mut crashing = Host::open().unwrap();
            let mut undone = 0;
            for operation in &operations[..crash] {
                if let Some(undo) = operation.undo() {
                    journal.record(&undo).unwrap();
                    undone += 1;
                }
                crashing.apply(operation).unwrap();
            }
            let next = operations.get(crash).and_then(Operation::undo);
            if let Some(next) = next.filter(|_| ahead) {
                journal.record(&next).unwrap();
            }
            drop((journal, crashing));
            wait_for_end_of_table();

            let reverted = recover(&mut Host::open().unwrap(), &directory.0);
            let done = reverted.iter().filter(|reverted| **reverted == Reverted::Done).count();
            // IPv6 addresses and everything else that was there are back.
            assert_eq!(snapshot(), before, "after {crash} operations");
            assert_eq!(done, undone, "{reverted:?}");
        }
        assert_eq!(planned(host), operations);
    });
}

#[test]
fn what_someone_changed_since_is_left_alone() {
    on_host(|host| {
        prepare(host.socket());
        let operations = planned(host);
        for operation in &operations {
            host.apply(operation).unwrap();
        }
        ip("link set adit0 mtu 1300");
        ip("address add 192.0.2.99/24 dev adit0");
        ip("route replace 203.0.113.0/24 via 198.51.100.1 dev left");
        ip("-6 route del unreachable ::/1");
        ip("address del 10.1.1.1 peer 10.1.1.2/32 dev adit0");
        sysctl::write("net.ipv4.conf.adit0.rp_filter", "0").unwrap();

        let mut left_alone = Vec::new();
        for operation in operations.iter().rev() {
            let Some(undo) = operation.undo() else { continue };
            let reverted = host.revert(&undo).unwrap();
            if reverted != Reverted::Done {
                left_alone.push((operation.commands().concat(), reverted));
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
    on_host(|host| {
        prepare(host.socket());
        let operations = planned(host);
        for operation in &operations {
            host.apply(operation).unwrap();
        }
        ip("link del adit0");
        for operation in operations.iter().rev() {
            let Some(undo) = operation.undo() else { continue };
            let of_device = match &undo {
                Undo::Mtu { device, .. } | Undo::Down { device } => device.name == "adit0",
                Undo::Address(_) => true,
                Undo::Route(route) => route.device.name == "adit0",
                Undo::Sysctl { key, .. } => key.contains("adit0"),
                _ => false,
            };
            let expected = if of_device { Reverted::NotThere } else { Reverted::Done };
            assert_eq!(host.revert(&undo).unwrap(), expected, "{undo:?}");
        }
    });
}

#[test]
fn a_link_of_another_kind_is_not_taken_for_a_device() {
    on_host(|host| {
        prepare(host.socket());
        let desired = Desired { device: "left".to_owned(), ..desired() };
        let actual = host.read(&desired, &[]).unwrap();
        let error = plan(&desired, &actual).unwrap_err();
        let expected =
            PlanError::NotTunnel { device: "left".to_owned(), kind: "of kind veth".to_owned() };
        assert_eq!(error, expected);
    });
}
