//! The rules that tie several values together, and the defaults that follow from other values.

mod network;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use device::Mode;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::Problems;
use super::schema::{MAX_TAP_PEERS, NOT_SUPPORTED};
use super::section::{DeviceDraft, Draft, LocalDraft, PeerDraft};
use super::table::{At, Place};
use super::{Config, DeviceConfig, Local, Origin, Peer};

/// The least MTU of a link that carries IPv6 (RFC 8200, section 5).
const MIN_IPV6_MTU: u32 = 1280;

/// Checks a draft and makes a configuration of it, or none if a value is missing. It counts only if
/// there are no problems afterwards.
pub(super) fn finish(draft: Draft, origin: &Origin, problems: &mut Problems<'_>) -> Option<Config> {
    check_device(&draft.device, problems);
    network::check(&draft, problems);
    check_listen(&draft.local, problems);
    check_endpoints(&draft.peers, &draft.local, problems);
    check_allowed_ips(&draft.peers, draft.device.mode, problems);
    check_repeats(&draft.peers, problems);
    Some(Config {
        name: origin.tunnel().to_owned(),
        local: finish_local(draft.local),
        peers: finish_peers(draft.peers, draft.device.mode?)?,
        device: finish_device(draft.device)?,
        network: network::finish(draft.network),
    })
}

fn check_device(device: &DeviceDraft, problems: &mut Problems<'_>) {
    let addresses = located(&device.place, &device.addresses.items);
    refuse_repeats(addresses, problems, |address| format!("addresses \"{address}\""));
    let ipv6 = device.addresses.items.iter().find(|address| address.value.local().is_ipv6());
    if let (Some(address), Some(At { offset, value: mtu })) = (ipv6, &device.mtu)
        && *mtu < MIN_IPV6_MTU
    {
        let (place, ip) = (&device.place, address.value.local());
        let message = format!(
            "{place}mtu {mtu} is less than {MIN_IPV6_MTU}, which the IPv6 address \"{ip}\" needs"
        );
        problems.push(*offset, message);
    }
}

fn check_listen(local: &LocalDraft, problems: &mut Problems<'_>) {
    let listen = located(&local.place, &local.listen.items);
    refuse_repeats(listen, problems, |endpoint| format!("listen \"{endpoint}\""));
}

/// Whoever sends first becomes the peer without an endpoint, so only one can be found that way, and
/// only at a port that it knows.
fn check_endpoints(peers: &[PeerDraft], local: &LocalDraft, problems: &mut Problems<'_>) {
    let mut without = peers.iter().filter(|peer| peer.endpoints.is_empty());
    let Some(first) = without.next() else { return };
    for peer in without {
        let message = "endpoints is missing; only one peer may be without, and that is the one";
        problems.push_contradiction(peer.offset, first.offset, format!("{}{message}", peer.place));
    }
    if local.listen.is_empty() {
        let message = "endpoints is missing, so that [local] needs listen";
        problems.push(first.offset, format!("{}{message}", first.place));
    }
}

fn check_allowed_ips(peers: &[PeerDraft], mode: Option<Mode>, problems: &mut Problems<'_>) {
    for (index, peer) in peers.iter().enumerate() {
        let (place, allowed_ips) = (&peer.place, &peer.allowed_ips);
        let mut report = |offset, message: &str| problems.push(offset, format!("{place}{message}"));
        match (mode, allowed_ips.written) {
            (Some(Mode::Tap), written) => {
                if index >= MAX_TAP_PEERS {
                    report(peer.offset, &format!("a second peer of a TAP device {NOT_SUPPORTED}"));
                }
                if written.unwrap_or_default() > 0 {
                    report(allowed_ips.offset, "allowed-ips has no meaning for a TAP device");
                }
            }
            (_, Some(0)) if peers.len() == 1 => {
                report(
                    allowed_ips.offset,
                    "allowed-ips is empty; leave it out to allow everything",
                );
            }
            (_, None | Some(0)) if peers.len() > 1 => {
                report(
                    peer.offset,
                    "allowed-ips is missing, which only an only peer may do without",
                );
            }
            _ => {}
        }
    }
}

fn check_repeats(peers: &[PeerDraft], problems: &mut Problems<'_>) {
    let names = peers.iter().filter_map(|peer| Some((&peer.place, peer.name.as_ref()?)));
    refuse_repeats(names, problems, |_| "name".to_owned());
    let keys = peers.iter().filter_map(|peer| Some((&peer.place, peer.public_key.as_ref()?)));
    refuse_repeats(keys, problems, |_| "public-key".to_owned());
    let endpoints = peers.iter().flat_map(|peer| located(&peer.place, &peer.endpoints.items));
    refuse_repeats(endpoints, problems, |endpoint| format!("endpoints \"{endpoint}\""));
    let prefixes = peers.iter().flat_map(|peer| located(&peer.place, &peer.allowed_ips.items));
    refuse_repeats(prefixes, problems, |prefix| format!("allowed-ips \"{prefix}\""));
}

fn located<'a, T>(
    place: &'a Place,
    items: &'a [At<T>],
) -> impl Iterator<Item = (&'a Place, &'a At<T>)> {
    items.iter().map(move |item| (place, item))
}

/// Reports every value that stands there for the second time; `describe` gives its key and itself.
fn refuse_repeats<'a, T: Eq + Hash + 'a>(
    items: impl Iterator<Item = (&'a Place, &'a At<T>)>,
    problems: &mut Problems<'_>,
    describe: impl Fn(&T) -> String,
) {
    let mut seen = HashMap::new();
    for (place, At { offset, value }) in items {
        match seen.entry(value) {
            Entry::Vacant(entry) => {
                entry.insert(*offset);
            }
            Entry::Occupied(first) => {
                let message = format!("{place}{} is already used", describe(value));
                problems.push_contradiction(*offset, *first.get(), message);
            }
        }
    }
}

fn finish_local(local: LocalDraft) -> Local {
    Local {
        listen: local.listen.into_values(),
        security: local.security,
        private_key_file: local.private_key_file,
        busy_poll: local.busy_poll,
    }
}

fn finish_device(device: DeviceDraft) -> Option<DeviceConfig> {
    Some(DeviceConfig {
        name: device.name?,
        mode: device.mode?,
        addresses: device.addresses.into_values(),
        mtu: device.mtu.map(|mtu| mtu.value),
        queues: device.queues,
        offload: device.offload,
    })
}

fn finish_peers(peers: Vec<PeerDraft>, mode: Mode) -> Option<Vec<Peer>> {
    peers.into_iter().map(|peer| finish_peer(peer, mode)).collect()
}

fn finish_peer(peer: PeerDraft, mode: Mode) -> Option<Peer> {
    let everything = peer.allowed_ips.is_empty() && mode == Mode::Tun;
    Some(Peer {
        name: peer.name?.value,
        public_key: peer.public_key.map(|key| key.value),
        preshared_key_file: peer.preshared_key_file,
        endpoints: peer.endpoints.into_values(),
        allowed_ips: match everything {
            true => vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())],
            false => peer.allowed_ips.into_values(),
        },
        keepalive: peer.keepalive,
    })
}
