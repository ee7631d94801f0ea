//! Looking at hosts before, during and after a tunnel, and saying what should hold.

use netlink::sysctl;
use wire::offload::LinkLayer;
use wire::summary::Summary;

use super::{RunError, Scenario, Traffic};
use crate::capture::Testimony;
use crate::host::Host;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::tunnel::{DEVICE, Tunnel};

/// Strict reverse path filtering (RFC 3704, section 2.2).
const STRICT: &str = "1";

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
}

fn look(host: &Host) -> Result<Snapshot, RunError> {
    Snapshot::take(host).map_err(|source| RunError::Look { host: host.name(), source })
}

fn read_sysctl(host: &Host, key: String) -> Result<String, RunError> {
    host.run(move || sysctl::read(&key))
        .map_err(|source| RunError::Look { host: host.name(), source: SnapshotError::from(source) })
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

    /// The receiver saw the sender's address inside the tunnel.
    pub(super) fn check_source(&mut self, traffic: &Traffic, inner: std::net::Ipv4Addr) {
        let seen = traffic.source;
        let passed = seen.is_some_and(|seen| seen.ip() == inner);
        let evidence = match seen {
            Some(seen) => format!("the sink saw them from {}", seen.ip()),
            None => "the sink saw none".to_owned(),
        };
        self.check("messages arrive with A's address in the tunnel", passed, evidence);
    }

    /// Reverse path filtering is strict on `host`, on the tunnel's device as well.
    pub(super) fn check_strict(&mut self, hosts: &[&Host]) -> Result<(), RunError> {
        let mut loose = Vec::new();
        for host in hosts {
            for link in ["all", "default", "eth0", DEVICE] {
                let key = sysctl::key_for_interface("net.ipv4.conf", link, "rp_filter");
                let value = read_sysctl(host, key)?;
                if value != STRICT {
                    loose.push(format!("{value} for {link} of {}", host.name()));
                }
            }
        }
        let evidence = if loose.is_empty() {
            format!("rp_filter = 1 for all, default, eth0 and {DEVICE}")
        } else {
            format!("rp_filter = {}", loose.join(", "))
        };
        self.check("reverse path filtering stays strict", loose.is_empty(), evidence);
        Ok(())
    }

    /// `host` forwards IPv4, or does not.
    pub(super) fn check_forwarding(
        &mut self,
        name: &'static str,
        host: &Host,
        wanted: &str,
    ) -> Result<(), RunError> {
        let value = read_sysctl(host, "net.ipv4.ip_forward".to_owned())?;
        let evidence = format!("net.ipv4.ip_forward = {value} in host {}", host.name());
        self.check(name, value == wanted, evidence);
        Ok(())
    }

    /// Tunnels end when they are asked to, and say that all went well.
    pub(super) fn stop_tunnels(&mut self, tunnels: Vec<Tunnel>) -> Result<(), RunError> {
        let mut ends = Vec::with_capacity(tunnels.len());
        for mut tunnel in tunnels {
            ends.push(tunnel.stop()?);
        }
        let passed = ends.iter().all(std::process::ExitStatus::success);
        let evidence: Vec<_> = ends.iter().map(ToString::to_string).collect();
        self.check("both tunnels end on SIGTERM", passed, evidence.join(", "));
        Ok(())
    }

    /// A host is as it was before its tunnel.
    pub(super) fn check_restored(
        &mut self,
        name: &'static str,
        before: &Before<'_>,
    ) -> Result<(), RunError> {
        let differences = before.snapshot.differences(&look(before.host)?);
        let evidence = if differences.is_empty() {
            "links, addresses, routes and sysctls are the same".to_owned()
        } else {
            differences.join("; ")
        };
        self.check(name, differences.is_empty(), evidence);
        Ok(())
    }

    /// The witness saw nothing.
    pub(super) fn check_witness(&mut self, testimony: &Testimony) {
        let evidence = match &testimony.first {
            _ if testimony.seen == 0 => {
                "0 seen on A's eth0, from before the tunnel until after it".to_owned()
            }
            Some(first) => {
                let first = Summary::new(LinkLayer::Ethernet, &first.octets);
                format!("{} seen, the first: {first}", testimony.seen)
            }
            None => format!("{} seen", testimony.seen),
        };
        self.check("no packet for C leaves A in clear", testimony.seen == 0, evidence);
    }
}
