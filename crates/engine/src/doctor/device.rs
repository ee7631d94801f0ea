//! Whether the tunnel runs, and its device is as it should be.

use device::{Holder, Mode};
use ipnet::IpNet;
use netlink::{Address, Link, TunMode};

use super::observed::{Observed, ObservedTunnel};
use super::{Check, Finding, Severity};
use crate::config::InterfaceAddress;

pub(super) fn checks(observed: &Observed, tunnel: &ObservedTunnel) -> Vec<Check> {
    let name = tunnel.device();
    let mut checks = vec![running(tunnel)];
    let Some(link) = observed.link_named(name) else {
        checks.push(Check::new(format!("the name {name} is free"), missing(tunnel)));
        return checks;
    };
    let Some(tun) = &link.tun else {
        checks.push(Check::new("", [not_tunnel(link)]));
        return checks;
    };
    let kind = Check::new(format!("device {name} is of the right kind"), mode(tunnel, tun.mode));
    let holders = Check::new(format!("nobody else holds device {name}"), foreign(tunnel));
    checks.extend([kind, holders]);
    if tunnel.running.is_some() {
        checks.push(Check::new(format!("device {name} is up"), down(link)));
        let lost = lost_addresses(observed, tunnel, link);
        checks.push(Check::new(format!("device {name} has its addresses"), lost));
    }
    checks
}

fn running(tunnel: &ObservedTunnel) -> Check {
    let name = &tunnel.config.name;
    let note = tunnel.running.is_none().then(|| Finding {
        severity: Severity::Note,
        subject: format!("tunnel {name}"),
        says: "it is not running, so that only what would keep it from running is looked at"
            .to_owned(),
        evidence: "no process has its journal open".to_owned(),
        mend: format!("adit up {name}.toml"),
    });
    let process = tunnel.running.unwrap_or_default();
    Check::new(format!("tunnel {name} is running: process {process}"), note)
}

fn missing(tunnel: &ObservedTunnel) -> Option<Finding> {
    let (name, tunnel_name) = (tunnel.device(), &tunnel.config.name);
    tunnel.running.map(|process| Finding {
        severity: Severity::Stops,
        subject: format!("device {name}"),
        says: format!("it is not there, although process {process} has the tunnel up"),
        evidence: "ip link: there is no interface of that name".to_owned(),
        mend: format!("adit down {tunnel_name}, then adit up {tunnel_name}.toml"),
    })
}

fn not_tunnel(link: &Link) -> Finding {
    let kind = link.kind.as_deref().unwrap_or("hardware or loopback");
    Finding {
        severity: Severity::Stops,
        subject: format!("device {}", link.name),
        says: "an interface that is neither TUN nor TAP has this name, so that the tunnel cannot have it"
            .to_owned(),
        evidence: format!("ip -d link show {}: {kind}", link.name),
        mend: "another name in [device], or ip link set NAME name OTHER for the interface".to_owned(),
    }
}

fn mode(tunnel: &ObservedTunnel, actual: TunMode) -> Option<Finding> {
    let (wanted, found) = match (tunnel.config.device.mode, actual) {
        (Mode::Tun, TunMode::Tap) => ("tun", "tap"),
        (Mode::Tap, TunMode::Tun) => ("tap", "tun"),
        _ => return None,
    };
    let name = tunnel.device();
    Some(Finding {
        severity: Severity::Stops,
        subject: format!("device {name}"),
        says: format!("it is a {found} device, and the tunnel needs a {wanted} device"),
        evidence: format!("ip -d link show {name}: tun type {found}"),
        mend: format!("adit device del {name}, or mode = \"{found}\" in [device]"),
    })
}

/// A process with threads in several namespaces may hold a device of this name elsewhere.
fn foreign(tunnel: &ObservedTunnel) -> impl Iterator<Item = Finding> {
    let others = tunnel.holders.iter().filter(|holder| !tunnel.own.contains(&holder.pid));
    others.map(|Holder { pid, command, only_here }| Finding {
        severity: if *only_here { Severity::Stops } else { Severity::Note },
        subject: format!("device {}", tunnel.device()),
        says: match only_here {
            true => format!("process {pid} ({command}) is attached to it and takes its packets"),
            false => format!(
                "process {pid} ({command}) is attached to it, or to one of this name in another namespace"
            ),
        },
        evidence: format!("/proc/{pid}/fdinfo: iff: {}", tunnel.device()),
        mend: format!("kill {pid}, or another name in [device]"),
    })
}

fn down(link: &Link) -> Option<Finding> {
    (!link.up).then(|| Finding {
        severity: Severity::Stops,
        subject: format!("device {}", link.name),
        says: "it is down, so that nothing goes into the tunnel or comes out of it".to_owned(),
        evidence: format!("ip link show {}: not UP", link.name),
        mend: format!("ip link set {} up", link.name),
    })
}

fn lost_addresses(
    observed: &Observed,
    tunnel: &ObservedTunnel,
    link: &Link,
) -> impl Iterator<Item = Finding> {
    let present = |wanted: &&InterfaceAddress| {
        let on_link = |found: &&Address| found.link == link.index;
        observed.addresses.iter().filter(on_link).any(|found| is_same(wanted, found))
    };
    let addresses = tunnel.config.device.addresses.iter().filter(move |wanted| !present(wanted));
    addresses.map(|wanted| Finding {
        severity: Severity::Stops,
        subject: format!("device {}", link.name),
        says: format!("it lacks the address {wanted}, so that packets for it go nowhere"),
        evidence: format!("ip address show {}: not listed", link.name),
        mend: format!("ip address add {wanted} dev {}", link.name),
    })
}

/// The kernel lists a point-to-point address with its other end, and one that is its own other end
/// without.
fn is_same(wanted: &InterfaceAddress, found: &Address) -> bool {
    match *wanted {
        InterfaceAddress::Prefix(prefix) => found.local == prefix,
        InterfaceAddress::PointToPoint { local, peer } => {
            found.local.addr() == local
                && found.peer.unwrap_or(found.local).trunc() == IpNet::trunc(&peer)
        }
    }
}
