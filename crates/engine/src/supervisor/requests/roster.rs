//! The tunnel as `wg` knows it, and as `wg` wants it to be.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use device::Mode;
use proto::key::PublicKey;
use transport::udp::UdpSocket;

use crate::config::{self, Endpoint, Host, KeySource};
use crate::supervisor::attachment::Attachment;
use crate::supervisor::keys::Keys;
use crate::supervisor::{Supervisor, underlay};
use crate::uapi::{self, Refusal, Roster, RosterPeer};
use crate::with_causes::WithCauses;

/// Characters of its key that a peer without a name is called by.
const SHORT_KEY: usize = 8;

impl Supervisor {
    /// The tunnel as the configuration protocol describes it.
    pub(in crate::supervisor) fn roster(&self) -> Roster {
        let preshared = |key: &PublicKey| {
            self.keys.as_ref().and_then(|keys| keys.preshared.get(key)).cloned().unwrap_or_default()
        };
        let peers = self.config.peers.iter().zip(self.peers.peers());
        let peers = peers.filter_map(|(peer, member)| {
            let public_key = peer.public_key?;
            Some(RosterPeer {
                name: Some(peer.name.clone()),
                public_key,
                preshared_key: preshared(&public_key),
                endpoint: member.path.and_then(|path| path.remote.socket_addr()),
                keepalive: peer
                    .keepalive
                    .map_or(0, |every| u16::try_from(every.as_secs()).unwrap_or(u16::MAX)),
                allowed_ips: peer.allowed_ips.clone(),
            })
        });
        Roster {
            private_key: self.keys.as_ref().map(|keys| keys.private.clone()),
            listen_port: self.sockets.first().map_or(0, |socket| socket.local_addr().port()),
            fwmark: self.config.local.fwmark,
            peers: peers.collect(),
        }
    }

    /// Makes the changes that `wg` asks for: all, or none.
    pub(in crate::supervisor) fn set(&mut self, changes: Vec<uapi::Change>) -> Result<(), Refusal> {
        let before = self.roster();
        let mut after = before.clone();
        after.apply(changes)?;
        let Some(private) = after.private_key.clone() else {
            return Err(Refusal::Unsupported { what: "the private key to none" });
        };
        if self.config.device.mode == Mode::Tap && after.peers.len() > 1 {
            return Err(Refusal::Unsupported { what: "the only peer to several" });
        }
        // What may fail comes before everything else.
        let rebound = self.listen_as(&before, &after)?;
        let secrets = after.peers.iter().filter(|peer| !peer.preshared_key.is_zero());
        let preshared = secrets.map(|peer| (peer.public_key, peer.preshared_key.clone())).collect();
        let moved = moved(&before.peers, &after.peers);
        let peers = configured(&self.config.peers, after.peers, &moved);
        let restarted = self.adopt(peers, Some(Keys { private, preshared }), &moved).is_some();
        if rebound && !restarted {
            self.with_attachment(Attachment::restart);
        }
        Ok(())
    }

    /// Has the port and the mark of `after`: both, or none. Whether there are other sockets now.
    fn listen_as(&mut self, before: &Roster, after: &Roster) -> Result<bool, Refusal> {
        let rebinds = after.listen_port != before.listen_port;
        if rebinds {
            self.rebind(after.listen_port, after.fwmark)?;
        } else if after.fwmark != before.fwmark {
            self.mark(after.fwmark)?;
        }
        self.config.local.fwmark = after.fwmark;
        Ok(rebinds)
    }

    fn mark(&self, mark: Option<u32>) -> Result<(), Refusal> {
        self.sockets.iter().try_for_each(|socket| {
            socket.set_mark(mark.unwrap_or(0)).map_err(|error| {
                tracing::warn!("mark datagrams: {error}");
                Refusal::Failed
            })
        })
    }

    /// Listens on another port, the same one at all addresses.
    fn rebind(&mut self, mut port: u16, mark: Option<u32>) -> Result<(), Refusal> {
        let mut sockets: Vec<UdpSocket> = Vec::new();
        for mut address in self.sockets.iter().map(UdpSocket::local_addr) {
            address.set_port(port);
            let bound = underlay::bind_all([address], mark).map_err(|error| {
                tracing::warn!("{}", WithCauses(&error));
                Refusal::PortInUse
            })?;
            port = bound.first().map_or(port, |socket| socket.local_addr().port());
            sockets.extend(bound);
        }
        self.sockets = sockets;
        Ok(())
    }
}

/// Who is told to be elsewhere than it is, and where.
fn moved(before: &[RosterPeer], after: &[RosterPeer]) -> HashMap<PublicKey, SocketAddr> {
    let known: HashMap<_, _> = before.iter().map(|peer| (peer.public_key, peer.endpoint)).collect();
    let told = after.iter().filter_map(|peer| Some((peer.public_key, peer.endpoint?)));
    told.filter(|(key, endpoint)| known.get(key) != Some(&Some(*endpoint))).collect()
}

/// Peers of the configuration as `peers` say that they are. Who has `moved` has no other endpoint any more: a name would
/// lead it back.
fn configured(
    known: &[config::Peer],
    peers: Vec<RosterPeer>,
    moved: &HashMap<PublicKey, SocketAddr>,
) -> Vec<config::Peer> {
    let known: HashMap<_, _> =
        known.iter().filter_map(|peer| Some((peer.public_key?, peer))).collect();
    let configured = |peer: RosterPeer| {
        let key = peer.public_key;
        let secret = Some(peer.preshared_key).filter(|key| !key.is_zero());
        let keepalive = Duration::from_secs(peer.keepalive.into());
        let was = known.get(&key).copied();
        let endpoints = match moved.get(&key) {
            Some(&remote) => vec![endpoint(remote)],
            None => was.map(|was| was.endpoints.clone()).unwrap_or_default(),
        };
        config::Peer {
            name: was.map_or_else(|| short_name(&key), |was| was.name.clone()),
            public_key: Some(key),
            preshared_key: secret.map(KeySource::Inline),
            endpoints,
            allowed_ips: peer.allowed_ips,
            keepalive: (!keepalive.is_zero()).then_some(keepalive),
        }
    };
    peers.into_iter().map(configured).collect()
}

/// What a peer is called that has no name.
fn short_name(key: &PublicKey) -> String {
    format!("peer-{}", key.to_string().chars().take(SHORT_KEY).collect::<String>())
}

fn endpoint(remote: SocketAddr) -> Endpoint {
    Endpoint::Udp { host: Host::Ip(remote.ip()), port: remote.port() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(key: u8, name: &str) -> config::Peer {
        config::Peer {
            name: "b".to_owned(),
            public_key: Some([key; 32].into()),
            preshared_key: None,
            endpoints: vec![Endpoint::Udp { host: Host::Name(name.to_owned()), port: 1 }],
            allowed_ips: Vec::new(),
            keepalive: None,
        }
    }

    fn at(key: u8, endpoint: &str) -> RosterPeer {
        RosterPeer { endpoint: endpoint.parse().ok(), ..RosterPeer::new([key; 32].into()) }
    }

    #[test]
    fn a_peer_that_is_told_to_be_elsewhere_is_not_looked_for_by_its_name() {
        let known = [named(1, "b.example"), named(2, "c.example")];
        let before = [at(1, "10.0.0.1:1"), at(2, "10.0.0.2:1")];
        let after = vec![at(1, "10.0.0.1:1"), at(2, "10.0.0.9:1"), at(3, "")];
        let moved = moved(&before, &after);
        assert_eq!(moved, HashMap::from([([2; 32].into(), "10.0.0.9:1".parse().unwrap())]));
        let endpoints = configured(&known, after, &moved).into_iter().map(|peer| peer.endpoints);
        let other = Endpoint::Udp { host: Host::Ip([10, 0, 0, 9].into()), port: 1 };
        assert_eq!(
            endpoints.collect::<Vec<_>>(),
            [known[0].endpoints.clone(), vec![other], vec![]]
        );
    }
}
