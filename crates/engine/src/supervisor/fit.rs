//! The host's network is kept fitting while the tunnel runs.
//!
//! # Theory of operation
//!
//! Device, links, addresses and routes change under a tunnel. What changed is not followed change by change: several
//! may have been missed. When a crowd of changes is over ([`SETTLE`]), what is so by then is asked, the plan is made anew,
//! and what it still lacks is done.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink::plan::{self, Operation};
use netlink::{Change, LinkIndex};
use proto::InnerMtu;
use transport::udp::UdpSocket;

use super::attachment::Attachment;
use super::desired::{self, Circumstances};
use super::place::Place;
use super::{Supervisor, TunnelError, encapsulation, underlay};
use crate::channel::message::ToWorker;
use crate::with_causes::WithCauses;
use crate::worker::lane::content;

/// Changes of the network come in crowds; the plan is made anew when none has come for the first
/// time, and no more often than the second, since a router may have a hundred thousand routes.
pub(super) const SETTLE: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(500));

impl Supervisor {
    /// Follows the device, and what lies below it.
    ///
    /// Several changes may have happened since one was told, so what is so now is asked. That the
    /// device was down in between, and lost what the kernel then throws away, only the changes tell.
    pub(super) fn handle_changes(&mut self, changes: &[Change]) {
        if let Some(link) = self.link {
            if self.is_gone(link, changes) {
                return self.lose_device();
            }
            self.follow_device(link, changes);
        }
        if changes.iter().any(|change| !matches!(change, Change::LinkChanged(_)))
            || self.carries_tunnel(changes)
        {
            self.settle();
        }
        if let Some(names) = &self.names
            && changes.iter().any(|change| matches!(change, Change::AddressAdded(_)))
        {
            names.look_at_all();
        }
    }

    /// Whether a link other than the tunnel's own has changed.
    fn carries_tunnel(&self, changes: &[Change]) -> bool {
        changes.iter().any(
            |change| matches!(change, Change::LinkChanged(link) if Some(link.index) != self.link),
        )
    }

    /// Whether the device was deleted.
    ///
    /// A worker that is busy notices that by itself. One that sleeps may not: the kernel wakes it before the
    /// queue is detached (`tun_detach_all` in drivers/net/tun.c), and what it then finds is a queue without packets.
    fn is_gone(&mut self, device: LinkIndex, changes: &[Change]) -> bool {
        changes.iter().any(|change| match change {
            Change::LinkGone(link, _) => *link == device,
            Change::Missed => matches!(self.host.netlink().link_at(device), Ok(None)),
            _ => false,
        })
    }

    fn follow_device(&mut self, device: LinkIndex, changes: &[Change]) {
        let mut states = changes.iter().filter_map(|change| match change {
            Change::LinkChanged(link) if link.index == device => Some(link.up),
            Change::Missed => Some(false),
            _ => None,
        });
        let Some(first) = states.next() else { return };
        let was_up = self.device_up && first && states.all(|up| up);
        // What was missed may have been that it was down, or anything else.
        let is_sure = !self.device_up || !changes.contains(&Change::Missed);
        let Ok(Some(link)) = self.host.netlink().link_at(device) else { return };
        if link.up && !was_up && is_sure {
            tracing::info!("device {} is up again", link.name);
        } else if !link.up && self.device_up {
            tracing::warn!("device {} is down; packets are dropped until it is up", link.name);
        }
        self.device_up = link.up;
        if !was_up {
            self.settle();
        }
    }

    /// Has the plan made anew, when the present crowd of changes is over.
    pub(super) fn settle(&mut self) {
        let (quiet, interval) = SETTLE;
        let now = Instant::now();
        // A crowd that does not end is not waited for.
        let latest = self.due.fit.map_or(now + interval, |(_, latest)| latest);
        let earliest = self.due.fitted.map_or(now, |fitted| fitted + interval);
        self.due.fit = Some(((now + quiet).min(latest).max(earliest), latest));
    }

    /// Makes the host's network fit again, after something that it depends on has changed.
    ///
    /// A device that someone has switched off stays off, and is made to fit when it is up again.
    pub(super) fn fit(&mut self) {
        self.due.fit = None;
        self.due.fitted = Some(Instant::now());
        if self.link.is_none() || !self.device_up {
            return;
        }
        let desired = self.desired(true);
        if let Ok(desired) = &desired
            && desired.mtu != self.mtu.0
        {
            self.mtu = InnerMtu(desired.mtu);
            self.tell(&ToWorker::Mtu(desired.mtu));
        }
        match desired.and_then(|desired| self.fit_to(&desired)) {
            Ok(done) => {
                self.complaint = None;
                for operation in done {
                    tracing::info!(
                        "mended: {} ({})",
                        operation.commands().join("; "),
                        operation.why()
                    );
                }
            }
            Err(error) => {
                let complaint = WithCauses(&error).to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!("{complaint}");
                    self.complaint = Some(complaint);
                }
            }
        }
    }

    pub(super) fn fit_to(
        &mut self,
        desired: &plan::Desired,
    ) -> Result<Vec<Operation>, TunnelError> {
        let tunnel = self.config.name.clone();
        self.host.fit(desired).map_err(|cause| TunnelError::Host { tunnel, cause })
    }

    /// The largest inner packet that reaches every peer in one piece, or what the configuration says.
    pub(super) fn inner_mtu(&mut self) -> Result<InnerMtu, TunnelError> {
        let device = &self.config.device;
        if let Some(mtu) = device.mtu {
            return Ok(InnerMtu(mtu));
        }
        let listening: Vec<_> = self.sockets.iter().map(UdpSocket::local_addr).collect();
        Ok(underlay::inner_mtu(
            self.host.netlink(),
            &listening,
            &self.peers.places(),
            content(device.mode),
            encapsulation(&self.config),
            device.name.as_str(),
        )?)
    }

    /// The addresses of peers, to which datagrams must not go through the tunnel.
    fn outer_addresses(&self) -> Vec<IpAddr> {
        let places = self.peers.places();
        let remotes = places.iter().flatten().filter_map(Place::socket_addr);
        remotes.map(|remote| remote.ip()).collect()
    }

    /// What the host's network shall be like now; `running` if the tunnel was up already.
    pub(super) fn desired(&mut self, running: bool) -> Result<plan::Desired, TunnelError> {
        let circumstances = Circumstances {
            // Before it is opened, nobody knows.
            made_by_us: self.attachment.as_ref().is_none_or(Attachment::created),
            mtu: self.inner_mtu()?,
            endpoints: self.outer_addresses(),
            ipv6: desired::has_ipv6(),
            running,
        };
        Ok(desired::desired(&self.config, &circumstances))
    }
}
