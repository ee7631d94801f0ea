//! What a host's network looks like, to see later whether it is the same.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::io;

use netlink::{Address, Link, LinkIndex, Route, Socket, SysctlError, nftables, sysctl};

/// The sysctls of a host as a whole that a tunnel might change and must restore.
const SYSCTLS: [&str; 1] = ["net.ipv4.ip_forward"];

/// The same of each link, of links to come, and of all.
const LINK_SYSCTLS: [(&str, &[&str]); 2] = [
    ("net.ipv4.conf", &["forwarding", "rp_filter", "accept_redirects", "send_redirects"]),
    ("net.ipv6.conf", &["forwarding", "accept_ra", "accept_redirects", "disable_ipv6"]),
];

/// The main routing table of IPv4 and all of IPv6 (proc_pid_net(5)), in which alone routes that refuse
/// packets are listed in a form that is easy to read. They are of the reading thread's namespace.
const ROUTES_IPV4: &str = "/proc/thread-self/net/route";
const ROUTES_IPV6: &str = "/proc/thread-self/net/ipv6_route";

/// `RTF_REJECT` of include/uapi/linux/route.h.
const REJECT: u32 = 0x0200;

/// Links, addresses, routes, packet filter and sysctls of a host, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeSet<String>);

/// Why a host could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The kernel did not tell its links, addresses, routes or packet filter.
    #[error(transparent)]
    Network(#[from] netlink::Error),
    /// A sysctl could not be read.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// A list of routes could not be read.
    #[error("read {file}")]
    Routes {
        /// The file.
        file: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl Snapshot {
    /// What the calling thread's namespace looks like.
    pub(crate) fn take() -> Result<Self, SnapshotError> {
        let mut socket = Socket::open()?;
        let links = socket.links()?;
        let mut lines = BTreeSet::new();
        lines.extend(links.iter().map(|link| link_line(link, &links)));
        lines.extend(socket.addresses()?.iter().map(|address| address_line(address, &links)));
        lines.extend(socket.routes()?.iter().map(|route| route_line(route, &links)));
        lines.extend(refusals(ROUTES_IPV4, refusal_ipv4)?);
        lines.extend(refusals(ROUTES_IPV6, refusal_ipv6)?);
        lines.extend(packet_filter()?);
        lines.extend(settings(&links)?);
        Ok(Self(lines))
    }

    /// What is there in `later` but not here (`+`), and what is here but not there (`-`).
    pub(crate) fn differences(&self, later: &Self) -> Vec<String> {
        let gone = self.0.difference(&later.0).map(|line| format!("- {line}"));
        let new = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }
}

fn name(index: LinkIndex, links: &[Link]) -> String {
    let link = links.iter().find(|link| link.index == index);
    link.map_or_else(|| format!("if{index}"), |link| link.name.clone())
}

/// ` keyword value`, or nothing.
fn option(keyword: &str, value: Option<impl Display>) -> String {
    value.map(|value| format!(" {keyword} {value}")).unwrap_or_default()
}

fn link_line(link: &Link, links: &[Link]) -> String {
    let Link { up, mtu, .. } = link;
    let mac = link.mac.map(|mac| mac.map(|octet| format!("{octet:02x}")).join(":"));
    let master = link.master.map(|master| name(master, links));
    let (mac, master) = (option("mac", mac), option("master", master));
    format!("link {} up {up} mtu {mtu}{mac}{master}", link.name)
}

fn address_line(address: &Address, links: &[Link]) -> String {
    let peer = option("peer", address.peer);
    format!("address {}{peer} dev {}", address.local, name(address.link, links))
}

/// As `ip route` has it: every attribute is part of what has to be the same.
pub(crate) fn route_line(route: &Route, links: &[Link]) -> String {
    let Route { destination, via, link, source, metric, table, mtu, protocol } = route;
    [
        format!("route {destination}"),
        option("via", *via),
        option("dev", link.map(|link| name(link, links))),
        option("src", *source),
        option("metric", *metric),
        option("mtu", *mtu),
        format!(" table {table} proto {protocol}"),
    ]
    .concat()
}

fn refusals(
    file: &'static str,
    parse: fn(&str) -> Option<String>,
) -> Result<Vec<String>, SnapshotError> {
    let text = match fs::read_to_string(file) {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        result => result.map_err(|source| SnapshotError::Routes { file, source })?,
    };
    Ok(text.lines().filter_map(parse).collect())
}

/// A route that refuses packets: interface, destination, gateway, flags, two counters, metric, mask.
fn refusal_ipv4(line: &str) -> Option<String> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let &[_, destination, _, flags, _, _, metric, mask, ..] = fields.as_slice() else {
        return None;
    };
    is_refusal(flags).then(|| format!("refused {destination} mask {mask} metric {metric}"))
}

/// The same of IPv6: destination, length, source, length, gateway, metric, two counters, flags, name.
fn refusal_ipv6(line: &str) -> Option<String> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let &[destination, length, _, _, _, metric, _, _, flags, _] = fields.as_slice() else {
        return None;
    };
    is_refusal(flags).then(|| format!("refused {destination} length {length} metric {metric}"))
}

fn is_refusal(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & REJECT != 0)
}

/// Tables and base chains; none if the kernel has no nf_tables.
fn packet_filter() -> Result<Vec<String>, SnapshotError> {
    match list_packet_filter() {
        Err(error) if error.is_unsupported() => Ok(Vec::new()),
        result => Ok(result?),
    }
}

fn list_packet_filter() -> Result<Vec<String>, netlink::Error> {
    let mut socket = nftables::Socket::open()?;
    let mut lines = Vec::new();
    for table in socket.tables()? {
        lines.push(format!("table {} {} owned {}", table.family, table.name, table.owner));
    }
    for chain in socket.base_chains()? {
        let id = chain.id();
        let nftables::BaseChain { hook, priority, policy, .. } = chain;
        lines.push(format!("chain {id} hook {hook} priority {priority} policy {policy}"));
    }
    Ok(lines)
}

fn settings(links: &[Link]) -> Result<Vec<String>, SnapshotError> {
    let names = || ["all", "default"].into_iter().chain(links.iter().map(|link| &*link.name));
    let of_links = LINK_SYSCTLS.iter().flat_map(|&(conf, settings)| {
        names().flat_map(move |name| {
            settings.iter().map(move |setting| sysctl::key_for_interface(conf, name, setting))
        })
    });
    let keys = SYSCTLS.map(str::to_owned).into_iter().chain(of_links);
    keys.map(|key| Ok(format!("sysctl {key} = {}", sysctl::read(&key)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_what_is_gone_and_what_is_new() {
        let snapshot = |lines: &[&str]| Snapshot(lines.iter().map(ToString::to_string).collect());
        let before = snapshot(&["link lo", "sysctl x = 0"]);
        let after = snapshot(&["link adit0", "link lo", "sysctl x = 1"]);
        assert_eq!(
            before.differences(&after),
            ["- sysctl x = 0", "+ link adit0", "+ sysctl x = 1"]
        );
        assert!(before.differences(&before).is_empty());
    }

    #[test]
    fn a_routes_line_has_every_attribute_that_is_given() {
        let mut route = Route::new("0.0.0.0/0".parse().unwrap());
        assert_eq!(route_line(&route, &[]), "route 0.0.0.0/0 table 254 proto 4");
        route.via = Some("10.1.0.2".parse().unwrap());
        route.link = Some(LinkIndex(7));
        route.source = Some("10.1.0.1".parse().unwrap());
        (route.metric, route.mtu) = (Some(100), Some(1400));
        assert_eq!(
            route_line(&route, &[]),
            "route 0.0.0.0/0 via 10.1.0.2 dev if7 src 10.1.0.1 metric 100 mtu 1400 table 254 proto 4"
        );
    }

    #[test]
    fn routes_that_refuse_are_told_from_others_by_their_flag() {
        let other = "eth0 0001010A 00000000 0001 0 0 0 00FFFFFF 0 0 0";
        assert_eq!(refusal_ipv4(other), None);
        let refusal = "* 007100CB 00000000 0200 0 0 0 00FFFFFF 0 0 0";
        assert_eq!(refusal_ipv4(refusal).unwrap(), "refused 007100CB mask 00FFFFFF metric 0");
        let nothing = "0".repeat(32);
        let line = |flags| format!("{nothing} 01 {nothing} 00 {nothing} 00000400 1 0 {flags} lo");
        assert_eq!(refusal_ipv6(&line("00000001")), None);
        let refusal = refusal_ipv6(&line("00200200")).unwrap();
        assert_eq!(refusal, format!("refused {nothing} length 01 metric 00000400"));
    }
}
