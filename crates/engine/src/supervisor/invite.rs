//! An invitation is made: what the ticket has to say, and what is kept of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use device::Mode;
use ipnet::IpNet;
use netlink::{Link, Route, Socket as Netlink};
use proto::InnerMtu;
use proto::key::PublicKey;
use proto::ticket::{Invitation, Settings, Ticket, is_name};
use transport::udp::UdpSocket;
use wire::frame;

use super::Supervisor;
use super::enrol::{allowed_ips, describe, wall};
use crate::channel::key::Key;
use crate::config::{self, InterfaceAddress, NewPeer};
use crate::hostname;
use crate::invitations::{self, Invited};
use crate::invite::{EXPIRES_MAX, Granted, InviteRequest};
use crate::serve;
use crate::with_causes::WithCauses;

/// What URLs of the transport begin with of which the addresses are the host's.
const UDP: &str = "udp:";

impl Supervisor {
    /// Lets the holder of a ticket become a peer; or why not.
    pub(super) fn invite(&mut self, request: &InviteRequest) -> Result<Granted, String> {
        let said = |error: &dyn std::error::Error| WithCauses(error).to_string();
        self.check_invite(request)?;
        let addresses = self.choose_addresses(&request.addresses)?;
        let settings = self.settings(request, &addresses);
        let octets = settings.emit().map_err(|error| said(&error))?;
        let endpoints = self.endpoints(request)?;
        let name = request.name.clone();
        self.try_peer(name.as_deref(), request.public_key.0, &addresses)?;
        let expires = wall().as_secs().saturating_add(request.expires_in);
        let invitation = Invitation {
            public_key: request.public_key.0,
            preshared_key: (&request.preshared_key).into(),
            expires,
            joined: None,
        };
        let inviter = self.keys.as_ref().map(|keys| Key(keys.public()));
        let inviter = inviter.ok_or("there is no key")?;
        let invited = Invited { invitation, name, addresses };
        let (what, time) = (describe(&invited), Duration::from_secs(request.expires_in));
        self.invitations.add(invited, wall()).map_err(|error| said(&error))?;
        self.tell_invitations();
        tracing::info!("{what} is open for {}", humantime::format_duration(time));
        Ok(Granted { inviter, expires, endpoints, settings: octets })
    }

    /// Whether somebody has been invited, or has joined.
    pub(super) fn is_expected(&self) -> bool {
        !self.config.peers.is_empty() || self.invitations.open(wall()).next().is_some()
    }

    fn tell_invitations(&mut self) {
        // Everybody stays where the worker knows it to be.
        let staying = self.config.peers.iter().filter_map(|peer| peer.public_key).collect();
        self.tell_peers(&staying);
    }

    fn check_invite(&self, request: &InviteRequest) -> Result<(), String> {
        if self.keys.is_none() {
            return Err("it has security \"none\", so that there are no tickets".to_owned());
        }
        if !self.invitations.are_possible() {
            return Err("its invitations could not be read when it came up".to_owned());
        }
        if !self.config.local.extensions {
            return Err("it has extensions = false, and joining is one of them".to_owned());
        }
        if self.invitations.find(&request.public_key.0).is_some() {
            return Err("the invitation is known already".to_owned());
        }
        if request.expires_in == 0 || request.expires_in > EXPIRES_MAX.as_secs() {
            return Err("the time is not in 1s..=365days".to_owned());
        }
        let Some(name) = &request.name else { return Ok(()) };
        let mut others = self.invitations.open(wall()).filter_map(|open| open.name.as_ref());
        if !is_name(name) {
            return Err(format!("{name:?} cannot name a peer"));
        }
        if self.config.peers.iter().any(|peer| peer.name == *name) {
            return Err(format!("there is a peer {name:?} already"));
        }
        if others.any(|open| open == name) {
            return Err(format!("an invitation of {name:?} is open already"));
        }
        Ok(())
    }

    /// The addresses of the joiner's device.
    fn choose_addresses(&self, asked: &[IpNet]) -> Result<Vec<IpNet>, String> {
        let own = self.config.device.addresses.iter().map(|address| match address {
            InterfaceAddress::Prefix(prefix) => *prefix,
            InterfaceAddress::PointToPoint { local, .. } => IpNet::from(*local),
        });
        let own: Vec<_> = own.take(Settings::ADDRESSES_MAX).collect();
        if self.config.device.mode == Mode::Tap && own.is_empty() && asked.is_empty() {
            // Whoever is on the other side of the Ethernet gives it one.
            return Ok(Vec::new());
        }
        let of_peers = self.config.peers.iter().flat_map(|peer| &peer.allowed_ips).copied();
        let open = self.invitations.open(wall()).flat_map(|open| &open.addresses);
        let taken: Vec<_> = of_peers.chain(open.map(|it| IpNet::from(it.addr()))).collect();
        invitations::choose(&own, asked, &taken)
            .map_err(|error| format!("{error}; --address gives one"))
    }

    fn settings(&self, request: &InviteRequest, addresses: &[IpNet]) -> Settings {
        let (config, offer) = (&self.config, &self.invitations.offer);
        let tunnel = (config.name != serve::NAME).then(|| config.name.clone());
        let or = |given: &[IpNet], offered: &[IpNet]| {
            if given.is_empty() { offered.to_vec() } else { given.to_vec() }
        };
        let own = config.device.addresses.iter().map(InterfaceAddress::local);
        Settings {
            tunnel,
            inviter: hostname::own(),
            joiner: request.name.clone(),
            addresses: addresses.to_vec(),
            inviter_addresses: own.take(Settings::ADDRESSES_MAX).collect(),
            routes: or(&request.routes, &offer.routes),
            default_route: request.default_route || offer.default_route,
            dns: if request.dns.is_empty() { offer.dns.clone() } else { request.dns.clone() },
            mtu: config.device.mtu.map(InnerMtu),
            mode: match config.device.mode {
                Mode::Tun => frame::Mode::Packets,
                Mode::Tap => frame::Mode::Frames,
            },
        }
    }

    /// Finds out whether the configuration file can take such a peer, and changes nothing.
    fn try_peer(
        &self,
        name: Option<&str>,
        public_key: PublicKey,
        addresses: &[IpNet],
    ) -> Result<(), String> {
        let peer = NewPeer {
            name: name.unwrap_or("a-name-for-a-trial").to_owned(),
            public_key: Some(public_key),
            preshared_key_file: None,
            endpoints: Vec::new(),
            allowed_ips: allowed_ips(&self.config, addresses),
            keepalive: None,
        };
        let tried = config::append_peer(&self.file, &peer, false);
        tried.map(|_| ()).map_err(|error| WithCauses(&error).to_string())
    }

    /// Where this side is: what was asked for, or what was said at the start, or what it listens on.
    fn endpoints(&mut self, request: &InviteRequest) -> Result<Vec<String>, String> {
        let given = [&request.endpoints, &self.invitations.offer.endpoints];
        if let Some(given) = given.into_iter().find(|given| !given.is_empty()) {
            return Ok(given.clone());
        }
        let listen = self.config.local.listen.iter().map(ToString::to_string);
        let mut endpoints: Vec<_> = listen.filter(|url| !url.starts_with(UDP)).collect();
        let local: Vec<_> = self.sockets.iter().map(UdpSocket::local_addr).collect();
        let device = self.config.device.name.to_string();
        let own = own_addresses(self.host.netlink(), &device).map_err(|error| error.to_string())?;
        for address in concrete(&local, &own) {
            let url = format!("udp://{address}");
            if !endpoints.contains(&url) {
                endpoints.push(url);
            }
        }
        endpoints.truncate(Ticket::ENDPOINTS_MAX);
        match endpoints.is_empty() {
            true => {
                Err("this host has no address that others could reach it at; --endpoint gives one"
                    .to_owned())
            }
            false => Ok(endpoints),
        }
    }
}

/// The addresses at which sockets at `local` are reached, where the host has `own`, the best first.
fn concrete(local: &[SocketAddr], own: &[IpAddr]) -> Vec<SocketAddr> {
    let of = |local: &SocketAddr| match local.ip().is_unspecified() {
        false => vec![*local],
        true => {
            let own = own.iter().filter(|ip| ip.is_ipv4() == local.is_ipv4());
            own.map(|ip| SocketAddr::new(*ip, local.port())).collect()
        }
    };
    local.iter().flat_map(of).filter(|address| !address.ip().is_loopback()).collect()
}

/// The addresses of the host that others may know, those of the link of a default route first.
fn own_addresses(netlink: &mut Netlink, device: &str) -> Result<Vec<IpAddr>, netlink::Error> {
    let (links, routes) = (netlink.links()?, netlink.routes()?);
    let is_default = |route: &&Route| route.destination.prefix_len() == 0;
    let uplinks: Vec<_> = routes.iter().filter(is_default).filter_map(|route| route.link).collect();
    let is_outer = |link: &&Link| link.up && !link.loopback && link.name != device;
    let outer: Vec<_> = links.iter().filter(is_outer).map(|link| link.index).collect();
    let addresses = netlink.addresses()?;
    let addresses = addresses.iter().filter(|address| outer.contains(&address.link));
    let mut found: Vec<_> = addresses
        .filter(|address| is_global(address.local.addr()))
        .map(|address| (!uplinks.contains(&address.link), address.local.addr()))
        .collect();
    found.sort_by_key(|(is_elsewhere, _)| *is_elsewhere);
    Ok(found.into_iter().map(|(_, address)| address).collect())
}

/// Whether an address means the same host on every link.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on_become_addresses_to_be_reached_at() {
        let addresses = |texts: &[&str]| texts.iter().map(|it| it.parse().unwrap()).collect();
        let local: Vec<SocketAddr> =
            addresses(&["0.0.0.0:4740", "[::]:4741", "10.0.0.7:9", "127.0.0.1:9"]);
        let own: Vec<IpAddr> =
            ["198.51.100.2", "10.1.0.2", "2001:db8::2"].map(|it| it.parse().unwrap()).to_vec();
        let expected: Vec<SocketAddr> =
            addresses(&["198.51.100.2:4740", "10.1.0.2:4740", "[2001:db8::2]:4741", "10.0.0.7:9"]);
        assert_eq!(concrete(&local, &own), expected);
    }
}
