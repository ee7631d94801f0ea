//! Looking at hosts before, during and after a tunnel, and saying what should hold.

use std::net::{IpAddr, Ipv4Addr};

use netlink::{Socket, sysctl};
use wire::offload::LinkLayer;
use wire::summary::Summary;

use super::{RunError, Scenario, Traffic};
use crate::capture::Testimony;
use crate::host::Host;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::throughput;

/// Strict reverse path filtering (RFC 3704, section 2.2).
const STRICT: &str = "1";

/// Loose reverse path filtering (RFC 3704, section 2.4).
const LOOSE: &str = "2";

/// What a host looked like before its tunnel.
#[derive(Debug)]
pub(super) struct Before<'h> {
    host: &'h Host,
    snapshot: Snapshot,
}

impl<'h> Before<'h> {
    pub(super) fn look(host: &'h Host) -> Result<Self, RunError> {
        Ok(Self { host, snapshot: look(host)? })
    }

    /// What is different by now.
    pub(super) fn changes(&self) -> Result<Vec<String>, RunError> {
        Ok(self.snapshot.differences(&look(self.host)?))
    }
}

fn look(host: &Host) -> Result<Snapshot, RunError> {
    look_at(host, Snapshot::take)
}

/// Looks at `host` from inside.
pub(super) fn look_at<T: Send + 'static>(
    host: &Host,
    look: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, RunError> {
    host.run(look).map_err(|source| RunError::Look { host: host.name(), source })
}

/// `rp_filter` of all that has one in the calling thread's namespace: `all`, `default` and each link.
fn reverse_path_filters() -> Result<Vec<(String, String)>, SnapshotError> {
    let links = Socket::open()?.links()?;
    let names = ["all", "default"].map(str::to_owned).into_iter();
    names
        .chain(links.into_iter().map(|link| link.name))
        .map(|name| {
            let key = sysctl::key_for_interface("net.ipv4.conf", &name, "rp_filter");
            Ok((name, sysctl::read(&key)?))
        })
        .collect()
}

impl Scenario<'_> {
    /// Nothing was lost or overtaken, and answers came back.
    pub(super) fn check_traffic(&mut self, traffic: &Traffic) {
        let Traffic { sent, received, answered, lost, out_of_order, .. } = traffic;
        let complete = *sent > 0 && received == sent && answered == sent;
        let evidence =
            format!("{sent} sent, {received} received, {lost} lost, {answered} answered");
        self.check("every message arrives and is answered", complete, evidence);
        let evidence = format!("{out_of_order} out of order");
        self.check("messages stay in order", *out_of_order == 0, evidence);
    }

    /// The receiver saw `source` as the messages' source.
    pub(super) fn check_source(&mut self, name: &str, traffic: &Traffic, source: Ipv4Addr) {
        let seen = traffic.source;
        let passed = seen.is_some_and(|seen| seen.ip() == source);
        let evidence = match seen {
            Some(seen) => format!("the sink saw them from {}", seen.ip()),
            None => "the sink saw none".to_owned(),
        };
        self.check(name, passed, evidence);
    }

    /// The internet takes connections from the client to `addresses` for those of the gateway.
    pub(super) fn check_translated(
        &mut self,
        [client, internet]: [&Host; 2],
        addresses: [IpAddr; 2],
        gateway: [IpAddr; 2],
    ) -> Result<(), RunError> {
        let mut seen = Vec::new();
        for address in addresses {
            let interrupt = Some(self.interrupt);
            let (_, accepted) = throughput::connect(client, internet, address, interrupt)?;
            seen.push(accepted.peer_addr().map_err(RunError::Sockets)?.ip());
        }
        let evidence: Vec<_> = seen.iter().map(ToString::to_string).collect();
        let evidence = format!("C sees TCP connections from {}", evidence.join(" and "));
        self.check("C sees B's addresses, over IPv4 and IPv6", seen == gateway, evidence);
        Ok(())
    }

    /// Reverse path filtering is strict on `hosts`, for every link of theirs.
    pub(super) fn check_strict(&mut self, hosts: &[&Host]) -> Result<(), RunError> {
        let mut relaxed = Vec::new();
        for host in hosts {
            let filters = look_at(host, reverse_path_filters)?;
            let of_others = filters.into_iter().filter(|(_, value)| value != STRICT);
            relaxed.extend(
                of_others.map(|(link, value)| format!("{value} for {link} of {}", host.name())),
            );
        }
        let names: Vec<_> = hosts.iter().map(|host| host.name()).collect();
        let names = names.join(" and ");
        let evidence = if relaxed.is_empty() {
            format!("rp_filter = 1 for all, default and each link of {names}")
        } else {
            format!("rp_filter = {}", relaxed.join(", "))
        };
        let name = format!("reverse path filtering of {names} stays strict");
        self.check(name, relaxed.is_empty(), evidence);
        Ok(())
    }

    /// Reverse path filtering is loose on `device` of `host` and strict on all others.
    pub(super) fn check_loose_only(
        &mut self,
        host: &Host,
        device: &'static str,
    ) -> Result<(), RunError> {
        let filters = look_at(host, reverse_path_filters)?;
        let wanted = |link: &str| if link == device { LOOSE } else { STRICT };
        let passed = filters.iter().all(|(link, value)| value == wanted(link));
        let values: Vec<_> =
            filters.iter().map(|(link, value)| format!("{link} {value}")).collect();
        let name = format!("reverse path filtering of {} is loose on {device} only", host.name());
        self.check(name, passed, format!("rp_filter of {}", values.join(", ")));
        Ok(())
    }

    /// `host` forwards IPv4, or does not.
    pub(super) fn check_forwarding(
        &mut self,
        name: &str,
        host: &Host,
        wanted: &str,
    ) -> Result<(), RunError> {
        let value = look_at(host, || Ok(sysctl::read("net.ipv4.ip_forward")?))?;
        let evidence = format!("net.ipv4.ip_forward = {value} in host {}", host.name());
        self.check(name, value == wanted, evidence);
        Ok(())
    }

    /// A host is as it was before its tunnel.
    pub(super) fn check_restored(&mut self, before: &Before<'_>) -> Result<(), RunError> {
        let changes = before.changes()?;
        let evidence = if changes.is_empty() {
            "links, addresses, routes, packet filter and sysctls are the same".to_owned()
        } else {
            changes.join("; ")
        };
        let name = format!("{} is as before", before.host.name());
        self.check(name, changes.is_empty(), evidence);
        Ok(())
    }

    /// The witness saw nothing.
    pub(super) fn check_witness(&mut self, testimony: &Testimony) {
        let evidence = match &testimony.first {
            _ if testimony.seen == 0 => "0 seen on A's eth0 since before the tunnel".to_owned(),
            Some(first) => {
                let first = Summary::new(LinkLayer::Ethernet, &first.octets);
                format!("{} seen, the first: {first}", testimony.seen)
            }
            None => format!("{} seen", testimony.seen),
        };
        self.check("no packet for C leaves A in clear", testimony.seen == 0, evidence);
    }
}
