//! What a host's network looks like, and the kernel's counters.

use std::collections::BTreeSet;
use std::fs;

use ipnet::IpNet;
use lab::Host;
use netlink::{Address, Link, LinkIndex, Socket, sysctl};

use super::tunnel::DEVICE;

/// What a tunnel might change beside links, addresses and routes.
const SYSCTLS: [&str; 8] = [
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.default.forwarding",
    "net.ipv4.conf.eth0.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.default.forwarding",
    "net.ipv6.conf.eth0.forwarding",
];

/// The links, addresses, routes and sysctls of `host`, one a line, all that is known of each.
pub(crate) fn of(host: &Host) -> BTreeSet<String> {
    host.run(|| {
        let mut socket = Socket::open().unwrap();
        let mut lines = BTreeSet::new();
        lines.extend(socket.links().unwrap().iter().map(|link| format!("{link:?}")));
        lines.extend(socket.addresses().unwrap().iter().map(|address| format!("{address:?}")));
        lines.extend(socket.routes().unwrap().iter().map(|route| format!("{route:?}")));
        lines.extend(SYSCTLS.map(|key| format!("{key} = {}", sysctl::read(key).unwrap())));
        lines
    })
}

/// The same, but for what the kernel leaves of its own at a TUN device that was used: a link-local
/// address, and how the last reader wanted its packets.
pub(crate) fn lasting(host: &Host) -> BTreeSet<String> {
    let device = link(host, DEVICE).map(|link| format!("{:?}", link.index)).unwrap_or_default();
    let is_kernels = |line: &String| line.contains(&device) && line.contains("fe80::");
    let lines = of(host).into_iter().filter(|line| !is_kernels(line));
    lines.map(|line| line.replace("vnet_hdr: true", "vnet_hdr: false")).collect()
}

/// Fails with what is different.
pub(crate) fn assert_same(before: &BTreeSet<String>, after: &BTreeSet<String>) {
    let gone: Vec<_> = before.difference(after).collect();
    let new: Vec<_> = after.difference(before).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}, new: {new:#?}");
}

/// Runs `change` with a netlink socket in `host`, and the link of that name.
pub(crate) fn change<T: Send + 'static>(
    host: &Host,
    link: &'static str,
    change: impl FnOnce(&mut Socket, LinkIndex) -> Result<T, netlink::Error> + Send + 'static,
) -> T {
    host.run(move || {
        let mut socket = Socket::open().unwrap();
        let link = socket.link(link).unwrap().expect("the link is there").index;
        change(&mut socket, link).unwrap()
    })
}

/// Switches a link on or off.
pub(crate) fn set_up(host: &Host, link: &'static str, up: bool) {
    change(host, link, move |socket, link| socket.set_up(link, up));
}

/// The link of that name, if there is one.
pub(crate) fn link(host: &Host, name: &'static str) -> Option<Link> {
    host.run(move || Socket::open().unwrap().link(name).unwrap())
}

/// Gives a link an address.
pub(crate) fn add_address(host: &Host, link: &'static str, address: &str) {
    let local: IpNet = address.parse().unwrap();
    change(host, link, move |socket, link| {
        socket.add_address(&Address { link, local, peer: None })
    });
}

/// Takes an address away from a link.
pub(crate) fn delete_address(host: &Host, link: &'static str, address: &str) {
    let local: IpNet = address.parse().unwrap();
    change(host, link, move |socket, link| {
        socket.delete_address(&Address { link, local, peer: None })
    });
}

/// Writes a sysctl.
pub(crate) fn write_sysctl(host: &Host, key: &'static str, value: &'static str) {
    host.run(move || sysctl::write(key, value)).unwrap();
}

/// Packets with a wrong checksum that the kernel of `host` has got so far, by counter.
pub(crate) fn checksum_errors(host: &Host) -> Vec<(String, u64)> {
    host.run(|| {
        // The namespace of this thread, not of the process.
        let v4 = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let v6 = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
        let mut errors = snmp(&v4);
        errors.extend(v6.lines().filter_map(|line| {
            let (name, value) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        }));
        errors.retain(|(name, _)| name.ends_with("InCsumErrors"));
        errors
    })
}

/// Fails if the kernel of `host` has ever got a wrong checksum.
pub(crate) fn assert_no_checksum_errors(host: &Host) {
    let errors = checksum_errors(host);
    let names: Vec<_> = errors.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["TcpInCsumErrors", "UdpInCsumErrors", "IcmpInCsumErrors", "Udp6InCsumErrors"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(errors.iter().all(|(_, count)| *count == 0), "host {}: {errors:?}", host.name());
}

/// Reads pairs of lines, `Tcp: InSegs InCsumErrors` and `Tcp: 5 0`.
fn snmp(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<_> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    lines
        .chunks(2)
        .flat_map(|pair| {
            let (protocol, names) = pair[0];
            let (_, values) = pair[1];
            names.split(' ').zip(values.split(' ')).filter_map(move |(name, value)| {
                Some((format!("{protocol}{name}"), value.parse().ok()?))
            })
        })
        .collect()
}
