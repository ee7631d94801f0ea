//! What a host's network looks like, to see later whether it is the same.

use std::collections::BTreeSet;

use netlink::{LinkIndex, Socket, SysctlError, sysctl};

use crate::host::Host;

/// The sysctls that a tunnel might change and must restore.
const SYSCTLS: [&str; 6] = [
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.conf.eth0.rp_filter",
    "net.ipv6.conf.default.forwarding",
];

/// Links, addresses, routes and sysctls of a host, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeSet<String>);

/// Why a host could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The kernel did not tell its links, addresses and routes.
    #[error(transparent)]
    Network(#[from] netlink::Error),
    /// A sysctl could not be read.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

impl Snapshot {
    /// What `host` looks like.
    pub(crate) fn take(host: &Host) -> Result<Self, SnapshotError> {
        host.run(|| Ok(Self(look()?)))
    }

    /// What is there in `later` but not here (`+`), and what is here but not there (`-`).
    pub(crate) fn differences(&self, later: &Self) -> Vec<String> {
        let gone = self.0.difference(&later.0).map(|line| format!("- {line}"));
        let new = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }
}

/// What the calling thread's namespace looks like.
fn look() -> Result<BTreeSet<String>, SnapshotError> {
    let mut socket = Socket::open()?;
    let links = socket.links()?;
    let name = |index: LinkIndex| {
        let link = links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("if{index}"), |link| link.name.clone())
    };
    let mut lines = BTreeSet::new();
    for link in &links {
        lines.insert(format!("link {} up {} mtu {}", link.name, link.up, link.mtu));
    }
    for address in socket.addresses()? {
        lines.insert(format!("address {} dev {}", address.local, name(address.link)));
    }
    for route in socket.routes()? {
        let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
        let dev = route.link.map(|link| format!(" dev {}", name(link))).unwrap_or_default();
        lines.insert(format!("route {}{via}{dev} table {}", route.destination, route.table));
    }
    for key in SYSCTLS {
        lines.insert(format!("sysctl {key} = {}", sysctl::read(key)?));
    }
    Ok(lines)
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
}
