//! What is said when the tunnel is up, on SIGUSR1, and at the end.

use super::{Supervisor, desired};
use crate::config::Security;

impl Supervisor {
    /// Says what is up, and what is remarkable about it.
    pub(super) fn announce(&mut self) {
        let name = &self.config.name;
        let device = &self.config.device;
        let link = self.host.netlink().link(device.name.as_str()).ok().flatten();
        let mtu = link.map_or(0, |link| link.mtu);
        if self.config.local.security == Security::None {
            tracing::warn!(
                "tunnel {name:?} has security \"none\": packets travel in clear, and whoever can \
                 forge a peer's address can inject packets"
            );
        }
        desired::warn_of_leaks(&self.config);
        for peer in self.peers.peers() {
            match &peer.path {
                Some(path) => tracing::debug!("peer {:?} is at {}", peer.name, path.remote),
                None if self.keys.is_none() => tracing::info!(
                    "peer {:?} has no endpoint: it will be the first sender",
                    peer.name
                ),
                None => tracing::debug!("peer {:?} has no endpoint: it has to begin", peer.name),
            }
        }
        if let Some(keys) = &self.keys {
            tracing::debug!("tunnel {name:?} has the public key {}", keys.public());
        }
        let sockets = self.sockets.iter().map(|socket| format!("udp://{}", socket.local_addr()));
        let folders = self.folders.iter().map(|folder| format!("spool://{}", folder.display()));
        let listening: Vec<_> = sockets.chain(folders).collect();
        tracing::info!(
            "tunnel {name:?} is up: device {} ({}), MTU {mtu}, listening on {}",
            device.name,
            device.mode,
            listening.join(", "),
        );
    }

    pub(super) fn report(&mut self, what: &str) {
        let mut totals = self.past.clone();
        if let Some(attachment) = &mut self.attachment {
            totals += &attachment.report().totals;
        }
        let name = &self.config.name;
        tracing::info!("tunnel {name:?} {what}, after {:.1} s", self.since.elapsed().as_secs_f64());
        tracing::info!("to the peers: {}", totals.out);
        tracing::info!("from the peers: {}", totals.back);
    }
}
