//! The host in general, whatever the tunnel.

use netlink::sysctl;

use super::observed::{Node, Observed, Resolver};
use super::{Check, Finding, Severity, family};

/// The first kernel whose tun driver takes UDP super-packets (`TUN_F_USO4` in uapi/linux/if_tun.h).
const FIRST_WITH_USO: (u32, u32) = (6, 2);

pub(super) fn checks(observed: &Observed) -> Vec<Check> {
    let mut checks = vec![
        Check::new("the tun driver is there", node(&observed.node)),
        Check::new("the tun driver segments UDP (USO)", without_uso(&observed.kernel)),
        resolver(&observed.resolver),
    ];
    if observed.tunnel.is_none() {
        checks.push(Check::new("there is a default route", no_default_route(observed)));
        checks.push(Check::new("no link has a strict rp_filter", strict_links(observed)));
    }
    checks
}

fn node(node: &Node) -> Option<Finding> {
    let (says, evidence, mend) = match node {
        Node::Usable => return None,
        Node::Missing(evidence) => (
            "the tun driver is not there, so that there can be no device",
            evidence.as_str(),
            "modprobe tun; a container must be given /dev/net/tun",
        ),
        Node::Forbidden(evidence) => (
            "the tun driver may not be used by this user, so that there can be no device",
            evidence.as_str(),
            "run as root, or let an administrator give users access to /dev/net/tun",
        ),
        Node::Foreign => (
            "something else stands in the place of the tun driver",
            "stat: not the character device 10:200",
            "rm /dev/net/tun; mknod -m 666 /dev/net/tun c 10 200",
        ),
        Node::Failed(evidence) => {
            ("the tun driver cannot be opened", evidence.as_str(), "the kernel's log: dmesg")
        }
    };
    Some(Finding {
        severity: Severity::Stops,
        subject: "/dev/net/tun".to_owned(),
        says: says.to_owned(),
        evidence: evidence.to_owned(),
        mend: mend.to_owned(),
    })
}

fn without_uso(kernel: &str) -> Option<Finding> {
    let version = version(kernel).filter(|version| *version < FIRST_WITH_USO);
    version.map(|_| Finding {
        severity: Severity::Degrades,
        subject: "kernel".to_owned(),
        says: "its tun driver does not segment UDP, so that UDP is carried packet by packet"
            .to_owned(),
        evidence: format!("uname -r: {kernel}"),
        mend: "Linux 6.2 or later".to_owned(),
    })
}

/// The first two numbers of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn resolver(resolver: &Resolver) -> Check {
    let (fine, note) = match resolver {
        Resolver::Resolved => ("names are answered by systemd-resolved".to_owned(), None),
        Resolver::File(servers) if servers.is_empty() => (
            String::new(),
            Some(Finding {
                severity: Severity::Note,
                subject: "/etc/resolv.conf".to_owned(),
                says: "it names no server, so that names of endpoints can hardly be looked up"
                    .to_owned(),
                evidence: "no line \"nameserver\"".to_owned(),
                mend: "a line \"nameserver ADDRESS\"".to_owned(),
            }),
        ),
        Resolver::File(servers) => {
            let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
            (format!("names are answered by {} (/etc/resolv.conf)", servers.join(", ")), None)
        }
    };
    Check::new(fine, note)
}

fn no_default_route(observed: &Observed) -> Option<Finding> {
    let has = |v4| {
        let mut defaults = observed.main_routes().filter(|it| it.destination.prefix_len() == 0);
        defaults.any(|route| route.destination.addr().is_ipv4() == v4)
    };
    (!has(true) && !has(false)).then(|| Finding {
        severity: Severity::Note,
        subject: "default route".to_owned(),
        says: "there is none, so that only networks with a route of their own are reached"
            .to_owned(),
        evidence: format!("ip route: no default of {} or {}", family(true), family(false)),
        mend: "ip route add default via ROUTER".to_owned(),
    })
}

fn strict_links(observed: &Observed) -> Option<Finding> {
    let value = |name: &str| {
        let key = sysctl::key_for_interface("net.ipv4.conf", name, "rp_filter");
        observed.sysctl(&key).unwrap_or("0")
    };
    let strict = observed.links.iter().filter(|link| value("all").max(value(&link.name)) == "1");
    let names: Vec<_> = strict.map(|link| link.name.as_str()).collect();
    (!names.is_empty()).then(|| Finding {
        severity: Severity::Note,
        subject: "rp_filter".to_owned(),
        says: format!(
            "{} let in only packets whose answer leaves by the same link",
            names.join(", ")
        ),
        evidence: "net.ipv4.conf.*.rp_filter = 1".to_owned(),
        mend: "sysctl -w net.ipv4.conf.LINK.rp_filter=2, where answers take another way".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_two_numbers_that_count() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("6.18-rc1"), Some((6, 18)));
        assert_eq!(version("linux"), None);
    }
}
